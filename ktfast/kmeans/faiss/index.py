"""Exact search among centroids, with the interface of faiss's flat indexes."""

from typing import Any

import numpy as np

from ktfast.errors import InputError
from ktfast.kmeans.array_types import Float32, Float64, Int64
from ktfast.kmeans.data.passes import nearest_centers
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.data.workspace import float64_on_host, to_host
from ktfast.kmeans.inputs import is_array
from ktfast.native.arrays import library_of

# Scores (distances or inner products) that are computed at a time.
_BLOCK_SCORES = 1 << 22
_FLOAT32_MAX = float(np.finfo(np.float32).max)
# NumPy dtypes that are read without a copy.
_READ = ("float32", "float16", "uint8", "int8")


class CentroidIndex:
    """Exact search among centroids, as `faiss.IndexFlatL2` or `faiss.IndexFlatIP`.

    Parameters
    ----------
    d : int
        Dimension of the centroids.
    inner_product : bool, default False
        Whether to search for the largest inner product instead of the smallest distance.

    Attributes
    ----------
    d : int
        As given.
    inner_product : bool
        As given.
    ntotal : int
        Number of centroids.
    """

    def __init__(self, d: int, *, inner_product: bool = False) -> None:
        self.d = d
        self.inner_product = inner_product
        self._centroids: Float32 = np.empty((0, d), dtype=np.float32)

    @property
    def ntotal(self) -> int:
        """Number of centroids."""
        return len(self._centroids)

    def reset(self) -> None:
        """Remove all centroids."""
        self._centroids = np.empty((0, self.d), dtype=np.float32)

    def add(self, x: Any) -> None:
        """Append centroids.

        Parameters
        ----------
        x : array [n, d]
            The centroids. They are stored as float32.

        Raises
        ------
        InputError
            The shape is wrong.
        """
        new = float64_on_host(points_of(x, self.d)).astype(np.float32)
        self._centroids = np.concatenate([self._centroids, new])

    def search(self, x: Any, k: int) -> tuple[Float32, Int64]:
        """Find the k nearest centroids of each point, nearest first.

        Parameters
        ----------
        x : array [n, d]
            The points, of NumPy, torch or CuPy.
        k : int
            Number of centroids wanted.

        Returns
        -------
        scores : array, float32 [n, k]
            Squared distances, or inner products. If there are fewer than k centroids, each missing
            distance is the largest float32 number, and each missing inner product the lowest.
        numbers : array, int64 [n, k]
            Numbers of the centroids. Missing ones get -1.

        Raises
        ------
        InputError
            The shape is wrong.
        """
        x = points_of(x, self.d)
        if k == 1 and self.ntotal and not self.inner_product:
            labels, distances = nearest_centers(Rows([x]), self._centroids.astype(np.float64))
            numbers = to_host(labels).astype(np.int64)[:, None]
            return to_host(distances).astype(np.float32)[:, None], numbers
        scores = np.full((len(x), k), -_FLOAT32_MAX if self.inner_product else _FLOAT32_MAX)
        numbers = np.full((len(x), k), -1, dtype=np.int64)
        found = min(k, self.ntotal)
        for place, block in Rows([x]).blocks(max(1, _BLOCK_SCORES // max(1, self.ntotal))):
            table = self._scores(float64_on_host(block))
            order = np.argsort(-table if self.inner_product else table, axis=1, kind="stable")
            numbers[place, :found] = order[:, :found]
            scores[place, :found] = np.take_along_axis(table, order[:, :found], axis=1)
        return scores.astype(np.float32), numbers

    def assign(self, x: Any, k: int = 1) -> Int64:
        """Find the numbers of the k nearest centroids of each point.

        Parameters
        ----------
        x : array [n, d]
            The points.
        k : int, default 1
            Number of centroids wanted.

        Returns
        -------
        numbers : array, int64 [n, k]
            As from `search`.

        Raises
        ------
        InputError
            The shape is wrong.
        """
        return self.search(x, k)[1]

    def _scores(self, points: Float64) -> Float64:
        """Squared distances or inner products of points to all centroids."""
        centroids = self._centroids.astype(np.float64)
        products = points @ centroids.T
        if self.inner_product:
            return np.asarray(products)
        squares = (points**2).sum(axis=1)[:, None] + (centroids**2).sum(axis=1)
        return np.asarray(np.maximum(squares - 2 * products, 0))


def points_of(x: Any, d: int) -> Any:
    """Check points [n, d]; convert them to float32 if the kernels cannot read their dtype."""
    if not is_array(x) or (library_of(x) == "numpy" and x.dtype.name not in _READ):
        x = np.asarray(x, dtype=np.float32)
    if len(x.shape) != 2 or x.shape[1] != d:
        raise InputError(f"points must have shape [n, {d}], got {list(x.shape)}")
    return x
