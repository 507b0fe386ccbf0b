"""Single passes over all rows: nearest centres, sums of clusters, totals of distances."""

from typing import Any

import numpy as np

from ktfast.kmeans.array_types import Float64
from ktfast.kmeans.data.rows import Rows
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
    """Add up the rows of each cluster.

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
    sums = rows.workspace.to_device(np.zeros((n_clusters, rows.d)))
    counts = rows.workspace.to_device(np.zeros(n_clusters))
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
        Weighted sum of the distances. The bits are the same on every device.
    moved : int
        Number of rows whose labels differ.
    """
    totals = kmeans_totals(
        distances, rows.workspace.weights(weight), before, after, n_threads=rows.n_threads
    )
    inertia, moved = to_host(totals).tolist()
    return inertia, int(moved)


def all_below(distances: Any, limit: float) -> bool:
    """Whether all distances [n] are below a limit; NaN is not."""
    with on_device(distances):
        return bool((distances < limit).all())
