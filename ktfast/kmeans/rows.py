"""The rows that K-means clusters: one matrix or several shards, left where they lie."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ktfast.errors import InputError
from ktfast.kmeans.place import Float64, Place, float64_on_host, to_host
from ktfast.kmeans.streaming import BUDGET_SHARE, HostStream, Plan, make_plan
from ktfast.native.arrays import device_of, library_of, on_device
from ktfast.native.gpu_memory import Device, free_bytes
from ktfast.native.threads import n_threads as resolve_threads
from ktfast.ops.kmeans_assign import PreparedCenters, kmeans_assign
from ktfast.ops.kmeans_sums import kmeans_totals
from ktfast.ops.kmeans_update import kmeans_update
from ktfast.ops.vectors import (
    CALL_BYTES,
    check_vectors,
    dtype_name,
    read_ahead,
    row_blocks,
)

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

__all__ = [
    "Float64",
    "Int32",
    "Int64",
    "Moments",
    "Placement",
    "Rows",
    "float64_on_host",
    "to_host",
]

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_SCAN_ROWS = 1 << 16
# Rows that are picked out on a GPU take at most so many bytes there at a time.
_TAKE_BYTES = 1 << 22
# Rows that are added up one after the other where all rows are: a GPU adds up many such chunks at a
# time.
_CHUNK_ROWS = 1024


class Placement(NamedTuple):
    """Where rows on the host are worked on.

    device : a GPU.
    budget : bytes of its memory; None: most of what is free.
    n_clusters : k.
    """

    device: Device
    budget: int | None
    n_clusters: int


class Moments(NamedTuple):
    """Mean float64 [d] of rows, and the mean over the features of their variances."""

    mean: Float64
    variance: float


class Rows(Place):
    """Row vectors [n, d] in one or several matrices of one library, device and dtype.

    Everything computed from them is the same, bit for bit, however they are split into matrices.

    Parameters
    ----------
    shards : matrices [n_i, d].
    n_threads : CPU threads of the kernels; None: OMP_NUM_THREADS or every core.
    placement : a GPU that the rows are streamed to, from the host; None: they are worked on where
        they lie.
    like : array in whose library and on whose device results are wanted; None: as the rows.

    Attributes
    ----------
    plain_means : whether `means` gives the means and nothing else.
    """

    plain_means = True
    # Bytes per feature of a row that `parts` takes on a GPU while a block is worked on.
    block_bytes = 0

    def __init__(
        self,
        shards: Sequence[Any],
        *,
        n_threads: int | None = None,
        placement: Placement | None = None,
        like: Any = None,
    ) -> None:
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
        stream = None if placement is None else self._open(placement)
        super().__init__(self.like, stream, self.like if like is None else like)
        self._placed: tuple[Any, Any] = (None, None)
        # float64 rows get float64 centres, as in scikit-learn; everything else float32 ones.
        self.center_dtype = "float64" if self.dtype == "float64" else "float32"

    @property
    def threads(self) -> int:
        """CPU threads of the kernels."""
        return resolve_threads(self.n_threads)

    def assign(self, centers: Float64, *, precision: str = "exact") -> tuple[Any, Any]:
        """Labels int32 [n] and squared distances float64 [n]: NumPy, or on the rows' GPU."""
        prepared = PreparedCenters(self.to_device(centers))
        labels, distances = self.empty((self.n,), "int32"), self.empty((self.n,), "float64")
        for rows, part in self.parts():
            kmeans_assign(
                part,
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
        weights = self._weights(weight)
        for rows, part in self.parts():
            kmeans_update(
                part,
                labels[rows],
                n_clusters,
                sample_weight=None if weights is None else weights[rows],
                n_threads=self.n_threads,
                out=(sums, counts),
            )
        return to_host(sums), to_host(counts)

    def expect_passes(self) -> None:
        """Get ready to be read many times; plain rows are read where they lie."""

    def totals(
        self, distances: Any, weight: Float64 | None = None, before: Any = None, after: Any = None
    ) -> tuple[float, int]:
        """The inertia of distances float64 [n], and how many labels int32 [n] changed.

        Both are the same bits on every device. No change is counted without labels `before`.
        """
        totals = kmeans_totals(
            distances, self._weights(weight), before, after, n_threads=self.n_threads
        )
        inertia, moved = to_host(totals).tolist()
        return inertia, int(moved)

    def all_below(self, distances: Any, limit: float) -> bool:
        """Whether distances [n] are numbers, and below a limit."""
        with on_device(distances):
            return bool((distances < limit).all())

    def take(self, indices: Int64) -> Float64:
        """The rows with these numbers, float64 [len(indices), d], on the CPU."""
        result = np.empty((len(indices), self.d))
        shard_of = np.searchsorted(self.starts, indices, side="right") - 1
        for s in np.unique(shard_of):
            where = np.flatnonzero(shard_of == s)
            local = indices[where] - self.starts[s]
            if device_of(self.like)[0] == "cpu":
                result[where] = float64_on_host(self.shards[s][local])
                continue
            step = max(1, _TAKE_BYTES // max(1, self.d * dtype_bytes(self.dtype)))
            with on_device(self.like):
                for i in range(0, len(where), step):
                    chosen = self.shards[s][self.to_device(local[i : i + step])]
                    result[where[i : i + step]] = float64_on_host(chosen)
        return result

    def moments(self, weight: Float64 | None = None) -> Moments:
        """Mean and variance of the rows, weighted by float64 [n].

        Raises
        ------
        InputError : a row holds NaN or infinity, or is too large; the message names it.
        """
        mean, total = self._mean(weight)
        if not np.isfinite(mean).all():
            self._name_bad_row()
        distances = self.assign(mean[None])[1]
        # Such distances could not be returned as float32.
        if not self.all_below(distances, _FLOAT32_MAX):
            self._name_bad_row()
        return Moments(mean, self.totals(distances, weight)[0] / (total * max(1, self.d)))

    def _mean(self, weight: Float64 | None) -> tuple[Float64, float]:
        """Mean float64 [d] and total weight, not checked.

        Rows are added up in chunks of 1,024, and chunks alike, as the rows of many clusters are.
        """
        n_chunks = -(-self.n // _CHUNK_ROWS)
        sums = self.to_device(np.zeros((n_chunks, self.d)))
        counts = self.to_device(np.zeros(n_chunks))
        weights = self._weights(weight)
        for rows, part in self.parts():
            chunks = (np.arange(rows.start, rows.stop) // _CHUNK_ROWS).astype(np.int32)
            kmeans_update(
                part,
                self.to_device(chunks),
                n_chunks,
                sample_weight=None if weights is None else weights[rows],
                n_threads=self.n_threads,
                out=(sums, counts),
            )
        total = float(to_host(counts).sum())
        while n_chunks > 1:
            chunks = (np.arange(n_chunks) // _CHUNK_ROWS).astype(np.int32)
            n_chunks = -(-n_chunks // _CHUNK_ROWS)
            sums, _ = kmeans_update(
                sums, self.to_device(chunks), n_chunks, n_threads=self.n_threads
            )
        return to_host(sums)[0] / total, total

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
        if not np.isfinite(self._mean(None)[0]).all():
            self._name_bad_row()

    def blocks(self, rows: int) -> Iterator[tuple[slice, Any]]:
        """Contiguous blocks of at most that many rows, with their place in 0 .. n - 1."""
        for place, shard in self.parts():
            for local, block in row_blocks(shard, rows):
                yield slice(place.start + local.start, place.start + local.stop), block

    def plan(self, budget: int | None, n_clusters: int) -> Plan:
        """What a fit within a budget of the rows' GPU's memory uses, beside rows that lie there.

        Raises
        ------
        InputError : the budget is too small for a fit.
        """
        if self._stream is not None:
            return self._stream.plan
        if budget is None:
            budget = int(BUDGET_SHARE * free_bytes(self.like))
        work = self.block_bytes * self.d
        return make_plan(self.n, self.d, 0, n_clusters, budget, work_bytes=work)

    def _open(self, placement: Placement) -> HostStream:
        device, budget, n_clusters = placement
        if budget is None:
            budget = int(BUDGET_SHARE * device.free_bytes())
        row_bytes = self.d * dtype_bytes(self.dtype)
        work = self.block_bytes * self.d
        plan = make_plan(self.n, self.d, row_bytes, n_clusters, budget, work_bytes=work)
        return HostStream(self.shards, self.dtype, device, plan, self.threads)

    def _weights(self, weight: Float64 | None) -> Any:
        """Weights where the rows are worked on; those of the last call are kept there."""
        if weight is None or not self.on_gpu:
            return weight
        if self._placed[0] is not weight:
            self._placed = (weight, self.to_device(weight))
        return self._placed[1]

    def parts(self) -> Iterator[tuple[slice, Any]]:
        """The rows in order where they are worked on, with their place in 0 .. n - 1.

        One matrix or block after the other, each valid until the next is asked for.
        """
        if self._stream is not None:
            yield from self._stream.parts()
            return
        for i, shard in enumerate(self.shards):
            for following in self.shards[i + 1 : i + 2]:
                if isinstance(following, np.memmap):
                    read_ahead(following[: max(1, CALL_BYTES // max(1, following[:1].nbytes))])
            yield slice(int(self.starts[i]), int(self.starts[i + 1])), shard

    def _name_bad_row(self) -> None:
        largest, culprit = -1.0, 0
        places = itertools.pairwise(self.starts.tolist())
        for rows, block in (
            (slice(start + local.start, start + local.stop), block)
            for (start, _), shard in zip(places, self.shards, strict=True)
            for local, block in row_blocks(shard, _SCAN_ROWS)
        ):
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


def dtype_bytes(name: str) -> int:
    """Bytes of a number of that dtype."""
    return 2 if name == "bfloat16" else int(np.dtype(name).itemsize)
