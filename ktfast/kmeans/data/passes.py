"""Single passes over all rows: nearest centres, sums of clusters, totals of distances.

If several processes fit together, labels and distances are those of this process's rows. Sums and
totals are those of all processes, with the bits that a single process would compute.
"""

from typing import Any

import numpy as np

from ktfast.kmeans.array_types import Float64
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.data.totals import spread_totals
from ktfast.kmeans.data.workspace import to_host
from ktfast.native.arrays import on_device
from ktfast.ops.kmeans_assign import PreparedCenters, kmeans_assign
from ktfast.ops.kmeans_sums import kmeans_totals
from ktfast.ops.kmeans_update import kmeans_update


def nearest_centers(rows: Rows, centers: Float64) -> tuple[Any, Any]:
    """Find the nearest centre of every row.

    Parameters
    ----------
    rows : Rows
        The data [n, d].
    centers : array, float64 [k, d]
        The centres.

    Returns
    -------
    labels : array, int32 [n]
        Number of the nearest centre, on the device that processes the rows.
    distances : array, float64 [n]
        Squared distance to the nearest centre, on the same device.
    """
    if rows.remote is not None:
        found: tuple[Any, Any] = rows.remote.nearest_centers(centers)
        return found
    workspace = rows.workspace
    prepared = PreparedCenters(workspace.to_device(centers))
    labels, distances = workspace.empty((rows.n,), "int32"), workspace.empty((rows.n,), "float64")
    for place, part in rows.parts():
        kmeans_assign(
            part,
            prepared,
            n_threads=rows.n_threads,
            out=(labels[place], distances[place]),
        )
    return labels, distances


def cluster_sums(
    rows: Rows, labels: Any, n_clusters: int, weight: Float64 | None = None
) -> tuple[Float64, Float64]:
    """Add up the rows of each cluster, in float64 and in the order of the rows of all processes.

    Parameters
    ----------
    rows : Rows
        The data [n, d].
    labels : array, int32 [n]
        Cluster of each row, on the device that processes the rows.
    n_clusters : int
        Number of clusters k.
    weight : array, float64 [n], optional
        Weights of the rows. None means that all weights are 1.

    Returns
    -------
    sums : array, float64 [k, d]
        Weighted sum of the rows of each cluster, on the host.
    counts : array, float64 [k]
        Total weight of each cluster, on the host.
    """
    if rows.remote is not None:
        totals: tuple[Float64, Float64] = rows.remote.cluster_sums(labels, n_clusters)
        return totals

    def add(before: tuple[Float64, Float64]) -> tuple[Float64, Float64]:
        sums, counts = (rows.workspace.to_device(array) for array in before)
        weights = rows.workspace.weights(weight)
        for place, part in rows.parts():
            kmeans_update(
                part,
                labels[place],
                n_clusters,
                sample_weight=None if weights is None else weights[place],
                n_threads=rows.n_threads,
                out=(sums, counts),
            )
        return to_host(sums), to_host(counts)

    return rows.ranks.fold(add, (np.zeros((n_clusters, rows.d)), np.zeros(n_clusters)))


def inertia_of(rows: Rows, distances: Any, weight: Float64 | None = None) -> float:
    """Sum the weighted squared distances float64 [n]; the bits are the same on every device."""
    return inertia_and_moved(rows, distances, weight, None, None)[0]


def inertia_and_moved(
    rows: Rows, distances: Any, weight: Float64 | None, before: Any, after: Any
) -> tuple[float, int]:
    """Sum the distances, and count the rows whose label changed.

    Parameters
    ----------
    rows : Rows
        The data [n, d].
    distances : array, float64 [n]
        Squared distances of the rows to their nearest centres.
    weight : array, float64 [n], optional
        Weights of the rows. None means that all weights are 1.
    before, after : array, int32 [n], optional
        Labels of two passes. If `before` is None, no change is counted.

    Returns
    -------
    inertia : float
        Weighted sum of the distances. The bits are the same on every device, and for every number
        of processes.
    moved : int
        Number of rows whose labels differ.
    """
    if rows.ranks.size > 1:
        return spread_totals(rows, distances, weight, before, after)
    totals = kmeans_totals(
        distances, rows.workspace.weights(weight), before, after, n_threads=rows.n_threads
    )
    inertia, moved = to_host(totals).tolist()
    return inertia, int(moved)


def all_below(distances: Any, limit: float) -> bool:
    """Whether all distances [n] are below a limit. NaN does not count as below."""
    with on_device(distances):
        return bool((distances < limit).all())


def cluster_weights(
    rows: Rows, labels: Any, weight: Float64 | None, n_clusters: int
) -> tuple[Float64, int]:
    """Add up the weights of the rows of each cluster, over the rows of all processes.

    Parameters
    ----------
    rows : Rows
        The data [n, d].
    labels : array, int32 [n]
        Cluster of each row, on any device.
    weight : array, float64 [n], optional
        Weights of the rows. None means that all weights are 1.
    n_clusters : int
        Number of clusters k.

    Returns
    -------
    weights : array, float64 [k]
        Total weight of each cluster.
    used : int
        Number of clusters with at least one row.
    """
    owners = to_host(labels)
    members = rows.ranks.sum(np.bincount(owners, minlength=n_clusters))
    used = int(np.count_nonzero(members))
    if weight is None:
        return members.astype(np.float64), used

    def add(before: Float64) -> Float64:
        np.add.at(before, owners, weight)
        return before

    return rows.ranks.fold(add, np.zeros(n_clusters)), used
