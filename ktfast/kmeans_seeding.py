"""First centres for K-means: greedy k-means++ drawn in batches, at the price of one assignment."""

import logging
import math
from typing import Any

import numpy as np

from ktfast.kmeans_rows import Float64, Int64, Rows, to_host
from ktfast.ops.kmeans_assign import kmeans_assign

_logger = logging.getLogger(__name__)

# Candidates whose distances to one another are computed at a time.
_CHUNK = 32
# A batch ends early once this many candidates per wanted centre and trial were drawn: a fresh pass
# over the rows is then cheaper.
_DRAWS = 8
# With many clusters a single trial is nearly as good, and the sample would have to grow with them.
_GREEDY_BELOW = 256
_SAMPLE_ROWS = 2048


def kmeans_plus_plus(
    rows: Rows, n_clusters: int, weight: Float64 | None, random_state: Any
) -> Int64:
    """Choose rows as first centres, each in proportion to weight times squared distance.

    The distance is that to the nearest centre chosen before it.

    Parameters
    ----------
    rows : n >= n_clusters rows.
    n_clusters : k.
    weight : float64 [n] or None.
    random_state : numpy.random.RandomState.

    Returns
    -------
    int64 [k], distinct row numbers. Where the rows have fewer than k distinct values, the last ones
    are arbitrary.

    Notes
    -----
    Arthur and Vassilvitskii, "k-means++: the advantages of careful seeding" (2007). The centres of
    a batch are drawn by rejection: a candidate comes from the distribution before the batch and is
    kept with the probability by which its distance shrank since, which gives exactly the
    distribution of one draw after the other. As a batch doubles the centres, the rows are
    passed over about log2(k) times instead of k times. Below 256 clusters each centre is the best
    of 2 + ln(k) candidates, as in scikit-learn, but compared on at most 2,048 random rows.
    """
    seeding = _Seeding(rows, n_clusters, weight, random_state)
    while len(seeding.chosen) < n_clusters:
        mass = seeding.distances if weight is None else seeding.distances * weight
        cumulative = np.cumsum(mass)
        if not cumulative[-1] > 0:  # every row lies on a centre
            rest = np.setdiff1d(np.arange(rows.n), seeding.chosen)
            missing = n_clusters - len(seeding.chosen)
            seeding.chosen.extend(random_state.choice(rest, missing, replace=False).tolist())
            break
        seeding.grow(cumulative, min(n_clusters - len(seeding.chosen), len(seeding.chosen)))
        _logger.debug("k-means++: %d of %d centres", len(seeding.chosen), n_clusters)
    return np.array(seeding.chosen, dtype=np.int64)


class _Seeding:
    """The centres chosen so far, and what the next batch needs to know of them."""

    def __init__(
        self, rows: Rows, n_clusters: int, weight: Float64 | None, random_state: Any
    ) -> None:
        self.rows = rows
        self.random_state = random_state
        self.trials = 2 + int(math.log(n_clusters)) if n_clusters < _GREEDY_BELOW else 1
        first = np.cumsum(np.ones(rows.n) if weight is None else weight)
        self.chosen: list[int] = [int(self._draw(first, 1)[0])]
        point = rows.take(np.array(self.chosen))
        self.distances: Float64 = to_host(rows.assign(point)[1])
        if self.trials > 1:
            sample = np.sort(random_state.choice(rows.n, min(rows.n, _SAMPLE_ROWS), replace=False))
            self.sample = rows.take(sample).astype(rows.center_dtype)
            self.sample_weight = None if weight is None else weight[sample]
            self.sample_distances = self.distances[sample]

    def grow(self, cumulative: Float64, wanted: int) -> None:
        """Add between 1 and `wanted` centres, by rejection from the present distribution."""
        batch: list[int] = []
        points = np.empty((wanted, self.rows.d))
        # The rows kept by rejection as candidates for the next centre.
        pool: list[tuple[int, Float64]] = []
        for _ in range(max(1, _DRAWS * wanted * self.trials // _CHUNK)):
            candidates = self._draw(cumulative, _CHUNK)
            chances = self.random_state.random_sample(_CHUNK) * self.distances[candidates]
            values = self.rows.take(candidates)
            nearest = self.distances[candidates]
            if batch:
                nearest = np.minimum(nearest, self._distances(values, points[: len(batch)]))
            for i, candidate in enumerate(candidates):
                if nearest[i] == 0 or chances[i] > nearest[i]:
                    continue
                pool.append((int(candidate), values[i]))
                if len(pool) < self.trials:
                    continue
                row, points[len(batch)] = self._best(pool)
                pool.clear()
                nearest = np.minimum(nearest, _squared_distances(values, points[len(batch)]))
                batch.append(row)
                if len(batch) == wanted:
                    self._add(batch, points)
                    return
        if not batch:  # more trials than draws, so take what there is
            row, points[0] = self._best(pool)
            batch.append(row)
        self._add(batch, points[: len(batch)])

    def _add(self, batch: list[int], points: Float64) -> None:
        self.chosen.extend(batch)
        self.distances = np.minimum(self.distances, to_host(self.rows.assign(points)[1]))

    def _best(self, pool: list[tuple[int, Float64]]) -> tuple[int, Float64]:
        """The candidate that leaves the least potential on the sample, which then counts it in."""
        if self.trials == 1:
            return pool[0]
        options = []
        for row, point in pool:
            distances = np.minimum(self.sample_distances, self._distances(self.sample, point[None]))
            mass = distances if self.sample_weight is None else distances * self.sample_weight
            options.append((float(mass.sum()), row, point, distances))
        _, row, point, self.sample_distances = min(options, key=lambda option: option[0])
        return row, point

    def _distances(self, values: Any, points: Float64) -> Float64:
        """Squared distances of CPU rows to the nearest of some points."""
        distances: Float64 = kmeans_assign(
            values, points, n_threads=self.rows.n_threads, distance_dtype="float64"
        )[1]
        return distances

    def _draw(self, cumulative: Float64, n: int) -> Int64:
        """Rows in proportion to the steps of `cumulative`; never one whose step is zero."""
        points = self.random_state.random_sample(n) * cumulative[-1]
        drawn = np.searchsorted(cumulative, points, side="right")
        last = int(np.searchsorted(cumulative, cumulative[-1], side="left"))
        return np.asarray(np.minimum(drawn, last), dtype=np.int64)


def _squared_distances(values: Float64, point: Float64) -> Float64:
    difference = values - point
    return np.asarray(np.einsum("nd,nd->n", difference, difference))
