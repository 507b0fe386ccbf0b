"""k-means|| (say "k-means parallel"): candidates from few passes over the rows, then k-means++."""

from typing import Any

import numpy as np

from ktfast.kmeans.array_types import Float64, Int32
from ktfast.kmeans.data.passes import cluster_sums, nearest_centers
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.data.workspace import to_host
from ktfast.kmeans.progress import Progress
from ktfast.kmeans.seeding.distinct import DistinctRows, draw
from ktfast.kmeans.seeding.plus_plus import kmeans_plus_plus

# Candidates per cluster, and rounds in which they are drawn. With four instead of three of each,
# the final inertia of pixels, network features and heavy-tailed clusters is 0.1 to 0.3 % lower.
# With two of each, the inertia is higher by as much, and some clusters far from others are missed.
_CANDIDATES = 3
_ROUNDS = 3
_LEAST_CANDIDATES = 64
# Lloyd iterations over the candidates, after which the centres hardly move.
_POLISHING = 2


def kmeans_parallel(
    rows: Rows,
    distinct: DistinctRows,
    n_clusters: int,
    weight: Float64 | None,
    origin: Float64,
    random_state: Any,
    progress: Progress,
) -> Float64:
    """Choose initial centres by k-means||.

    Parameters
    ----------
    rows : Rows
        The data [n, d].
    distinct : DistinctRows
        The distinct rows.
    n_clusters : int
        Number of clusters k.
    weight : array, float64 [n], optional
        Weights of the rows. None means that all weights are 1.
    origin : array, float64 [d]
        A point near the mean of the rows.
    random_state : numpy.random.RandomState
        Source of the draws.
    progress : Progress
        Logs the number of candidates drawn.

    Returns
    -------
    centers : array, float64 [k, d]
        The centres.

    Notes
    -----
    Bahmani et al., "Scalable k-means++" (2012), with two changes that lower the inertia of the
    centres at almost no cost. First, a candidate moves to the mean of the rows nearest to it.
    Second, greedy k-means++ chooses centres among the weighted candidates, and two Lloyd iterations
    over the candidates improve these centres. The rows are read five times. The choice among the
    3 k candidates takes a time that grows with k squared. On one thread of an Intel Xeon with
    AVX-512, for 50,000 rows of 128 features, the method takes as long as 7 iterations for k = 200,
    and as long as 13 iterations for k = 2,000 (`benchmarks/bench_seeding.py`). The candidates take
    about 40 bytes of memory per feature value.
    """
    wanted = max(_LEAST_CANDIDATES, _CANDIDATES * n_clusters)
    if len(distinct.first) <= wanted:
        points, mass = rows.take(distinct.first), distinct.weight
    else:
        n_candidates, labels = _draw_candidates(rows, distinct, wanted, random_state, progress)
        sums, mass = cluster_sums(rows, rows.workspace.to_device(labels), n_candidates, weight)
        filled = mass > 0
        mass = mass[filled]
        points = sums[filled] / mass[:, None]
    candidates = Rows([points], n_threads=rows.n_threads)
    weighted = DistinctRows(np.arange(len(points)), mass)
    centers = kmeans_plus_plus(candidates, weighted, n_clusters, origin, random_state, progress)
    for _ in range(_POLISHING):
        labels, _distances = nearest_centers(candidates, centers)
        sums, counts = cluster_sums(candidates, labels, n_clusters, mass)
        centers = candidates.centers_of(sums, counts, centers)
    return centers


def _draw_candidates(
    rows: Rows, distinct: DistinctRows, wanted: int, random_state: Any, progress: Progress
) -> tuple[int, Int32]:
    """Draw candidates by squared distance, in rounds.

    Returns
    -------
    n_candidates : int
        Number of candidates.
    labels : array, int32 [n]
        Nearest candidate of each row, on the host.
    """
    first = draw(random_state, np.cumsum(distinct.weight), 1)
    distances = to_host(nearest_centers(rows, rows.take(distinct.first[first]))[1])
    labels, n_candidates = np.zeros(rows.n, dtype=np.int32), 1
    for _ in range(_ROUNDS):
        cumulative = np.cumsum(distances[distinct.first] * distinct.weight)
        if not cumulative[-1] > 0:  # every row lies on a candidate
            break
        new = np.unique(draw(random_state, cumulative, -(-wanted // _ROUNDS)))
        found = nearest_centers(rows, rows.take(distinct.first[new]))
        new_labels, new_distances = (to_host(array) for array in found)
        nearer = new_distances < distances
        labels[nearer] = new_labels[nearer] + n_candidates
        distances = np.minimum(distances, new_distances)
        n_candidates += len(new)
        progress.seeding(n_candidates, wanted)
    return n_candidates, labels
