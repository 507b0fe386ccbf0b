"""Assignments of a fit on a GPU: codes made once, guesses from before, sums that follow at once."""

from typing import Any

from ktfast.kmeans_rows import Rows
from ktfast.kmeans_sums import Sums
from ktfast.ops.kmeans_assign import PreparedCenters, kmeans_assign


class GpuAssigner:
    """Every row against every centre, block by block where rows are streamed.

    Each block is assigned and then added to the sums while it is on the GPU, so that an iteration
    reads streamed rows once. Labels alternate between two arrays: those of the last call stay as
    they are during the next.

    Parameters
    ----------
    rows : the data [n, d], on a GPU or streamed to it.
    sums : told of the labels of each block.
    """

    skipped = 0.0

    def __init__(self, rows: Rows, sums: Sums) -> None:
        self._rows = rows
        self._sums = sums
        self._distances = rows.empty((rows.n,), "float64")
        self._labels: Any = None
        self._others: Any = None

    def assign(self, centers: Any, *, last: bool = False) -> tuple[Any, Any]:
        """See `Assigner`; `last` says that the sums need not follow."""
        labels = (
            self._others if self._others is not None else self._rows.empty((self._rows.n,), "int32")
        )
        prepared = PreparedCenters(centers)
        for place, part in self._rows.parts():
            kmeans_assign(part, prepared, out=(labels[place], self._distances[place]))
            if not last:
                self._sums.follow(place, part, labels)
        self._labels, self._others = labels, self._labels
        return labels, self._distances
