"""The rows that K-means clusters: one matrix or several shards, read where they lie."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ktfast.errors import InputError, shown
from ktfast.kmeans.array_types import Float64, Int64
from ktfast.kmeans.data.memory_plan import GpuTarget, MemoryPlan, default_budget, make_plan
from ktfast.kmeans.data.streaming import HostStream
from ktfast.kmeans.data.workspace import Workspace, float64_on_host
from ktfast.kmeans.distributed.ranks import ALONE, Ranks
from ktfast.native.arrays import device_of, library_of, on_device
from ktfast.native.threads import n_threads as resolve_threads
from ktfast.ops.mapped import copied_blocks, is_mapped, take_mapped
from ktfast.ops.vectors import CALL_BYTES, check_vectors, dtype_name, read_ahead, row_blocks

# `take` picks rows on a GPU in steps; the rows of a step take at most this many bytes there.
_TAKE_BYTES = 1 << 22


class Rows:
    """Row vectors [n, d] in one or several matrices of one library, device and dtype.

    Everything computed from the rows is the same, bit for bit, however they are split into
    matrices.

    Parameters
    ----------
    shards : sequence of array
        Matrices [n_i, d] of NumPy, torch or CuPy. The rows are their concatenation.
    n_threads : int, optional
        CPU threads. None means `OMP_NUM_THREADS`, or all cores if the variable is not set.
    target : GpuTarget, optional
        GPU to which rows on the host are streamed. None means that the rows are processed where
        they lie.
    like : array, optional
        Results are returned in the library and on the device of this array. None means those of
        the rows.

    Attributes
    ----------
    shards : list of array
        The matrices.
    n, d : int
        Number of rows and of features.
    dtype : str
        Dtype of the rows.
    center_dtype : str
        Dtype of the resulting centres.
    workspace : Workspace
        Device that processes the rows.
    plain_means : bool
        Whether `centers_of` gives plain means of the clusters.
    block_bytes : int
        Bytes of working memory on a GPU that `parts` needs per element of the present block.
    exponent : int
        The rows are the user's rows times ``2 ** exponent``.
    ranks : Ranks
        The processes of the fit. The other processes have further rows.
    first : int
        Number of the first row of this process among the rows of all processes.
    total : int
        Number of rows of all processes.

    Raises
    ------
    InputError
        The matrices differ in dtype, features, library or device.
    """

    plain_means = True
    block_bytes = 0
    exponent = 0
    ranks = ALONE
    first = 0
    # Finds nearest centres and sums if these rows stand for the rows of all processes.
    remote: Any = None

    def __init__(
        self,
        shards: Sequence[Any],
        *,
        n_threads: int | None = None,
        target: GpuTarget | None = None,
        like: Any = None,
    ) -> None:
        self.shards = [check_vectors(shard, "X") for shard in shards]
        self.n_threads = n_threads
        first = self.shards[0]
        self.dtype = dtype_name(first)
        self.d = int(first.shape[1])
        _check_alike(self.shards)
        self._starts = np.cumsum([0, *(int(shard.shape[0]) for shard in self.shards)])
        self.n = self.total = int(self._starts[-1])
        # The centres of float64 rows are float64, as in scikit-learn; all others are float32.
        self.center_dtype = "float64" if self.dtype == "float64" else "float32"
        stream = None if target is None else self._open_stream(target)
        self.workspace = Workspace(first, stream, first if like is None else like)

    def join(self, ranks: Ranks) -> "Rows":
        """Declare these rows a part of the rows of all processes, in the order of the ranks.

        Every process calls this method.
        """
        counts = ranks.gather_to_all(self.n)
        self.ranks, self.first, self.total = ranks, sum(counts[: ranks.rank]), sum(counts)
        return self

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU processes the rows."""
        return self.workspace.on_gpu

    @property
    def threads(self) -> int:
        """Number of CPU threads of the kernels."""
        return resolve_threads(self.n_threads)

    def parts(self) -> Iterator[tuple[slice, Any]]:
        """Yield all rows in order, on the device that processes them.

        Yields
        ------
        place : slice
            Numbers of the rows, in 0 .. n - 1.
        part : array [m, d]
            One shard, or one block of rows that are streamed or copied from a memory-mapped file.
            It is valid until the next part is requested.
        """
        if self.workspace.stream is not None:
            yield from self.workspace.stream.parts()
            return
        for i, shard in enumerate(self.shards):
            for following in self.shards[i + 1 : i + 2]:
                if isinstance(following, np.memmap):
                    read_ahead(following[: max(1, CALL_BYTES // max(1, following[:1].nbytes))])
            start = int(self._starts[i])
            if is_mapped(shard):
                for local, block in copied_blocks(shard):
                    yield slice(start + local.start, start + local.stop), block
            else:
                yield slice(start, int(self._starts[i + 1])), shard

    def blocks(self, rows: int) -> Iterator[tuple[slice, Any]]:
        """Yield contiguous blocks of at most `rows` rows, with their place in 0 .. n - 1."""
        for place, part in self.parts():
            for local, block in row_blocks(part, rows):
                yield slice(place.start + local.start, place.start + local.stop), block

    def shard_blocks(self, rows: int) -> Iterator[tuple[slice, Any]]:
        """Yield blocks as `blocks` does, but of the rows as the user gave them, where they lie."""
        for start, shard in zip(self._starts.tolist(), self.shards, strict=False):
            pieces = copied_blocks(shard, rows) if is_mapped(shard) else row_blocks(shard, rows)
            for local, block in pieces:
                yield slice(start + local.start, start + local.stop), block

    def take(self, indices: Int64) -> Float64:
        """Copy the rows with these numbers to the host, float64 [len(indices), d]."""
        result = np.empty((len(indices), self.d))
        shard_of = np.searchsorted(self._starts, indices, side="right") - 1
        for s in np.unique(shard_of):
            shard = self.shards[s]
            where = np.flatnonzero(shard_of == s)
            local = indices[where] - self._starts[s]
            if is_mapped(shard):
                result[where] = float64_on_host(take_mapped(shard, local))
                continue
            if device_of(shard)[0] == "cpu":
                result[where] = float64_on_host(shard[local])
                continue
            step = max(1, _TAKE_BYTES // max(1, self.d * dtype_bytes(self.dtype)))
            with on_device(shard):
                for i in range(0, len(where), step):
                    chosen = shard[self.workspace.to_device(local[i : i + step])]
                    result[where[i : i + step]] = float64_on_host(chosen)
        return result

    def pick(self, indices: Int64) -> list[Any]:
        """Copy the rows with these ascending numbers as the user gave them.

        Parameters
        ----------
        indices : array, int64 [m]
            Numbers of the rows in ascending order, at least one.

        Returns
        -------
        matrices : list of array [m_i, d]
            The rows in the dtype, the library and on the device of the shards: one matrix per shard
            with at least one of the rows.
        """
        ends = np.searchsorted(indices, self._starts)
        picked = []
        for shard, start, first, end in zip(
            self.shards, self._starts, ends, ends[1:], strict=False
        ):
            if first == end:
                continue
            local = indices[first:end] - start
            if is_mapped(shard):
                picked.append(take_mapped(shard, local))
            elif device_of(shard)[0] == "cpu":
                rows = shard[local]
                picked.append(np.asarray(rows) if isinstance(rows, np.ndarray) else rows)
            else:
                with on_device(shard):
                    picked.append(shard[self.workspace.to_device(local)])
        return picked

    def expect_passes(self) -> None:
        """Prepare for many passes."""
        if self.workspace.stream is not None:
            self.workspace.stream.expect_passes()

    def centers_of(self, sums: Float64, counts: Float64, former: Float64) -> Float64:
        """Compute the centres of clusters from sums and weights.

        Parameters
        ----------
        sums : array, float64 [k, d]
            Weighted sum of the rows of each cluster.
        counts : array, float64 [k]
            Total weight of each cluster.
        former : array, float64 [k, d]
            Former centres. An empty cluster keeps its former centre.

        Returns
        -------
        centers : array, float64 [k, d]
            Means of the clusters, rounded to `center_dtype`.
        """
        centers = former.copy()
        filled = counts > 0
        centers[filled] = sums[filled] / counts[filled, None]
        return self.rounded(centers)

    def place_of(self, row: int) -> str:
        """Say where row number `row` of this process lies: its number, matrix and file.

        The number counts the rows of all processes.
        """
        number = f"row {self.first + row}"
        i = max(0, int(np.searchsorted(self._starts, row, side="right")) - 1)
        if len(self.shards) == 1 or i == len(self.shards):
            return number
        file = getattr(self.shards[i], "filename", None)
        named = "" if file is None else f", {shown(file)}"
        return f"{number} (row {row - int(self._starts[i])} of X[{i}]{named})"

    def rounded(self, centers: Float64) -> Float64:
        """Round float64 centres to `center_dtype`, so that labels match the resulting centres."""
        return centers.astype(self.center_dtype).astype(np.float64)

    def memory_plan(self, budget: int | None, n_clusters: int) -> MemoryPlan:
        """Divide a budget of GPU memory. Rows that the user put on the GPU need no part of it.

        Parameters
        ----------
        budget : int, optional
            Bytes. None means 80 % of the free memory. Ignored for streamed rows, whose memory was
            divided when the stream was opened.
        n_clusters : int
            Number of centres k.

        Returns
        -------
        plan : MemoryPlan
            The use of the memory.

        Raises
        ------
        InputError
            The budget is too small for a fit.
        """
        if self.workspace.stream is not None:
            return self.workspace.stream.plan
        if budget is None:
            budget = default_budget(self.shards[0])
        work = self.block_bytes * self.d
        return make_plan(self.n, self.d, 0, n_clusters, budget, work_bytes=work)

    def _open_stream(self, target: GpuTarget) -> HostStream:
        plan = make_plan(
            self.n,
            self.d,
            self.d * dtype_bytes(self.dtype),
            target.n_clusters,
            target.bytes(),
            work_bytes=self.block_bytes * self.d,
        )
        return HostStream(self.shards, self.dtype, target.device, plan, self.threads)


def dtype_bytes(name: str) -> int:
    """Bytes of a number of that dtype."""
    return 2 if name == "bfloat16" else int(np.dtype(name).itemsize)


def _check_alike(shards: list[Any]) -> None:
    """Refuse matrices of different dtypes, features, libraries or devices."""
    first = shards[0]
    dtype, d = dtype_name(first), int(first.shape[1])
    for i, shard in enumerate(shards):
        if dtype_name(shard) != dtype or int(shard.shape[1]) != d:
            raise InputError(
                f"X[{i}] is {dtype_name(shard)} with {shard.shape[1]} features, but X[0] is "
                f"{dtype} with {d} features; all matrices of X must be alike, so "
                "convert them first"
            )
        if library_of(shard) != library_of(first) or device_of(shard) != device_of(first):
            raise InputError(
                f"X[{i}] and X[0] belong to different libraries or lie on different devices; "
                "all matrices of X must belong to one library and lie on one device"
            )
