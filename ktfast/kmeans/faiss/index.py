"""Exact search among stored vectors, with the interface of faiss's flat indexes."""

from typing import Any

import numpy as np

from ktfast.errors import InputError
from ktfast.kmeans.array_types import Float32, Float64, Int64
from ktfast.kmeans.data.moments import check_finite
from ktfast.kmeans.data.passes import nearest_centers
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.data.workspace import float64_on_host, to_host
from ktfast.kmeans.faiss.names import NamesOfFaiss
from ktfast.kmeans.faiss.points import points_of
from ktfast.kmeans.transform import squared_distances
from ktfast.native.modules import cuda

METRIC_INNER_PRODUCT = 0
METRIC_L2 = 1

# Inner products that are computed at a time.
_BLOCK_SCORES = 1 << 22
_FLOAT32_MAX = float(np.finfo(np.float32).max)


class CentroidIndex(NamesOfFaiss):
    """Exact search among vectors, as `faiss.IndexFlatL2` or `faiss.IndexFlatIP`.

    The vectors of `ktfast.kmeans.faiss.Kmeans` are its centroids. `search` with any k, `assign`,
    and the labels of `Kmeans` give the same nearest vector. Of equally near vectors, the lowest
    number comes first.

    Parameters
    ----------
    d : int
        Dimension of the vectors.
    inner_product : bool, default False
        Whether to search for the largest inner product instead of the smallest distance.

    Attributes
    ----------
    d : int
        As given.
    inner_product : bool
        As given.
    gpu : bool
        Whether `Clustering` clusters on the first GPU.
    ntotal : int
        Number of vectors.
    is_trained : bool
        True: a flat index needs no training.
    metric_type : int
        `METRIC_L2` or `METRIC_INNER_PRODUCT`.
    """

    gpu = False
    is_trained = True

    def __init__(self, d: int, *, inner_product: bool = False) -> None:
        if int(d) != d or d < 1:
            raise InputError(f"d must be an integer of at least 1, got {d!r}")
        self.d = int(d)
        self.inner_product = inner_product
        self._centroids: Float32 = np.empty((0, self.d), dtype=np.float32)

    @property
    def ntotal(self) -> int:
        """Number of vectors."""
        return len(self._centroids)

    @property
    def metric_type(self) -> int:
        """`METRIC_L2` or `METRIC_INNER_PRODUCT`."""
        return METRIC_INNER_PRODUCT if self.inner_product else METRIC_L2

    def train(self, x: Any) -> None:
        """Check vectors [n, d]; a flat index learns nothing from them."""
        points_of(x, self.d)

    def reset(self) -> None:
        """Remove all vectors."""
        self._centroids = np.empty((0, self.d), dtype=np.float32)

    def add(self, x: Any) -> None:
        """Append vectors.

        Parameters
        ----------
        x : array [n, d]
            The vectors. They are stored as float32.

        Raises
        ------
        InputError
            The shape is wrong, or a value is NaN, infinity or beyond the range of float32.
        """
        new = [float64_on_host(part).astype(np.float32) for part in points_of(x, self.d)]
        check_finite(Rows(new))
        self._centroids = np.concatenate([self._centroids, *new])

    def reconstruct(self, key: int) -> Float32:
        """Return the stored vector float32 [d] of one number.

        Raises
        ------
        InputError
            There is no vector of that number.
        """
        vector: Float32 = self.reconstruct_n(int(key), 1)[0]
        return vector

    def reconstruct_n(self, n0: int = 0, ni: int = -1) -> Float32:
        """Return consecutive stored vectors.

        Parameters
        ----------
        n0 : int, default 0
            Number of the first vector.
        ni : int, default -1
            How many vectors. -1 means all from `n0` on.

        Returns
        -------
        vectors : array, float32 [ni, d]
            A copy of the vectors.

        Raises
        ------
        InputError
            There are no such vectors.
        """
        end = self.ntotal if ni == -1 else n0 + ni
        if not 0 <= n0 <= end <= self.ntotal:
            raise InputError(
                f"vectors {n0} to {end - 1} were asked for, but the index holds {self.ntotal} "
                "vectors; numbers start at 0"
            )
        return self._centroids[n0:end].copy()

    def search(self, x: Any, k: int) -> tuple[Float32, Int64]:
        """Find the k nearest vectors of each point, nearest first.

        Parameters
        ----------
        x : array [n, d]
            The points, of NumPy, torch or CuPy.
        k : int
            Number of vectors wanted.

        Returns
        -------
        scores : array, float32 [n, k]
            Squared distances, or inner products. If there are fewer than k vectors, each missing
            distance is the largest float32 number, and each missing inner product the lowest.
        numbers : array, int64 [n, k]
            Numbers of the vectors. Missing ones get -1.

        Raises
        ------
        InputError
            The shape is wrong, k is less than 1, or a point contains NaN or infinity.
        """
        if int(k) != k or k < 1:
            raise InputError(f"k must be an integer of at least 1, got {k!r}")
        rows = Rows(points_of(x, self.d), n_threads=threads.wanted)
        check_finite(rows)
        if k == 1 and rows.n and self.ntotal and not self.inner_product:
            labels, distances = nearest_centers(rows, self._centroids.astype(np.float64))
            numbers = to_host(labels).astype(np.int64)[:, None]
            return _in_float32(to_host(distances)[:, None]), numbers
        scores = np.full((rows.n, k), -_FLOAT32_MAX if self.inner_product else _FLOAT32_MAX)
        numbers = np.full((rows.n, k), -1, dtype=np.int64)
        found = min(k, self.ntotal) if rows.n else 0
        for place, table in self._tables(rows) if found else ():
            order = np.argsort(-table if self.inner_product else table, axis=1, kind="stable")
            numbers[place, :found] = order[:, :found]
            scores[place, :found] = np.take_along_axis(table, order[:, :found], axis=1)
        return _in_float32(scores), numbers

    def assign(self, x: Any, k: int = 1) -> Int64:
        """Find the numbers of the k nearest vectors of each point.

        Parameters
        ----------
        x : array [n, d]
            The points.
        k : int, default 1
            Number of vectors wanted.

        Returns
        -------
        numbers : array, int64 [n, k]
            As from `search`.

        Raises
        ------
        InputError
            As for `search`.
        """
        return self.search(x, k)[1]

    def _tables(self, rows: Rows) -> Any:
        """Yield the place of each block of rows, and its scores float64 [m, ntotal]."""
        vectors = self._centroids.astype(np.float64)
        if not self.inner_product:
            for place, squares in squared_distances(rows, vectors):
                yield place, to_host(squares)
            return
        for place, block in rows.blocks(max(1, _BLOCK_SCORES // self.ntotal)):
            yield place, _inner_products(float64_on_host(block), vectors)


class GpuIndex(CentroidIndex):
    """A `CentroidIndex` with which `Clustering` clusters on the first GPU.

    Parameters
    ----------
    d : int
        Dimension of the vectors.
    inner_product : bool, default False
        As for `CentroidIndex`.

    Raises
    ------
    RuntimeError
        There is no GPU that this build of ktfast can use.
    """

    gpu = True

    def __init__(self, d: int, *, inner_product: bool = False) -> None:
        cuda()
        super().__init__(d, inner_product=inner_product)


class _Threads:
    """The number of CPU threads that `omp_set_num_threads` asked for; None: the default."""

    wanted: int | None = None


threads = _Threads()


def _inner_products(points: Float64, vectors: Float64) -> Float64:
    """Inner products float64 [m, k]. Equal vectors get equal products, unlike in a matrix product.

    A BLAS may add up the columns of one matrix in different orders.
    """
    return np.asarray(np.einsum("md,kd->mk", points, vectors, optimize=False))


def _in_float32(scores: Float64) -> Float32:
    """Round scores to float32; larger ones become the largest float32 number, as in faiss."""
    return np.clip(scores, -_FLOAT32_MAX, _FLOAT32_MAX).astype(np.float32)
