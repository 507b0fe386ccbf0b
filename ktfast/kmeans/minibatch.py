"""Mini-batches: what `KMeans.partial_fit` keeps between them, and one step."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ktfast.kmeans.rows import Float64, Moments, Rows, to_host
from ktfast.kmeans.seeding.distinct import distinct_rows

# As scikit-learn's MiniBatchKMeans: a cluster is starved if its weight is below this share of the
# heaviest one's, which is looked at every so many rows per cluster.
_STARVED = 0.01
_ROWS_BETWEEN = 10


@dataclass
class MiniBatches:
    """Everything that a later batch depends on.

    Attributes
    ----------
    centers : float64 [k, d], as the rows round them.
    sums : float64 [k, d], weighted sums of all rows that each cluster was given.
    counts : float64 [k], their weights.
    random_state : numpy.random.RandomState that places starved clusters.
    rows_since : rows since starved clusters were last looked for.
    steps : batches so far.
    """

    centers: Float64
    sums: Float64
    counts: Float64
    random_state: Any
    rows_since: int = 0
    steps: int = 0

    def step(self, rows: Rows, weight: Float64 | None, moments: Moments) -> "MiniBatches":
        """The state after a batch; this one stays as it was, but for the random state they share.

        Each centre becomes the mean of all rows that it was ever given, which moves it by the
        batch's weighted mean in proportion to the weights (Sculley, "Web-scale k-means
        clustering", 2010).

        Parameters
        ----------
        rows : the batch.
        weight : float64 [n] or None.
        moments : of the batch.
        """
        labels, distances = rows.assign(self.centers)
        sums, counts = rows.update(labels, len(self.centers), weight)
        sums, counts = sums + self.sums, counts + self.counts
        rows_since = self.rows_since + rows.n
        if (counts == 0).any() or rows_since >= _ROWS_BETWEEN * len(counts):
            rows_since = 0
            self._place_starved(rows, to_host(distances), weight, moments, sums, counts)
        centers = rows.means(sums, counts, self.centers)
        return MiniBatches(centers, sums, counts, self.random_state, rows_since, self.steps + 1)

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

        They start with the least weight of the others, so that they are not moved again at once.
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
