"""First centres for K-means: k-means||, greedy k-means++ and distinct rows at random.

All draws go through the distinct rows, so the result depends neither on the order of the rows nor
on whether a row is repeated or has a weight, nor on threads or shards.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from ktfast.kmeans.progress import Progress
from ktfast.kmeans.rows import Float64, Moments, Rows, to_host
from ktfast.kmeans.seeding.distinct import DistinctRows, distinct_rows, draw
from ktfast.kmeans.seeding.plus_plus import kmeans_plus_plus

METHODS = ("k-means||", "k-means++", "random")

# Candidates of k-means|| per cluster, drawn in so many rounds. One more of each lowers the final
# inertia of pixels, network features and heavy-tailed clusters by 0.1 to 0.3 %, one less raises it
# by as much and misses clusters that lie apart.
_CANDIDATES = 3
_ROUNDS = 3
_LEAST_CANDIDATES = 64
# Lloyd's iterations over the candidates; they have mostly settled then.
_POLISHING = 2


def first_centers(
    method: str,
    rows: Rows,
    n_clusters: int,
    weight: Float64 | None,
    moments: Moments,
    random_state: Any,
    progress: Progress,
) -> Float64:
    """First centres float64 [k, d], as `rows.rounded` gives them.

    Parameters
    ----------
    method : one of `METHODS`.
    rows : n rows.
    n_clusters : k.
    weight : float64 [n] or None.
    moments : of the rows.
    random_state : numpy.random.RandomState.
    progress : told of the centres drawn.
    """
    distinct = distinct_rows(rows, weight, moments, random_state)
    if method == "random":
        centers = random_rows(rows, distinct, n_clusters, random_state)
    elif method == "k-means++":
        centers = kmeans_plus_plus(rows, distinct, n_clusters, moments.mean, random_state, progress)
    else:
        centers = kmeans_parallel(
            rows, distinct, n_clusters, weight, moments.mean, random_state, progress
        )
    some_row = np.resize(rows.take(distinct.first[:1]), centers.shape)
    return rows.means(centers, np.ones(n_clusters), some_row)


def random_rows(rows: Rows, distinct: DistinctRows, n_clusters: int, random_state: Any) -> Float64:
    """Choose different rows in proportion to their weights, float64 [k, d].

    The last ones are repetitions where there are fewer than k.
    """
    m = len(distinct.first)
    if m > n_clusters:
        chances = distinct.weight / distinct.weight.sum()
        places = random_state.choice(m, n_clusters, replace=False, p=chances)
    else:
        places = np.resize(np.arange(m), n_clusters)
    return rows.take(distinct.first[places])


def kmeans_parallel(
    rows: Rows,
    distinct: DistinctRows,
    n_clusters: int,
    weight: Float64 | None,
    origin: Float64,
    random_state: Any,
    progress: Progress,
) -> Float64:
    """First centres by k-means||, float64 [k, d].

    Parameters
    ----------
    rows : n rows.
    distinct : of the rows.
    n_clusters : k.
    weight : float64 [n] or None.
    origin : float64 [d], about the mean of the rows.
    random_state : numpy.random.RandomState.
    progress : told of the candidates drawn.

    Notes
    -----
    Bahmani et al., "Scalable k-means++" (2012), with two changes that lower the potential at next
    to no cost: a candidate is moved to the mean of the rows nearest to it, and the centres that
    greedy k-means++ chooses among the weighted candidates are improved by a few iterations of
    Lloyd's algorithm over the candidates. The rows are passed over five times, at the price of
    three iterations. Candidates take about 40 bytes per element, 3 k d elements.
    """
    wanted = max(_LEAST_CANDIDATES, _CANDIDATES * n_clusters)
    if len(distinct.first) <= wanted:
        points, mass = rows.take(distinct.first), distinct.weight
    else:
        n_candidates, labels = _oversample(rows, distinct, wanted, random_state, progress)
        sums, mass = rows.update(rows.to_device(labels), n_candidates, weight)
        filled = mass > 0
        mass = mass[filled]
        points = sums[filled] / mass[:, None]
    cells = Rows([points], n_threads=rows.n_threads)
    every = DistinctRows(np.arange(len(points)), mass)
    centers = kmeans_plus_plus(cells, every, n_clusters, origin, random_state, progress)
    for _ in range(_POLISHING):
        nearest, _distances = cells.assign(centers)
        centers = cells.means(*cells.update(nearest, n_clusters, mass), centers)
    return centers


def _oversample(
    rows: Rows, distinct: DistinctRows, wanted: int, random_state: Any, progress: Progress
) -> tuple[int, npt.NDArray[np.int32]]:
    """Draw candidates by squared distance in rounds.

    Returns
    -------
    their number, and the nearest candidate of each row, int32 [n].
    """
    first = draw(random_state, np.cumsum(distinct.weight), 1)
    distances = to_host(rows.assign(rows.take(distinct.first[first]))[1])
    labels, n_candidates = np.zeros(rows.n, dtype=np.int32), 1
    for _ in range(_ROUNDS):
        cumulative = np.cumsum(distances[distinct.first] * distinct.weight)
        if not cumulative[-1] > 0:  # every row lies on a candidate
            break
        new = np.unique(draw(random_state, cumulative, -(-wanted // _ROUNDS)))
        to_new = [to_host(array) for array in rows.assign(rows.take(distinct.first[new]))]
        nearer = to_new[1] < distances
        labels[nearer] = to_new[0][nearer] + n_candidates
        distances = np.minimum(distances, to_new[1])
        n_candidates += len(new)
        progress.seeding(n_candidates, wanted)
    return n_candidates, labels
