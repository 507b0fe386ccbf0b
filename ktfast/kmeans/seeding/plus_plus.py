"""Greedy k-means++ in batches: few passes over the rows, and candidates compared on a sample."""

import math
from typing import Any

import numpy as np

from ktfast.kmeans.array_types import Float32, Float64, Int64
from ktfast.kmeans.data.passes import nearest_centers
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.data.workspace import to_host
from ktfast.kmeans.progress import Progress
from ktfast.kmeans.seeding.byte_rows import ByteRows
from ktfast.kmeans.seeding.distinct import DistinctRows, draw

# Up to this many distinct rows, centres are drawn one by one. All distances between rows are then
# computed at once and kept, at most 151 MB of float32, unless less than an eighth of the rows can
# become candidates.
_ONE_BY_ONE = 6144
_FEW = 1 / 8
# With more rows, candidates are compared on a sample of the rows, the reference. The reference has
# at least 4,096 rows and at least 16 rows per cluster.
_LEAST_REFERENCE = 4096
_REFERENCE = 16
# Candidates for this many centres are drawn and compared at a time. Fewer are drawn if the table of
# their distances to the reference would take more than 32 MiB.
_CHUNK = 32
_TABLE_BYTES = 1 << 25
# If many candidates are rejected, a new pass over the rows takes less time than more draws. So a
# batch ends after this many times the draws that it would need without rejections.
_DRAWS = 4


def kmeans_plus_plus(
    rows: Rows,
    distinct: DistinctRows,
    n_clusters: int,
    origin: Float64,
    random_state: Any,
    progress: Progress,
) -> Float64:
    """Choose initial centres by greedy k-means++.

    Each centre is the best of 2 + ln(k) rows, which are drawn in proportion to the weight times the
    squared distance to the nearest centre chosen before.

    Parameters
    ----------
    rows : Rows
        The data [n, d].
    distinct : DistinctRows
        The distinct rows.
    n_clusters : int
        Number of clusters k.
    origin : array, float64 [d]
        A point near the mean of the rows.
    random_state : numpy.random.RandomState
        Source of the draws.
    progress : Progress
        Logs the number of centres chosen.

    Returns
    -------
    centers : array, float64 [k, d]
        The chosen rows. If there are fewer than k distinct rows, the rows are repeated.

    Notes
    -----
    Arthur and Vassilvitskii, "k-means++: the advantages of careful seeding" (2007).

    The centres of a batch are drawn by rejection. A candidate is drawn from the distribution before
    the batch. The probability of keeping the candidate is its present squared distance to the
    nearest centre, divided by this distance before the batch. The centres then have the same
    distribution as centres that are drawn one by one. Each batch doubles the number of centres, so
    the rows are read about log2(k) times instead of k times. On one thread of an Intel Xeon with
    AVX-512, for 50,000 rows of 128 features, the method takes as long as 11 iterations for k = 200,
    and as long as 85 iterations for k = 2,000 (`benchmarks/bench_seeding.py`).

    Candidates are compared on a weighted sample of at most max(4,096, 16 k) rows. Up to 6,144
    distinct rows, there are no batches and no sample.
    """
    size = 2 + int(math.log(n_clusters))
    first = int(draw(random_state, np.cumsum(distinct.weight), 1)[0])
    nearest = to_host(nearest_centers(rows, rows.take(distinct.first[[first]]))[1])[distinct.first]
    unit = math.sqrt(nearest.max())
    if unit == 0:
        places = [first]
    elif len(distinct.first) <= _ONE_BY_ONE:
        every = ByteRows(rows.take(distinct.first), origin, unit)
        places = _one_by_one(every, distinct.weight, first, n_clusters, size, random_state)
    else:
        seeding = _Batches(
            rows, distinct, n_clusters, first, nearest, (origin, unit), size, random_state
        )
        while len(seeding.places) < n_clusters and seeding.grow(n_clusters):
            progress.seeding(len(seeding.places), n_clusters)
        places = seeding.places
    others = np.setdiff1d(np.arange(len(distinct.first)), places)
    return rows.take(distinct.first[np.resize(np.append(places, others), n_clusters)])


def _one_by_one(
    every: ByteRows, weight: Float64, first: int, n_clusters: int, size: int, random_state: Any
) -> list[int]:
    """Choose centres among rows, each from the distribution that the centres before leave."""
    few = n_clusters * size < _FEW * len(every)
    table = None if few else every.distances(every)

    def distances(places: Int64 | list[int]) -> Float32:
        return every.take(places).distances(every) if table is None else table[places]

    places, nearest = [first], distances([first])[0]
    while len(places) < n_clusters:
        cumulative = np.cumsum(nearest * weight)
        if not cumulative[-1] > 0:  # every row lies on a centre
            break
        candidates = draw(random_state, cumulative, size)
        left = np.minimum(distances(candidates), nearest)
        best = int((left * weight).sum(axis=1).argmin())
        nearest = left[best]
        places.append(int(candidates[best]))
    return places


class _Batches:
    """Chooses centres in batches. A batch at most doubles the number of centres.

    Parameters
    ----------
    rows : Rows
        The data [n, d].
    distinct : DistinctRows
        The distinct rows, m of them.
    n_clusters : int
        Number of clusters k.
    first : int
        Place of the first centre among the distinct rows.
    nearest : array, float64 [m]
        Squared distance of each distinct row to the first centre.
    scale : tuple of array and float
        Origin float64 [d] and unit of `ByteRows`.
    size : int
        Number of candidates that are compared for each centre.
    random_state : numpy.random.RandomState
        Source of the draws.

    Attributes
    ----------
    places : list of int
        Places of the chosen centres among the distinct rows.
    """

    def __init__(
        self,
        rows: Rows,
        distinct: DistinctRows,
        n_clusters: int,
        first: int,
        nearest: Float64,
        scale: tuple[Float64, float],
        size: int,
        random_state: Any,
    ) -> None:
        self.places = [first]
        self._rows = rows
        self._distinct = distinct
        self._scale = scale
        self._size = size
        self._random_state = random_state
        self._nearest = nearest / scale[1] ** 2
        n_reference = max(_LEAST_REFERENCE, _REFERENCE * n_clusters)
        reference = distinct.sample(n_reference, nearest, random_state)
        self._reference = ByteRows(rows.take(reference.first), *scale)
        self._weight = reference.weight
        start = ByteRows(rows.take(distinct.first[[first]]), *scale)
        self._left = start.distances(self._reference)[0]

    def grow(self, n_clusters: int) -> bool:
        """Add a batch of centres, drawn by rejection from the distribution before the batch.

        Returns
        -------
        grown : bool
            False if no centre was added because every row lies on a centre.
        """
        cumulative = np.cumsum(self._nearest * self._distinct.weight)
        if not cumulative[-1] > 0:
            return False
        wanted = min(n_clusters - len(self.places), len(self.places))
        most = max(2, _TABLE_BYTES // (4 * self._size * len(self._reference)))
        batch: list[int] = []
        points = np.empty((0, self._rows.d))
        drawn = 0
        while len(batch) < wanted and drawn < _DRAWS * wanted:
            n = min(_CHUNK, most, wanted - len(batch) + 1)
            drawn += n
            places = draw(self._random_state, cumulative, n * self._size)
            thresholds = self._random_state.random_sample(len(places)) * self._nearest[places]
            values = self._rows.take(self._distinct.first[places])
            candidates, nearest = ByteRows(values, *self._scale), self._nearest[places]
            if batch:
                to_batch = candidates.distances(ByteRows(points, *self._scale))
                nearest = np.minimum(nearest, to_batch.min(axis=1))
            chosen = self._choose(candidates, nearest, thresholds, wanted - len(batch))
            batch += places[chosen].tolist()
            points = np.concatenate([points, values[chosen]])
        to_batch = to_host(nearest_centers(self._rows, points)[1])[self._distinct.first]
        self._nearest = np.minimum(self._nearest, to_batch / self._scale[1] ** 2)
        self.places += batch
        return True

    def _choose(
        self, candidates: ByteRows, nearest: Float64, thresholds: Float64, wanted: int
    ) -> list[int]:
        """Choose at most `wanted` centres among candidates, in the order of their draws.

        A candidate is rejected if its squared distance to the nearest centre has fallen below its
        threshold. The other candidates compete for the next centre in groups of `size`.
        """
        to_reference = candidates.distances(self._reference)
        to_each = candidates.distances(candidates)
        chosen: list[int] = []
        pool: list[int] = []
        for i in range(len(candidates)):
            if nearest[i] == 0 or thresholds[i] > nearest[i]:
                continue
            pool.append(i)
            if len(pool) < self._size:
                continue
            left = np.minimum(to_reference[pool], self._left)
            best = int((left * self._weight).sum(axis=1).argmin())
            self._left = left[best]
            chosen.append(pool[best])
            if len(chosen) == wanted:
                break
            pool = []
            nearest = np.minimum(nearest, to_each[chosen[-1]])
        return chosen
