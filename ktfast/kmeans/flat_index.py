"""Search among centroids, exact, with the interface of faiss's flat indexes."""

from typing import Any

import numpy as np
import numpy.typing as npt

from ktfast.errors import InputError
from ktfast.kmeans.inputs import is_array
from ktfast.kmeans.rows import Float64, Rows, float64_on_host, to_host
from ktfast.native.arrays import library_of

Float32 = npt.NDArray[np.float32]

# Elements of the table of distances that are made at a time.
_TABLE = 1 << 22
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_READ = ("float32", "float16", "uint8", "int8")


class CentroidIndex:
    """Exact search among centroids, as `faiss.IndexFlatL2` or `faiss.IndexFlatIP`.

    Attributes
    ----------
    d : dimension.
    ntotal : number of centroids.
    """

    def __init__(self, d: int, *, inner_product: bool = False) -> None:
        self.d = d
        self.inner_product = inner_product
        self.reset()

    @property
    def ntotal(self) -> int:
        """Number of centroids."""
        return len(self._centroids)

    def reset(self) -> None:
        """Remove all centroids."""
        self._centroids = np.empty((0, self.d), dtype=np.float32)

    def add(self, x: Any) -> None:
        """Append centroids [n, d]."""
        new = float64_on_host(points_of(x, self.d)).astype(np.float32)
        self._centroids = np.concatenate([self._centroids, new])

    def search(self, x: Any, k: int) -> tuple[Float32, npt.NDArray[np.int64]]:
        """The k nearest centroids of each point, nearest first.

        Parameters
        ----------
        x : [n, d].
        k : how many; those that are missing get number -1.

        Returns
        -------
        squared distances (or inner products) float32 [n, k] and numbers int64 [n, k].
        """
        x = points_of(x, self.d)
        scores = np.full((len(x), k), -_FLOAT32_MAX if self.inner_product else _FLOAT32_MAX)
        numbers = np.full((len(x), k), -1, dtype=np.int64)
        if k == 1 and self.ntotal and not self.inner_product:
            labels, distances = Rows([x]).assign(self._centroids.astype(np.float64))
            return to_host(distances).astype(np.float32)[:, None], (
                to_host(labels).astype(np.int64)[:, None]
            )
        found = min(k, self.ntotal)
        for place, block in Rows([x]).blocks(max(1, _TABLE // max(1, self.ntotal))):
            table = self._table(float64_on_host(block))
            order = np.argsort(-table if self.inner_product else table, axis=1, kind="stable")
            numbers[place, :found] = order[:, :found]
            scores[place, :found] = np.take_along_axis(table, order[:, :found], axis=1)
        return scores.astype(np.float32), numbers

    def assign(self, x: Any, k: int = 1) -> npt.NDArray[np.int64]:
        """Numbers int64 [n, k] of the k nearest centroids."""
        return self.search(x, k)[1]

    def _table(self, points: Float64) -> Float64:
        """Squared distances or inner products of points to all centroids."""
        centroids = self._centroids.astype(np.float64)
        products = points @ centroids.T
        if self.inner_product:
            return np.asarray(products)
        squares = (points**2).sum(axis=1)[:, None] + (centroids**2).sum(axis=1)
        return np.asarray(np.maximum(squares - 2 * products, 0))


def points_of(x: Any, d: int) -> Any:
    """Points [n, d] that the kernels read: where they lie if possible, else a float32 copy."""
    if not is_array(x) or (library_of(x) == "numpy" and x.dtype.name not in _READ):
        x = np.asarray(x, dtype=np.float32)
    if len(x.shape) != 2 or x.shape[1] != d:
        raise InputError(f"points must have shape [n, {d}], got {list(x.shape)}")
    return x
