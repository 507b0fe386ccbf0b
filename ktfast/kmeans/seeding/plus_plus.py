"""Greedy k-means++, drawn in batches: few passes over the rows, trials compared on some of them."""

import math
from typing import Any

import numpy as np

from ktfast.kmeans.progress import Progress
from ktfast.kmeans.rows import Float64, Rows, to_host
from ktfast.kmeans.seeding.byte_rows import ByteRows, Float32
from ktfast.kmeans.seeding.distinct import DistinctRows, draw

# Up to so many rows, the distances between all of them are kept: 151 MB of float32 at the most.
_ALL_PAIRS = 6144
# Of more rows, candidates are compared on some: at least so many, and so many per cluster.
_LEAST_REFERENCE = 4096
_REFERENCE = 16
# Centres for which candidates are drawn, and compared, at a time; fewer where the table of their
# distances to the reference would take more bytes than this.
_CHUNK = 32
_TABLE_BYTES = 1 << 25
# A batch ends early once this many times the candidates needed were drawn: a fresh pass over the
# rows is then cheaper.
_DRAWS = 4


def kmeans_plus_plus(
    rows: Rows,
    distinct: DistinctRows,
    n_clusters: int,
    origin: Float64,
    random_state: Any,
    progress: Progress,
) -> Float64:
    """First centres by greedy k-means++, float64 [k, d]: rows, repeated if fewer than k differ.

    Each centre is the best of 2 + ln(k) rows, drawn in proportion to weight times squared distance
    to the nearest centre before it.

    Parameters
    ----------
    rows : n rows.
    distinct : of the rows.
    n_clusters : k.
    origin : float64 [d], about the mean of the rows.
    random_state : numpy.random.RandomState.
    progress : told of the centres chosen.

    Notes
    -----
    Arthur and Vassilvitskii, "k-means++: the advantages of careful seeding" (2007). The centres of
    a batch are drawn by rejection: a candidate comes from the distribution before the batch and is
    kept with the probability by which its distance shrank since, which gives the distribution of
    one draw after the other. As a batch doubles the centres, the rows are passed over about log2(k)
    times instead of k times. Candidates are compared on at most 4,096 or 16 k rows, which stand for
    all; up to 6,144 rows, there are no batches and nothing is left out.
    """
    size = 2 + int(math.log(n_clusters))
    first = int(draw(random_state, np.cumsum(distinct.weight), 1)[0])
    nearest = to_host(rows.assign(rows.take(distinct.first[[first]]))[1])[distinct.first]
    unit = math.sqrt(nearest.max())
    if unit == 0:
        places = [first]
    elif len(distinct.first) <= _ALL_PAIRS:
        every = ByteRows(rows.take(distinct.first), origin, unit)
        table = every.distances(every)
        places = _one_by_one(table, distinct.weight, first, n_clusters, size, random_state)
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
    table: Float32, weight: Float64, first: int, n_clusters: int, size: int, random_state: Any
) -> list[int]:
    """Choose centres among rows of which all squared distances to one another are known."""
    places, nearest = [first], table[first]
    while len(places) < n_clusters:
        cumulative = np.cumsum(nearest * weight)
        if not cumulative[-1] > 0:  # every row lies on a centre
            break
        candidates = draw(random_state, cumulative, size)
        left = np.minimum(table[candidates], nearest)
        best = int((left * weight).sum(axis=1).argmin())
        nearest = left[best]
        places.append(int(candidates[best]))
    return places


class _Batches:
    """The centres chosen so far, and what the next batch needs to know of them.

    Parameters
    ----------
    rows, distinct, n_clusters : as in `kmeans_plus_plus`.
    first : place of the first centre among the distinct rows.
    nearest : float64 [m], squared distance of each distinct row to it.
    scale : origin float64 [d] and unit of `ByteRows`.
    size : candidates that are compared for each centre.
    random_state : numpy.random.RandomState.

    Attributes
    ----------
    places : of the centres among the distinct rows.
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
        """Add centres by rejection from the present distribution, at most as many as there are.

        Returns
        -------
        False if there was nothing to add: every row lies on a centre.
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
        to_batch = to_host(self._rows.assign(points)[1])[self._distinct.first]
        self._nearest = np.minimum(self._nearest, to_batch / self._scale[1] ** 2)
        self.places += batch
        return True

    def _choose(
        self, candidates: ByteRows, nearest: Float64, thresholds: Float64, wanted: int
    ) -> list[int]:
        """Choose at most `wanted` centres among candidates that were drawn one after the other.

        A candidate is dropped if a centre has come closer to it than its threshold; of the others,
        each `size` in turn compete for the next centre.
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
