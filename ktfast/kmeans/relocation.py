"""Relocation of clusters that have lost all their rows."""

import heapq
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ktfast.kmeans.array_types import Float64, Int64
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.data.workspace import to_host
from ktfast.kmeans.distributed.leader import conduct

# Rows per empty cluster in the first sort by cost. The other rows are sorted only if needed.
_SORTED_ROWS = 16
# Rows that rank 0 requests from a process at a time.
_BATCH = 64


def relocate_empty(
    rows: Rows,
    labels: Any,
    distances: Any,
    weight: Float64 | None,
    sums: Float64,
    counts: Float64,
) -> int:
    """Give each empty cluster the row with the highest cost, and take the row from its cluster.

    If several processes fit together, rank 0 chooses among the rows of all processes.

    The cost of a row is its weighted squared distance. Rows are taken by descending cost, and rows
    of equal cost by ascending number. A row is not taken if its cost is zero, if it equals a row
    taken before, or if it is the last row of its cluster. Each relocation lowers the inertia by at
    least the cost of the row. A cluster stays empty if no row can be taken, which happens if there
    are fewer distinct rows than clusters.

    Parameters
    ----------
    rows : Rows
        The data [n, d].
    labels : array, int32 [n]
        Labels of the present centres.
    distances : array, float64 [n], or callable
        Squared distances to the present centres, or a function that computes them.
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
    distances = distances() if callable(distances) else distances
    service = _CostlyRows(rows, labels, distances, weight, empty.size, len(counts))

    def lead(ask: Callable[..., list[Any]]) -> tuple[int, Float64, Float64]:
        members = np.sum(ask("members"), axis=0)
        relocated = _relocate(_by_cost(ask, rows.ranks.size), members, empty, sums, counts)
        return relocated, sums, counts

    relocated, sums[:], counts[:] = conduct(rows.ranks, service, lead)
    return relocated


class _Candidate(NamedTuple):
    """A row that an empty cluster may take.

    Attributes
    ----------
    cost : float
        Weighted squared distance.
    number : int
        Number of the row among the rows of all processes.
    owner : int
        Cluster of the row.
    weight : float
        Weight of the row.
    values : array, float64 [d]
        The row.
    """

    cost: float
    number: int
    owner: int
    weight: float
    values: Float64


class _CostlyRows:
    """The rows of one process by descending cost.

    Parameters
    ----------
    rows : Rows
        The rows of this process.
    labels, distances, weight : array
        As for `relocate_empty`.
    wanted : int
        Number of empty clusters, each of which takes at most one row.
    n_clusters : int
        Number of clusters.
    """

    def __init__(
        self,
        rows: Rows,
        labels: Any,
        distances: Any,
        weight: Float64 | None,
        wanted: int,
        n_clusters: int,
    ) -> None:
        self._rows = rows
        self._owners = to_host(labels)
        self._weight = weight
        self._cost = to_host(distances) if weight is None else to_host(distances) * weight
        self._n_clusters = n_clusters
        self._order = _costly_rows(self._cost, wanted)

    def members(self) -> Int64:
        """Number of rows of positive weight in each cluster, int64 [k]."""
        owners = self._owners if self._weight is None else self._owners[self._weight > 0]
        return np.bincount(owners, minlength=self._n_clusters)

    def following(self, rank: int, count: int) -> list[_Candidate]:
        """The next rows of the process with this rank, at most `count`; [] on other processes."""
        if rank != self._rows.ranks.rank:
            return []
        chosen = np.fromiter(itertools.islice(self._order, count), np.int64)
        weights = np.ones(len(chosen)) if self._weight is None else self._weight[chosen]
        columns = (
            self._cost[chosen].tolist(),
            (self._rows.first + chosen).tolist(),
            self._owners[chosen].tolist(),
            weights.tolist(),
            self._rows.take(chosen) + 0.0,  # -0 and 0 are the same point
        )
        return [_Candidate(*fields) for fields in zip(*columns, strict=True)]


def _by_cost(ask: Callable[..., list[Any]], n_ranks: int) -> Iterator[_Candidate]:
    """Yield the rows of all processes by descending cost, then by ascending number."""
    following = [_candidates_of(ask, rank) for rank in range(n_ranks)]
    return heapq.merge(*following, key=lambda row: (-row.cost, row.number))


def _candidates_of(ask: Callable[..., list[Any]], rank: int) -> Iterator[_Candidate]:
    while batch := ask("following", rank, _BATCH)[rank]:
        yield from batch


def _relocate(
    candidates: Iterator[_Candidate],
    members: Int64,
    empty: Int64,
    sums: Float64,
    counts: Float64,
) -> int:
    """Give rows to the empty clusters; change `members`, `sums` and `counts`."""
    taken: set[bytes] = set()
    for row in candidates:
        if members[row.owner] < 2 or row.values.tobytes() in taken:
            continue
        cluster = int(empty[len(taken)])
        taken.add(row.values.tobytes())
        members[row.owner] -= 1
        sums[row.owner] -= row.weight * row.values
        counts[row.owner] -= row.weight
        sums[cluster] = row.weight * row.values
        counts[cluster] = row.weight
        if len(taken) == empty.size:
            break
    return len(taken)


def _costly_rows(cost: Float64, wanted: int) -> Iterator[Any]:
    """Yield the rows of positive cost by descending cost; sort only as many as are requested."""
    size = min(len(cost), _SORTED_ROWS * wanted)
    if size == 0:
        return
    # The partition may separate equal costs, so the first sort includes all costs at the limit.
    limit = np.partition(cost, len(cost) - size)[len(cost) - size]
    first = np.flatnonzero((cost >= limit) & (cost > 0))
    yield from first[np.argsort(-cost[first], kind="stable")]
    rest = np.flatnonzero((cost < limit) & (cost > 0))
    yield from rest[np.argsort(-cost[rest], kind="stable")]
