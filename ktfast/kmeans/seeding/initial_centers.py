"""The entry to the initial centres: choose a method, draw distinct rows, round the centres.

All draws go through the distinct rows. So the result does not depend on the order of the rows, and
a row of weight two counts as the same row given twice. The result does not depend on threads or
shards either.
"""

from typing import Any

import numpy as np

from ktfast.kmeans.array_types import Float64
from ktfast.kmeans.data.moments import Moments
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.progress import Progress
from ktfast.kmeans.seeding.distinct import DistinctRows, distinct_rows
from ktfast.kmeans.seeding.parallel import kmeans_parallel
from ktfast.kmeans.seeding.plus_plus import kmeans_plus_plus

METHODS = ("k-means||", "k-means++", "random")


def initial_centers(
    method: str,
    rows: Rows,
    n_clusters: int,
    weight: Float64 | None,
    moments: Moments,
    random_state: Any,
    progress: Progress,
) -> Float64:
    """Choose initial centres.

    Parameters
    ----------
    method : str
        One of `METHODS`.
    rows : Rows
        The data [n, d].
    n_clusters : int
        Number of clusters k.
    weight : array, float64 [n], optional
        Weights of the rows. None means that all weights are 1.
    moments : Moments
        Mean and variance of the rows.
    random_state : numpy.random.RandomState
        Source of the draws.
    progress : Progress
        Logs the number of centres drawn.

    Returns
    -------
    centers : array, float64 [k, d]
        The centres, rounded by `Rows.rounded`.
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
    return rows.centers_of(centers, np.ones(n_clusters), some_row)


def random_rows(rows: Rows, distinct: DistinctRows, n_clusters: int, random_state: Any) -> Float64:
    """Draw distinct rows in proportion to their weights, float64 [k, d].

    If there are fewer than k distinct rows, the rows are repeated.
    """
    m = len(distinct.first)
    if m > n_clusters:
        chances = distinct.weight / distinct.weight.sum()
        places = random_state.choice(m, n_clusters, replace=False, p=chances)
    else:
        places = np.resize(np.arange(m), n_clusters)
    return rows.take(distinct.first[places])
