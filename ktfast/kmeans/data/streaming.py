"""Rows on the host that a GPU reads block by block, so that they may exceed the GPU's memory.

Three activities of a pass overlap: the host copies block i + 2 to pinned memory, the copy engine
brings block i + 1 to the GPU, and kernels process block i. Events order the three. The host waits
only for pinned memory that the copy engine still reads. Rows that fit the memory budget stay on the
GPU between passes.
"""

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from ktfast.kmeans.data.memory_plan import MemoryPlan
from ktfast.native.arrays import library_of
from ktfast.native.gpu_memory import Device, Pinned
from ktfast.ops.mapped import copy_mapped, is_mapped
from ktfast.ops.vectors import dtype_name, read_ahead

# Fewer bytes than this are copied to pinned memory by one thread, more bytes by up to 8 threads of
# the fit.
_SMALL_COPY = 1 << 22
_COPY_THREADS = 8


class _Buffer:
    """Memory of one block, and the events after which this memory may be rewritten.

    Attributes
    ----------
    pinned : Pinned
        Memory on the host. The event `copied` follows the copy that reads this memory.
    memory : array, uint8
        Memory on the GPU; empty if all rows stay there. The event `computed` follows the kernels
        that read this memory.
    """

    def __init__(self, device: Device, n_bytes: int, *, is_on_device: bool) -> None:
        self.pinned: Pinned = device.pinned(n_bytes)
        self.memory = device.empty((n_bytes if is_on_device else 0,), "uint8")
        # Queued kernels may still use the memory that the allocator hands out.
        self.computed = device.computed()
        self.copied: Any = None


class HostStream:
    """Delivers matrices on the host as blocks on a GPU, one pass at a time.

    Parameters
    ----------
    shards : sequence of array
        Matrices [n_i, d] of NumPy or torch on the CPU, of one dtype.
    dtype : str
        Name of the dtype.
    device : Device
        GPU that receives the blocks.
    plan : MemoryPlan
        Use of the GPU's memory.
    n_threads : int
        Most threads that copy to pinned memory.

    Attributes
    ----------
    device : Device
        As given.
    plan : MemoryPlan
        As given.
    """

    def __init__(
        self, shards: Sequence[Any], dtype: str, device: Device, plan: MemoryPlan, n_threads: int
    ) -> None:
        self.device = device
        self.plan = plan
        self._shards = [_bits(shard) for shard in shards]
        self._starts = np.cumsum([0, *(len(shard) for shard in self._shards)])
        self._n, self._d = int(self._starts[-1]), int(self._shards[0].shape[1])
        self._dtype = dtype
        self._kind = self._shards[0].dtype.newbyteorder("=")
        self._row_bytes = self._d * self._kind.itemsize
        self._threads = min(n_threads, _COPY_THREADS)
        self._buffers: list[_Buffer] = []
        self._resident: Any = None
        self._resident_is_filled = False

    def parts(self) -> Iterator[tuple[slice, Any]]:
        """Yield all rows in order as blocks on the GPU.

        Yields
        ------
        place : slice
            Numbers of the rows, in 0 .. n - 1.
        block : array [m, d]
            The rows. The block is valid until the next one is requested. Kernels that read the
            block must be queued on the stream that is current when the next block is requested.
        """
        resident, step = self.plan.resident, self.plan.block
        prefix = list(_places(0, resident, step))
        rest = list(_places(resident, self._n, step))
        if self._resident_is_filled:
            for place in prefix:
                yield place, self._matrix(self._resident_memory(place), place)
            yield from self._copied_blocks(rest)
            return
        self._allocate()
        yield from self._copied_blocks(prefix + rest)
        self._resident_is_filled = True
        if not rest:
            self._free_buffers()

    def _allocate(self) -> None:
        if self._buffers:
            return
        self._resident = self.device.empty((self.plan.resident * self._row_bytes,), "uint8")
        n_bytes = min(self.plan.block, self._n) * self._row_bytes
        is_on_device = self.plan.resident < self._n
        self._buffers = [_Buffer(self.device, n_bytes, is_on_device=is_on_device) for _ in range(2)]

    def _free_buffers(self) -> None:
        for buffer in self._buffers:
            if buffer.copied is not None:
                self.device.wait(buffer.copied)
        self._buffers = []

    def _copied_blocks(self, places: list[slice]) -> Iterator[tuple[slice, Any]]:
        """Copy blocks to the GPU and yield them; resident rows are copied to where they stay."""
        device, complete = self.device, False
        try:
            for place, buffer in zip(places, self._buffers, strict=False):
                self._queue_copy(buffer, place)
            for i, place in enumerate(places):
                buffer = self._buffers[i % 2]
                device.kernels_wait(buffer.copied)
                yield place, self._matrix(self._memory_of(buffer, place), place)
                buffer.computed = device.computed()
                if i + 2 < len(places):
                    self._queue_copy(buffer, places[i + 2])
            complete = True
        finally:
            if not complete:
                self._finish_copies()

    def _finish_copies(self) -> None:
        """Wait for all copies, so that none writes to memory that has been freed."""
        for buffer in self._buffers:
            if buffer.copied is not None:
                self.device.kernels_wait(buffer.copied)
                self.device.wait(buffer.copied)
            buffer.computed = self.device.computed()

    def _queue_copy(self, buffer: _Buffer, place: slice) -> None:
        """Fill the pinned memory of a buffer and queue the copy to the GPU."""
        if buffer.copied is not None:
            self.device.wait(buffer.copied)
        n_bytes = (place.stop - place.start) * self._row_bytes
        self._fill(buffer.pinned.array[:n_bytes].view(self._kind).reshape(-1, self._d), place.start)
        self.device.copies_wait(buffer.computed)
        self.device.copy(buffer.pinned, self._memory_of(buffer, place), n_bytes)
        buffer.copied = self.device.copied()

    def _memory_of(self, buffer: _Buffer, place: slice) -> Any:
        if place.stop <= self.plan.resident:
            return self._resident_memory(place)
        return buffer.memory

    def _resident_memory(self, place: slice) -> Any:
        return self._resident[place.start * self._row_bytes : place.stop * self._row_bytes]

    def _matrix(self, memory: Any, place: slice) -> Any:
        return self.device.matrix(memory, self._dtype, place.stop - place.start, self._d)

    def _fill(self, target: npt.NDArray[Any], start: int) -> None:
        """Copy the rows from number `start` on to pinned memory [m, d]."""
        threads = self._threads if target.nbytes >= _SMALL_COPY else 1
        ends = np.linspace(0, len(target), threads + 1, dtype=int)
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda a, b: self._copy(target[a:b], start + a), ends[:-1], ends[1:]))

    def _copy(self, target: npt.NDArray[Any], start: int) -> None:
        done = 0
        while done < len(target):
            shard = int(np.searchsorted(self._starts, start + done, side="right")) - 1
            first = start + done - int(self._starts[shard])
            rows = self._shards[shard][first : first + len(target) - done]
            if is_mapped(rows) and rows.dtype == target.dtype:
                copy_mapped(rows, target[done : done + len(rows)])
            else:
                np.copyto(target[done : done + len(rows)], rows)
            if isinstance(rows, np.memmap):
                read_ahead(self._shards[shard][first + len(rows) :][: 2 * self.plan.block])
            done += len(rows)


def _places(first: int, last: int, step: int) -> Iterator[slice]:
    for start in range(first, last, step):
        yield slice(start, min(start + step, last))


def _bits(shard: Any) -> npt.NDArray[Any]:
    """View a matrix as a NumPy array; bfloat16, which NumPy lacks, becomes int16."""
    if library_of(shard) != "torch":
        return np.asanyarray(shard)
    if dtype_name(shard) == "bfloat16":
        shard = shard.view(sys.modules["torch"].int16)
    return np.asarray(shard.numpy())
