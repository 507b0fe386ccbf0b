"""Distances to every centre, where the rows are worked on."""

from typing import Any

import numpy as np
from sklearn.metrics.pairwise import euclidean_distances

from ktfast.kmeans.rows import Float64, Rows, float64_on_host, to_host
from ktfast.native.arrays import device_of, on_device
from ktfast.ops.vectors import contiguous, row_blocks

# Distances that are made at a time, in float64.
_TABLE = 1 << 23


def all_distances(rows: Rows, centers: Float64) -> Any:
    """Euclidean distances [n, k] of the result's dtype, in the rows' library on their device.

    Parameters
    ----------
    rows : n rows.
    centers : float64 [k, d].
    """
    step = max(1, _TABLE // max(len(centers), rows.d))
    shape = (rows.n, len(centers))
    is_result = rows.on_gpu and device_of(rows.like)[0] == "cuda"
    table = (
        rows.empty(shape, rows.center_dtype) if is_result else np.empty(shape, rows.center_dtype)
    )
    targets = rows.to_device(centers)
    for place, part in rows.parts():
        for local, block in row_blocks(part, step):
            where = slice(place.start + local.start, place.start + local.stop)
            if not rows.on_gpu:
                table[where] = euclidean_distances(float64_on_host(block), centers)
                continue
            with on_device(block):
                distances = _on_gpu(block, targets, rows.center_dtype)
                table[where] = distances if is_result else to_host(distances)
    return rows.to_library(table)


def _on_gpu(block: Any, centers: Any, dtype: str) -> Any:
    values = contiguous(block, "float64")
    squares = (values * values).sum(axis=1)[:, None] + (centers * centers).sum(axis=1)
    squares -= 2 * (values @ centers.T)
    return contiguous(squares.clip(0, None) ** 0.5, dtype)
