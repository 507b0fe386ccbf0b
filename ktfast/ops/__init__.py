"""Array in, array out: the native kernels behind plain functions, on the device of their input."""

from ktfast.ops.jigsaw_tiles import JigsawChoices, jigsaw_tiles
from ktfast.ops.kmeans_assign import PreparedCenters, kmeans_assign
from ktfast.ops.kmeans_update import kmeans_update

__all__ = ["JigsawChoices", "PreparedCenters", "jigsaw_tiles", "kmeans_assign", "kmeans_update"]
