"""Mini-batch K-means: the state that `KMeans.partial_fit` keeps between batches, and one step."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ktfast.kmeans.array_types import Float64
from ktfast.kmeans.data.moments import Moments
from ktfast.kmeans.data.passes import cluster_sums, nearest_centers
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.data.workspace import to_host
from ktfast.kmeans.seeding.distinct import distinct_rows

# As in scikit-learn's MiniBatchKMeans: a cluster is starved if its weight is below this share of
# the heaviest cluster's weight. The next search for starved clusters follows after this many rows
# per cluster.
_STARVED = 0.01
_ROWS_BETWEEN = 10


@dataclass
class MiniBatchState:
    """Everything that a later batch depends on.

    Attributes
    ----------
    centers : array, float64 [k, d]
        Centres, rounded by `Rows.rounded`.
    sums : array, float64 [k, d]
        Weighted sum of all rows that each cluster was given.
    counts : array, float64 [k]
        Total weight of these rows.
    random_state : numpy.random.RandomState
        Source of the draws that choose new rows for starved clusters. A cluster is starved if its
        weight is less than 1 % of the heaviest cluster's weight.
    rows_since : int
        Rows since the last search for starved clusters.
    steps : int
        Number of batches so far.
    """

    centers: Float64
    sums: Float64
    counts: Float64
    random_state: Any
    rows_since: int = 0
    steps: int = 0

    def step(self, rows: Rows, weight: Float64 | None, moments: Moments) -> "MiniBatchState":
        """Compute the state after a batch; this state does not change.

        Both states share their random state. Each centre becomes the mean of all rows that were
        ever assigned to its cluster. So a batch moves a centre towards the mean of the new rows of
        its cluster, in proportion to their share of the cluster's weight.

        Parameters
        ----------
        rows : Rows
            The batch [n, d].
        weight : array, float64 [n], optional
            Weights of the batch. None means that all weights are 1.
        moments : Moments
            Mean and variance of the batch.

        Returns
        -------
        state : MiniBatchState
            The next state.

        Notes
        -----
        Sculley, "Web-scale k-means clustering" (2010).
        """
        labels, distances = nearest_centers(rows, self.centers)
        sums, counts = cluster_sums(rows, labels, len(self.centers), weight)
        sums, counts = sums + self.sums, counts + self.counts
        rows_since = self.rows_since + rows.n
        if (counts == 0).any() or rows_since >= _ROWS_BETWEEN * len(counts):
            rows_since = 0
            self._place_starved(rows, to_host(distances), weight, moments, sums, counts)
        centers = rows.centers_of(sums, counts, self.centers)
        return MiniBatchState(centers, sums, counts, self.random_state, rows_since, self.steps + 1)

    def scaled(self, exponent: int) -> "MiniBatchState":
        """This state for rows that are multiplied by ``2 ** exponent``."""
        if exponent == 0:
            return self
        centers, sums = np.ldexp(self.centers, exponent), np.ldexp(self.sums, exponent)
        return replace(self, centers=centers, sums=sums)

    def _place_starved(
        self,
        rows: Rows,
        distances: Float64,
        weight: Float64 | None,
        moments: Moments,
        sums: Float64,
        counts: Float64,
    ) -> None:
        """Move starved clusters to rows far from their centres; changes `sums` and `counts`.

        A moved cluster gets the least weight of the other clusters, so that the next search does
        not move it again.
        """
        starved = np.flatnonzero(counts < _STARVED * counts.max())
        starved = starved[np.argsort(counts[starved], kind="stable")][: rows.n // 2]
        if starved.size == 0:
            return
        distinct = distinct_rows(rows, weight, moments, self.random_state)
        potential = distances[distinct.first] * distinct.weight
        starved = starved[: np.count_nonzero(potential)]
        if starved.size == 0:  # every row lies on a centre
            return
        places = self.random_state.choice(
            len(potential), len(starved), replace=False, p=potential / potential.sum()
        )
        least = np.delete(counts, starved).min()
        sums[starved] = least * rows.take(distinct.first[places])
        counts[starved] = least
