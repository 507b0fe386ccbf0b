"""Relocation of clusters that have lost all their rows."""

from typing import Any

import numpy as np

from ktfast.kmeans.array_types import Float64
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.data.workspace import to_host

# Rows per empty cluster that are sorted by cost first. The other rows are sorted only if needed.
_SORTED_ROWS = 16


def relocate_empty(
    rows: Rows,
    labels: Any,
    distances: Any,
    weight: Float64 | None,
    sums: Float64,
    counts: Float64,
) -> int:
    """Give each empty cluster the row with the highest cost, and take the row from its cluster.

    The cost of a row is its weighted squared distance. Rows are taken by descending cost, ties by
    ascending number. A row is not taken if its cost is zero, if it equals a row taken before, or if
    it is the last row of its cluster. Each relocation lowers the inertia by at least the cost of
    the row. An empty cluster stays empty if no such row is left, which happens if there are fewer
    distinct rows than clusters.

    Parameters
    ----------
    rows : Rows
        The data [n, d].
    labels : array, int32 [n]
        Labels of the present centres.
    distances : array, float64 [n]
        Squared distances to the present centres.
    weight : array, float64 [n], optional
        Weights of the rows. None means that all weights are 1.
    sums : array, float64 [k, d]
        Weighted sums of the clusters, changed in place.
    counts : array, float64 [k]
        Total weights of the clusters, changed in place.

    Returns
    -------
    relocated : int
        Number of clusters that were given a row.
    """
    empty = np.flatnonzero(~(counts > 0))
    if empty.size == 0:
        return 0
    cost = to_host(distances) if weight is None else to_host(distances) * weight
    owners = to_host(labels)
    members = np.bincount(owners if weight is None else owners[weight > 0], minlength=len(counts))
    taken: set[bytes] = set()
    for row in _costly_rows(cost, empty.size):
        owner = int(owners[row])
        if members[owner] < 2:
            continue
        values = rows.take(np.array([row]))[0] + 0.0  # -0 and 0 are the same point
        if values.tobytes() in taken:
            continue
        w = 1.0 if weight is None else float(weight[row])
        cluster = int(empty[len(taken)])
        taken.add(values.tobytes())
        members[owner] -= 1
        sums[owner] -= w * values
        counts[owner] -= w
        sums[cluster] = w * values
        counts[cluster] = w
        if len(taken) == empty.size:
            break
    return len(taken)


def _costly_rows(cost: Float64, wanted: int) -> Any:
    """Yield the rows of positive cost by descending cost; sort only as many as are requested."""
    size = min(len(cost), _SORTED_ROWS * wanted)
    # The partition may separate equal costs, so the first sort includes all costs at the limit.
    limit = np.partition(cost, len(cost) - size)[len(cost) - size]
    first = np.flatnonzero((cost >= limit) & (cost > 0))
    yield from first[np.argsort(-cost[first], kind="stable")]
    rest = np.flatnonzero((cost < limit) & (cost > 0))
    yield from rest[np.argsort(-cost[rest], kind="stable")]
