"""Very many clusters, found group by group: k1 groups of rows, then k2 clusters in each group."""

import contextlib
import heapq
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from ktfast.kmeans.array_types import Float64, Int64
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.data.workspace import to_host
from ktfast.kmeans.hierarchical.resampling import Resampling, fit_clusters
from ktfast.native.threads import one_blas_thread

_SEEDS = 2**31 - 1


def divided_centers(
    estimator: Any,
    rows: Rows,
    weight: Float64 | None,
    n_clusters: int,
    n_groups: int,
    resampling: Resampling,
    random: Any,
) -> tuple[Any, int]:
    """Find the centres of many clusters group by group.

    K-means divides the rows into groups. Each group then gets its share of the clusters, in
    proportion to its weight, and K-means finds these clusters among the rows of the group.

    Parameters
    ----------
    estimator : HierarchicalKMeans
        The estimator, whose parameters K-means inherits.
    rows : Rows
        The rows [n, d].
    weight : array, float64 [n], optional
        Weights of the rows, all above 0. None means that all weights are 1.
    n_clusters : int
        Number of clusters k of all groups together; at most n.
    n_groups : int
        Number of groups. 1 means that all rows are one group.
    resampling : Resampling
        The resampling steps of every K-means.
    random : numpy.random.RandomState
        Source of the seeds.

    Returns
    -------
    centers : array [k, d]
        The centres, in the order of the groups, of NumPy.
    n_iter : int
        Most iterations of a K-means.
    """
    seed = int(random.randint(_SEEDS))
    count = n_clusters if n_groups == 1 else n_groups
    whole = fit_clusters(
        estimator, rows.shards, weight, count, resampling, seed=seed, n_threads=rows.n_threads
    )
    if n_groups == 1:
        return to_host(whole.cluster_centers_), whole.n_iter_
    groups = groups_of(to_host(whole.predict(list(rows.shards))))
    weights = [float(len(g) if weight is None else weight[g].sum()) for g in groups]
    shares = shares_of(weights, [len(group) for group in groups], n_clusters)
    seeds = random.randint(_SEEDS, size=len(groups)).tolist()
    workers = 1 if rows.on_gpu else min(rows.threads, len(groups))

    def fit_group(group: Int64, share: int, group_seed: int) -> tuple[Any, int]:
        model = fit_clusters(
            estimator,
            rows.pick(group),
            None if weight is None else weight[group],
            share,
            resampling,
            seed=group_seed,
            n_threads=max(1, rows.threads // workers),
        )
        return to_host(model.cluster_centers_), model.n_iter_

    if workers == 1:  # a GPU's current stream belongs to the present thread
        found = list(map(fit_group, groups, shares, seeds))
    else:
        with one_blas_thread(), ThreadPoolExecutor(workers) as pool:
            found = list(pool.map(fit_group, groups, shares, seeds))
    centers = np.concatenate([group_centers for group_centers, _ in found])
    return centers, max(whole.n_iter_, *(n_iter for _, n_iter in found))


def groups_of(labels: Any) -> list[Int64]:
    """The numbers int64 [m] of the rows of each label that occurs, in ascending order."""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)


def shares_of(weights: Sequence[float], sizes: Sequence[int], n_clusters: int) -> list[int]:
    """Divide clusters among groups in proportion to their weights (Sainte-Laguë's method).

    Parameters
    ----------
    weights : sequence of float
        Total weight of each group, above 0.
    sizes : sequence of int
        Number of rows of each group. A group gets at most this many clusters.
    n_clusters : int
        Number of clusters; at least the number of groups, and at most the number of rows.

    Returns
    -------
    shares : list of int
        Number of clusters of each group, at least 1. Ties go to the group with the lower number.
    """
    shares = [1] * len(weights)
    queue = [(-weights[i] / 3, i) for i in range(len(weights)) if sizes[i] > 1]
    heapq.heapify(queue)
    for _ in range(n_clusters - len(weights)):
        _, i = queue[0]
        shares[i] += 1
        if shares[i] == sizes[i]:
            heapq.heappop(queue)
        else:
            heapq.heapreplace(queue, (-weights[i] / (2 * shares[i] + 1), i))
    return shares


@contextlib.contextmanager
def no_convergence_warnings() -> Iterator[None]:
    """Hide the warnings of the fits of the levels; the estimator warns about the whole."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield
