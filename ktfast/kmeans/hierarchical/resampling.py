"""The clusters of one level: K-means, then K-means again of the rows closest to the centres."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import check_random_state

from ktfast.kmeans.array_types import Float64, Int64
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.data.workspace import to_host
from ktfast.kmeans.estimator import KMeans

_INHERITED = ("init", "max_iter", "tol", "spherical", "device", "memory_budget")


class Resampling(NamedTuple):
    """The resampling steps of a level.

    Attributes
    ----------
    steps : int
        Number of steps.
    size : int or None
        Rows per cluster in a step. None means half the mean size of a cluster.
    """

    steps: int
    size: int | None

    def weight_per_cluster(self, total: float, n_clusters: int) -> float:
        """Weight that a step takes per cluster, if rows of a total weight have k clusters."""
        if self.size is not None:
            return self.size
        half = total / (2 * n_clusters)
        return half if half < 2 else np.floor(half)


def fit_clusters(
    estimator: Any,
    shards: Sequence[Any],
    weight: Float64 | None,
    n_clusters: int,
    resampling: Resampling,
    *,
    seed: int,
    n_threads: int | None,
) -> KMeans:
    """Fit K-means to rows, and refit it to resampled rows.

    Parameters
    ----------
    estimator : HierarchicalKMeans
        The estimator, whose parameters K-means inherits.
    shards : sequence of array
        Matrices. The rows are their concatenation.
    weight : array, float64 [n], optional
        Weights of the rows. None means that all weights are 1.
    n_clusters : int
        Number of clusters k.
    resampling : Resampling
        The resampling steps.
    seed : int
        Seed of all random draws.
    n_threads : int, optional
        CPU threads.

    Returns
    -------
    model : KMeans
        Fitted K-means. After resampling, its `labels_` are those of the resampled rows.

    Notes
    -----
    A resampling step takes the rows closest to each centre, equally many from every cluster, and
    fits K-means anew to these rows. The clusters then spread more evenly over the regions where
    there are rows. Vo et al., "Automatic data curation for self-supervised learning" (2024).
    A step that would take no more rows than clusters is left out.
    """
    random = check_random_state(seed)
    given = {name: getattr(estimator, name) for name in _INHERITED}

    def fitted(some: Sequence[Any], some_weights: Float64 | None) -> KMeans:
        model = KMeans(n_clusters, n_init=1, random_state=random, n_threads=n_threads, **given)
        return model.fit(list(some), sample_weight=some_weights)

    model = fitted(shards, weight)
    rows = Rows(shards, n_threads=n_threads)
    total = float(rows.n if weight is None else weight.sum())
    size = resampling.weight_per_cluster(total, n_clusters)
    for _ in range(resampling.steps):
        labels, distances = (to_host(found) for found in model.assign(list(shards)))
        chosen, chosen_weights = closest_rows(labels, distances, weight, size)
        if len(chosen) <= n_clusters:
            break
        model = fitted(rows.pick(chosen), chosen_weights)
    return model


def closest_rows(
    labels: Any, distances: Float64, weight: Float64 | None, size: float
) -> tuple[Int64, Float64 | None]:
    """Choose the rows closest to the centre of each cluster.

    Parameters
    ----------
    labels : array, int [n]
        Cluster of each row.
    distances : array, float64 [n]
        Squared distance of each row to its centre.
    weight : array, float64 [n], optional
        Weights of the rows. None means that all weights are 1.
    size : float
        Rows per cluster. Of a smaller cluster, all rows are chosen. With weights, this is the total
        weight per cluster: a row of weight two counts as two rows.

    Returns
    -------
    chosen : array, int64 [m]
        Numbers of the rows in ascending order. Of equally close rows, those with the lowest numbers
        are chosen.
    weight : array, float64 [m], or None
        Weights of these rows. The weight of the last row of a cluster is cut so that the total
        weight of the cluster is `size`.
    """
    order = np.lexsort((distances, labels))
    sorted_labels = labels[order]
    starts = np.flatnonzero(np.diff(sorted_labels, prepend=-1))
    first = np.repeat(starts, np.diff(starts, append=len(order)))
    if weight is None:
        return np.sort(order[np.arange(len(order)) - first < size]), None
    before = np.cumsum(weight[order]) - weight[order]
    kept = np.zeros(len(order))
    kept[order] = np.clip(size - (before - before[first]), 0, weight[order])
    chosen = np.flatnonzero(kept)
    return chosen, kept[chosen]
