"""The rows that K-means clusters: one matrix or several shards, left where they lie."""

import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ktfast._backend import device_of, empty, library_of, on_device
from ktfast._backend import n_threads as resolve_threads
from ktfast.errors import InputError
from ktfast.ops.kmeans_assign import PreparedCenters, kmeans_assign
from ktfast.ops.kmeans_update import kmeans_update
from ktfast.ops.vectors import CALL_BYTES, check_vectors, dtype_name, read_ahead, row_blocks

Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_SCAN_ROWS = 1 << 16


class Moments(NamedTuple):
    """Mean float64 [d] of rows, and the mean over the features of their variances."""

    mean: Float64
    variance: float


class Rows:
    """Row vectors [n, d] in one or several matrices of one library, device and dtype.

    Everything computed from them is the same, bit for bit, however they are split into matrices.

    Parameters
    ----------
    shards : matrices [n_i, d].
    n_threads : CPU threads of the kernels; None: OMP_NUM_THREADS or every core.

    Attributes
    ----------
    plain_means : whether `means` gives the means and nothing else.
    """

    plain_means = True

    def __init__(self, shards: Sequence[Any], *, n_threads: int | None = None) -> None:
        self.shards = [check_vectors(shard, "X") for shard in shards]
        self.n_threads = n_threads
        self.like = self.shards[0]
        self.dtype = dtype_name(self.like)
        self.d = int(self.like.shape[1])
        for i, shard in enumerate(self.shards):
            if dtype_name(shard) != self.dtype or int(shard.shape[1]) != self.d:
                raise InputError(
                    f"X[{i}] is {dtype_name(shard)} with {shard.shape[1]} features, but X[0] is "
                    f"{self.dtype} with {self.d}; all matrices of X must be alike"
                )
            if library_of(shard) != library_of(self.like) or device_of(shard) != device_of(
                self.like
            ):
                raise InputError(f"X[{i}] is not in the library and on the device of X[0]")
        self.starts = np.cumsum([0, *(int(shard.shape[0]) for shard in self.shards)])
        self.n = int(self.starts[-1])
        self.on_gpu = device_of(self.like)[0] == "cuda"
        # float64 rows get float64 centres, as in scikit-learn; everything else float32 ones.
        self.center_dtype = "float64" if self.dtype == "float64" else "float32"

    @property
    def threads(self) -> int:
        """CPU threads of the kernels."""
        return resolve_threads(self.n_threads)

    def assign(self, centers: Float64, *, precision: str = "exact") -> tuple[Any, Any]:
        """Labels int32 [n] and squared distances float64 [n]: NumPy, or on the rows' GPU."""
        prepared = PreparedCenters(self.to_device(centers))
        labels, distances = self._empty("int32"), self._empty("float64")
        for rows, shard in self.parts():
            kmeans_assign(
                shard,
                prepared,
                precision=precision,
                n_threads=self.n_threads,
                out=(labels[rows], distances[rows]),
            )
        return labels, distances

    def update(
        self, labels: Any, n_clusters: int, weight: Float64 | None = None
    ) -> tuple[Float64, Float64]:
        """Sums float64 [k, d] and weights float64 [k] of each cluster, on the CPU."""
        sums = self.to_device(np.zeros((n_clusters, self.d)))
        counts = self.to_device(np.zeros(n_clusters))
        weights = None if weight is None else self.to_device(weight)
        for rows, shard in self.parts():
            kmeans_update(
                shard,
                labels[rows],
                n_clusters,
                sample_weight=None if weights is None else weights[rows],
                n_threads=self.n_threads,
                out=(sums, counts),
            )
        return to_host(sums), to_host(counts)

    def take(self, indices: Int64) -> Float64:
        """The rows with these numbers, float64 [len(indices), d], on the CPU."""
        result = np.empty((len(indices), self.d))
        shard_of = np.searchsorted(self.starts, indices, side="right") - 1
        for s in np.unique(shard_of):
            where = np.flatnonzero(shard_of == s)
            local = indices[where] - self.starts[s]
            for i, row in zip(where, local, strict=True):
                result[i] = float64_on_host(self.shards[s][int(row)])
        return result

    def moments(self, weight: Float64 | None = None) -> Moments:
        """Mean and variance of the rows, weighted by float64 [n].

        Raises
        ------
        InputError : a row holds NaN or infinity, or is too large; the message names it.
        """
        labels = self._empty("int32")
        labels[:] = 0
        sums, counts = self.update(labels, 1, weight)
        if not np.isfinite(sums).all():
            self._name_bad_row()
        mean = sums[0] / counts[0]
        distances = to_host(self.assign(mean[None])[1])
        if not (distances < _FLOAT32_MAX).all():  # such distances could not be returned as float32
            self._name_bad_row()
        total = distances.sum() if weight is None else (distances * weight).sum()
        return Moments(mean, float(total) / (float(counts[0]) * max(1, self.d)))

    def means(self, sums: Float64, counts: Float64, former: Float64) -> Float64:
        """Centres of clusters with these sums and weights; an empty one keeps its former centre.

        They are float64 [k, d], rounded to the dtype of the result.
        """
        centers = former.copy()
        filled = counts > 0
        centers[filled] = sums[filled] / counts[filled, None]
        return self.rounded(centers)

    def rounded(self, centers: Float64) -> Float64:
        """Centres as the result's dtype holds them, in float64, so that labels match the result."""
        return centers.astype(self.center_dtype).astype(np.float64)

    def check_finite(self) -> None:
        """Refuse NaN and infinity, as `moments` does, without the variance."""
        if self.dtype in ("uint8", "int8"):
            return
        labels = self._empty("int32")
        labels[:] = 0
        if not np.isfinite(self.update(labels, 1)[0]).all():
            self._name_bad_row()

    def blocks(self, rows: int) -> Iterator[tuple[slice, Any]]:
        """Contiguous blocks of at most that many rows, with their place in 0 .. n - 1."""
        for place, shard in self.parts():
            for local, block in row_blocks(shard, rows):
                yield slice(place.start + local.start, place.start + local.stop), block

    def to_device(self, array: npt.NDArray[Any]) -> Any:
        """Copy a CPU array to the rows' device; CPU work stays in NumPy whatever the library."""
        if not self.on_gpu:
            return array
        if library_of(self.like) == "torch":
            return sys.modules["torch"].from_numpy(array).to(self.like.device)
        with on_device(self.like):
            return sys.modules["cupy"].asarray(array)

    def to_library(self, array: Any) -> Any:
        """Bring a result into the library and to the device of the rows."""
        if library_of(self.like) == "torch" and isinstance(array, np.ndarray):
            return sys.modules["torch"].from_numpy(array).to(self.like.device)
        return self.to_device(array) if isinstance(array, np.ndarray) else array

    def _empty(self, dtype: str) -> Any:
        like = self.like if self.on_gpu else np.empty(0)
        return empty((self.n,), dtype, like=like)

    def parts(self) -> Iterator[tuple[slice, Any]]:
        """The matrices in order, with their place in 0 .. n - 1."""
        for i, shard in enumerate(self.shards):
            for following in self.shards[i + 1 : i + 2]:
                if isinstance(following, np.memmap):
                    read_ahead(following[: max(1, CALL_BYTES // max(1, following[:1].nbytes))])
            yield slice(int(self.starts[i]), int(self.starts[i + 1])), shard

    def _name_bad_row(self) -> None:
        largest, culprit = -1.0, 0
        for rows, block in self.blocks(_SCAN_ROWS):
            values = float64_on_host(block)
            bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
            if bad.size:
                kind = "NaN" if np.isnan(values[bad[0]]).any() else "infinity"
                raise InputError(
                    f"X contains {kind} in row {rows.start + int(bad[0])}; K-means needs finite "
                    "values, so remove such rows or fill them in"
                )
            magnitude = np.abs(values).max(axis=1, initial=0)
            if magnitude.max(initial=0) > largest:
                largest = float(magnitude.max(initial=0))
                culprit = rows.start + int(magnitude.argmax())
        raise InputError(
            f"X holds values too large to cluster, up to {largest:.3g} in row {culprit}: squared "
            "distances exceed what float32 can hold (3.4e38); rescale X"
        )


def to_host(array: Any) -> npt.NDArray[Any]:
    """A NumPy array with the same content; shares memory with what is on the CPU already."""
    if isinstance(array, np.ndarray):
        return array
    if library_of(array) == "torch":
        return np.asarray(array.cpu().numpy())
    return np.asarray(sys.modules["cupy"].asnumpy(array))


def float64_on_host(array: Any) -> Float64:
    """A float64 NumPy copy of an array of any dtype the kernels read."""
    if library_of(array) == "torch":  # NumPy has no bfloat16
        array = array.detach().to(sys.modules["torch"].float64)
    return to_host(array).astype(np.float64)
