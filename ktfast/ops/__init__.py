"""The public ops: functions from arrays to arrays that run the compiled kernels.

An op takes arrays of NumPy, torch or CuPy and computes on the device of its input. The results are
new arrays of the same library on the same device.

`jigsaw_tiles` makes Jigsaw++ puzzles from images. `kmeans_assign` finds the nearest centre of every
row, and `kmeans_update` adds up the rows of every cluster.

The module `permutations` holds `ktfast.permutation_set`. The other modules of this package are
internal, and each of them says at its top who uses it.
"""

from ktfast.ops.jigsaw_tiles import JigsawChoices, jigsaw_tiles
from ktfast.ops.kmeans_assign import PreparedCenters, kmeans_assign
from ktfast.ops.kmeans_update import kmeans_update

__all__ = ["JigsawChoices", "PreparedCenters", "jigsaw_tiles", "kmeans_assign", "kmeans_update"]


def __dir__() -> list[str]:
    """The public names (PEP 562)."""
    return sorted(__all__)
