"""One level of a fitted hierarchy."""

from typing import Any, NamedTuple

from ktfast.kmeans.array_types import Float64
from ktfast.kmeans.hierarchical.sizes import SizeBalance, size_balance


class Level(NamedTuple):
    """One level of a hierarchy of clusters.

    Attributes
    ----------
    centers : array [k, d]
        Centres of the level, in the library and on the device of the rows.
    labels : array, int32 [m] (int64 for torch)
        Nearest of these centres for each row (finest level) or for each centre of the level below.
        Ties go to the lowest number.
    counts : array, float64 [k]
        Total weight of the rows below each cluster.
    """

    centers: Any
    labels: Any
    counts: Float64

    def balance(self) -> SizeBalance:
        """Measure how equal the sizes of the clusters of this level are."""
        return size_balance(self.counts)
