"""The total of the distances of all processes, with the bits that a single process would compute.

The kernel adds up parts of 4,096 rows, and then the sums of the parts (`csrc/kmeans_update/`). A
process calls the kernel for the parts that it holds completely. A few parts have rows on several
processes. Rank 0 adds up these parts, and then the sums of all parts.
"""

from typing import Any, NamedTuple

import numpy as np

from ktfast.kmeans.array_types import Float64
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.data.workspace import to_host
from ktfast.ops.kmeans_sums import TOTAL_LANES, TOTAL_ROWS, kmeans_part_totals


class _Share(NamedTuple):
    """What one process contributes to the total, in the order of its rows.

    Attributes
    ----------
    head : array, float64 [at most 4,095]
        Weighted distances of the rows that complete a part of an earlier process.
    parts : array, float64 [m]
        Sums of the complete parts.
    tail : array, float64 [at most 4,095]
        Weighted distances of the rows that begin a part.
    moved : int
        Number of rows whose label changed.
    """

    head: Float64
    parts: Float64
    tail: Float64
    moved: int


def spread_totals(
    rows: Rows, distances: Any, weight: Float64 | None, before: Any, after: Any
) -> tuple[float, int]:
    """Sum the distances of all processes, and count the rows whose label changed.

    The arguments and results are those of `ktfast.kmeans.data.passes.inertia_and_moved`.
    """
    head = min(rows.n, -rows.first % TOTAL_ROWS)
    tail = (rows.n - head) % TOTAL_ROWS
    body = slice(head, rows.n - tail)
    weights = rows.workspace.weights(weight)
    parts = kmeans_part_totals(
        distances[body], None if weights is None else weights[body], n_threads=rows.n_threads
    )
    moved = 0
    if before is not None:
        moved = int(np.count_nonzero(to_host(before) != to_host(after)))
    share = _Share(
        _weighted(distances, weight, slice(0, head)),
        to_host(parts),
        _weighted(distances, weight, slice(rows.n - tail, rows.n)),
        moved,
    )
    shares = rows.ranks.gather(share)
    total = (_total(shares), sum(each.moved for each in shares)) if rows.ranks.leads else (0.0, 0)
    return rows.ranks.broadcast(total)


def _weighted(distances: Any, weight: Float64 | None, place: slice) -> Float64:
    """Weighted distances of some rows, on the host."""
    values = np.asarray(to_host(distances[place]))
    return values.copy() if weight is None else weight[place] * values


def _total(shares: list[_Share]) -> float:
    """Add up the shares of all processes as the kernel does."""
    parts: list[Float64] = []
    begun: list[Float64] = []
    held = 0
    for share in shares:
        begun.append(share.head)
        held += len(share.head)
        if held == TOTAL_ROWS:
            parts.append(np.array([_tree_sum(np.concatenate(begun))]))
            begun, held = [], 0
        parts.append(share.parts)
        begun.append(share.tail)
        held += len(share.tail)
    if held:
        parts.append(np.array([_tree_sum(np.concatenate(begun))]))
    return _tree_sum(np.concatenate(parts))


def _tree_sum(values: Float64) -> float:
    """Add value i to partial sum i mod 256, and then the partial sums as a tree."""
    padded = np.zeros(-(-len(values) // TOTAL_LANES) * TOTAL_LANES)
    padded[: len(values)] = values
    lanes = np.zeros(TOTAL_LANES)
    for row in padded.reshape(-1, TOTAL_LANES):
        lanes += row
    width = TOTAL_LANES // 2
    while width > 0:
        lanes[:width] += lanes[width : 2 * width]
        width //= 2
    return float(lanes[0])
