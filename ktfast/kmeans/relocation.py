"""What becomes of a cluster that lost all its rows."""

from typing import Any

import numpy as np

from ktfast.kmeans.rows import Float64, Rows, to_host

# Rows looked at for each empty cluster before the next batch of far rows is sorted out.
_SURPLUS = 16


def relocate_empty(
    rows: Rows,
    labels: Any,
    distances: Any,
    weight: Float64 | None,
    sums: Float64,
    counts: Float64,
) -> int:
    """Give each empty cluster the row that now costs most, and take it from its cluster.

    Rows are taken in the order of their weighted squared distance, ties to the lowest row; none
    twice, none equal to one taken before, none that lies on its centre, and never a cluster's last
    row. Taking a row lowers the inertia by its cost at least, so an empty cluster that finds no row
    (fewer distinct rows than clusters) stays empty.

    Parameters
    ----------
    rows : the data [n, d].
    labels, distances : of the present centres, int32 [n] and float64 [n].
    weight : float64 [n] or None.
    sums, counts : float64 [k, d] and [k] of these labels, changed in place.

    Returns
    -------
    the number of clusters that were given a row.
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
    """Yield the rows of positive cost, dearest first; sorts only as many as are asked for."""
    size = min(len(cost), _SURPLUS * wanted)
    # A partition may cut through equal costs, so everything at the limit is kept.
    limit = np.partition(cost, len(cost) - size)[len(cost) - size]
    first = np.flatnonzero((cost >= limit) & (cost > 0))
    yield from first[np.argsort(-cost[first], kind="stable")]
    rest = np.flatnonzero((cost < limit) & (cost > 0))
    yield from rest[np.argsort(-cost[rest], kind="stable")]
