"""Distances of rows to all centres, computed on the device that processes the rows."""

from typing import Any

import numpy as np

from ktfast.kmeans.array_types import Float64
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.data.workspace import float64_on_host, to_host
from ktfast.native.arrays import on_device
from ktfast.ops.vectors import contiguous

# Float64 distances that are computed at a time.
_BLOCK_DISTANCES = 1 << 23


def all_distances(rows: Rows, centers: Float64) -> Any:
    """Compute the Euclidean distance of every row to every centre.

    Parameters
    ----------
    rows : Rows
        The rows [n, d].
    centers : array, float64 [k, d]
        The centres.

    Returns
    -------
    distances : array [n, k]
        Distances in the dtype of the centres, in the user's library and on the user's device.
    """
    workspace = rows.workspace
    # Distances of streamed rows return to the host block by block.
    stays_on_gpu = workspace.on_gpu and workspace.stream is None
    shape = (rows.n, len(centers))
    table = (
        workspace.empty(shape, rows.center_dtype)
        if stays_on_gpu
        else np.empty(shape, rows.center_dtype)
    )
    centers_there = workspace.to_device(centers)
    for place, block in rows.blocks(max(1, _BLOCK_DISTANCES // max(len(centers), rows.d))):
        if not workspace.on_gpu:
            from sklearn.metrics.pairwise import euclidean_distances  # slow to import

            table[place] = euclidean_distances(float64_on_host(block), centers)
            continue
        with on_device(block):
            distances = _distances_on_gpu(block, centers_there, rows.center_dtype)
            table[place] = distances if stays_on_gpu else to_host(distances)
    return workspace.to_library(table)


def _distances_on_gpu(block: Any, centers: Any, dtype: str) -> Any:
    values = contiguous(block, "float64")
    squares = (values * values).sum(axis=1)[:, None] + (centers * centers).sum(axis=1)
    squares -= 2 * (values @ centers.T)
    return contiguous(squares.clip(0, None) ** 0.5, dtype)
