"""The inertia of assignment passes that know only upper bounds of the distances.

Exact distances of all rows would cost a pass on a GPU more than 6 of 28 ms at 1.28 M rows of 4,096
features (docs/how-to/gpu.md), because each distance reads a whole row. The inertia follows from the
integer sums of the clusters instead, with a bound of its error.
"""

import math
from typing import Any, NamedTuple

from ktfast.kmeans.array_types import Float64
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.data.workspace import to_host
from ktfast.kmeans.sums import Sums
from ktfast.ops.kmeans_sums import kmeans_totals
from ktfast.ops.kmeans_tensor import TensorScreen

# Relative rounding error of a sum of squared distances per addition, with a margin of two.
_ROUNDING = 2.3e-16


class Inertia(NamedTuple):
    """An inertia that is known up to an error.

    Attributes
    ----------
    value : float
        The inertia.
    error : float
        Upper bound of the difference to the sum of the exact distances. 0 if `value` is that sum.
    """

    value: float
    error: float = 0.0


class InertiaOfSums:
    """Computes the inertia from the sums of the clusters.

    With a vector m, the sum of ``|x - c|**2`` over the n rows of a cluster is the sum of ``|x -
    m|**2``, which no label changes, plus a cost that depends only on n and on the sum of the rows.

    Parameters
    ----------
    rows : Rows
        The data [n, d], on a GPU or streamed to a GPU.
    mean : array, float64 [d]
        The vector m. The errors are least near the mean of the rows.
    sums : Sums
        Sums of the clusters, which give costs.
    """

    def __init__(self, rows: Rows, mean: Float64, sums: Sums) -> None:
        self._rows = rows
        self._mean = rows.workspace.to_device(mean.reshape(1, -1))
        self._sums = sums
        self._squares: Any = rows.workspace.empty((rows.n,), "float64")
        self._total = math.nan

    def add(self, screen: TensorScreen, place: slice, part: Any) -> None:
        """Add the squared distances of a block of rows to m; once for each row of the fit."""
        screen.exact_distances(part, self._mean, None, self._squares[place])

    def of(self, centers: Any) -> Inertia:
        """The inertia of the labels that the sums follow, with these centres."""
        if self._squares is not None:
            self._total = float(to_host(kmeans_totals(self._squares, None, None, None))[0])
            self._squares = None
        costs, errors = self._sums.costs(centers, self._mean.reshape(-1))
        # Roundings of an exact distance, and of the additions in the order of `kmeans_totals`.
        steps = 2 * (self._rows.d / 32 + self._rows.n / (1 << 20) + 64)
        value = max(0.0, self._total + math.fsum(costs))
        error = math.fsum(errors) + _ROUNDING * steps * (self._total + value)
        return Inertia(value, error)
