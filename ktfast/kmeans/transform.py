"""Distances of rows to all centres, equal bit by bit to the distances of the assignment.

Each distance is the sum of squared float64 differences that `ktfast.ops.kmeans_assign` minimises.
So all functions that return distances or neighbours agree with the labels.
"""

import itertools
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ktfast.kmeans.array_types import Float64
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.data.workspace import to_host
from ktfast.native.arrays import empty, library_of, on_device
from ktfast.native.modules import cpu
from ktfast.ops.kmeans_assign import PreparedCenters, kmeans_assign
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
        Distances in the dtype of the centres, in the user's library and on the user's device. The
        first of the least distances of a row belongs to the nearest centre.
    """
    workspace = rows.workspace
    # Distances of streamed rows return to the host block by block.
    stays_on_gpu = workspace.on_gpu and workspace.stream is None
    shape, dtype = (rows.n, len(centers)), rows.center_dtype
    table = workspace.empty(shape, dtype) if stays_on_gpu else np.empty(shape, dtype)
    for place, squares in squared_distances(rows, centers):
        with on_device(squares):
            distances = _roots(squares, dtype)
            table[place] = distances if stays_on_gpu else to_host(distances)
    return workspace.to_library(table)


def squared_distances(rows: Rows, centers: Float64) -> Iterator[tuple[slice, Any]]:
    """Compute the squared distances of all rows to all centres, block by block.

    Parameters
    ----------
    rows : Rows
        The rows [n, d].
    centers : array, float64 [k, d]
        The centres.

    Yields
    ------
    place : slice
        Numbers of the rows of the block.
    squares : array, float64 [m, k]
        Squared distances, on the device that processes the rows.
    """
    most = max(1, _BLOCK_DISTANCES // max(1, len(centers), rows.d))
    if rows.workspace.on_gpu:
        centers = rows.workspace.to_device(centers)
        for place, block in rows.blocks(most):
            with on_device(block):
                yield place, _squares_on_gpu(block, centers)
        return
    centers = np.ascontiguousarray(centers)
    with ThreadPoolExecutor(rows.threads) as pool:
        for place, block in rows.blocks(most):
            squares = np.empty((len(block), len(centers)))
            ends = np.linspace(0, len(block), min(rows.threads, len(block)) + 1, dtype=int)
            shares = [slice(*pair) for pair in itertools.pairwise(ends)]
            list(pool.map(_fill, ((block[s], centers, squares[s]) for s in shares)))
            yield place, squares


def _fill(task: tuple[Any, Float64, Float64]) -> None:
    block, centers, squares = task
    # The kernel would convert each row once per centre.
    cpu.kmeans_distances(x=contiguous(block, "float64"), centers=centers, distances=squares)


def _squares_on_gpu(block: Any, centers: Any) -> Any:
    """Compute squared distances float64 [m, k].

    The kernel that finds the nearest centre is called with one centre at a time. Exchanging row and
    centre does not change the bits of their distance. If the block has fewer rows than there are
    centres, the rows therefore take the place of the centres.
    """
    squares = empty((len(block), len(centers)), "float64", like=centers)
    one_by_one, all_at_once = (centers, block) if len(centers) <= len(block) else (block, centers)
    for i in range(len(one_by_one)):
        one = PreparedCenters(one_by_one[i : i + 1])
        distances = kmeans_assign(all_at_once, one, distance_dtype="float64")[1]
        if one_by_one is centers:
            squares[:, i] = distances
        else:
            squares[i] = distances
    return squares


def _roots(squares: Any, dtype: str) -> Any:
    """Square roots in `dtype`. Only the least squares of a row get the least root of the row.

    Rounding can give a farther centre the distance of the nearest one. Such a distance is rounded
    to the next larger number.
    """
    library = sys.modules[library_of(squares)]
    limits = np.finfo(dtype)
    is_torch = library_of(squares) == "torch"
    least = squares.amin(1, keepdim=True) if is_torch else squares.min(axis=1, keepdims=True)
    root = contiguous(library.sqrt(least), dtype)
    above = root * (1 + float(limits.eps)) + float(limits.smallest_subnormal)
    roots = library.maximum(contiguous(library.sqrt(squares), dtype), above)
    return library.where(squares > least, roots, root)
