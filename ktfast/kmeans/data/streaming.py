"""Rows on the host that a GPU reads block by block, so that they may exceed the GPU's memory.

Three activities of a pass overlap: threads of the host fill pinned memory with block i + 3, the
copy engine brings blocks i + 1 and i + 2 to the GPU, and kernels process block i. Events order the
copies and the kernels. The host waits only for pinned memory that the copy engine still reads.
Rows that fit the memory budget stay on the GPU between passes. If more passes follow, the threads
fill pinned memory with the first streamed blocks of the next pass before the next pass begins.
"""

import itertools
import sys
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np
import numpy.typing as npt

from ktfast.kmeans.data.memory_plan import BUFFERS, MemoryPlan
from ktfast.native.arrays import library_of
from ktfast.native.gpu_memory import Device, Pinned
from ktfast.ops.mapped import copy_mapped, is_mapped
from ktfast.ops.vectors import dtype_name, read_ahead

# Fewer bytes than this are copied to pinned memory by one thread, more bytes by up to 8 threads.
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
    fills : list of Future
        The copies to the pinned memory that threads of the host make or have made.
    place : slice or None
        The rows that `fills` copy. None if there is no fill that a pass can use.
    """

    def __init__(self, device: Device, n_bytes: int, *, is_on_device: bool) -> None:
        self.pinned: Pinned = device.pinned(n_bytes)
        self.memory = device.empty((n_bytes if is_on_device else 0,), "uint8")
        # Queued kernels may still use the memory that the allocator hands out.
        self.computed = device.computed()
        self.copied: Any = None
        self.fills: list[Future[None]] = []
        self.place: slice | None = None


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
        # The threads live as long as the stream, because starting threads for each block is slow.
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="ktfast-stream")
        weakref.finalize(self, self._pool.shutdown, wait=False)
        self._fills_ahead = False
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
            kept = [(place, self._matrix(self._resident_memory(place), place)) for place in prefix]
            yield from self._copied_blocks(rest, kept)
            return
        self._allocate()
        yield from self._copied_blocks(prefix + rest, [])
        self._resident_is_filled = True
        if not rest:
            self._free_buffers()

    def expect_passes(self) -> None:
        """Declare that many passes follow: the end of a pass then prepares the next pass."""
        self._fills_ahead = True

    def _allocate(self) -> None:
        if self._buffers:
            return
        self._resident = self.device.empty((self.plan.resident * self._row_bytes,), "uint8")
        n_bytes = min(self.plan.block, self._n) * self._row_bytes
        on_device = self.plan.resident < self._n
        self._buffers = [
            _Buffer(self.device, n_bytes, is_on_device=on_device) for _ in range(BUFFERS)
        ]

    def _free_buffers(self) -> None:
        for buffer in self._buffers:
            if buffer.copied is not None:
                self.device.wait(buffer.copied)
        self._buffers = []

    def _copied_blocks(
        self, places: list[slice], kept: list[tuple[slice, Any]]
    ) -> Iterator[tuple[slice, Any]]:
        """Yield blocks that are on the GPU already, then copy blocks to the GPU and yield them.

        The first copies are queued before kernels process the blocks of `kept`. Copies of resident
        rows go to where the rows stay.
        """
        device, buffers, complete = self.device, self._buffers, False
        try:
            for place, buffer in zip(places, buffers, strict=False):
                self._begin_fill(buffer, place)
            # The last buffer is still being filled while kernels process the first block.
            for buffer, _ in zip(buffers, places[: BUFFERS - 1], strict=False):
                self._queue_copy(buffer)
            yield from kept
            for i, place in enumerate(places):
                buffer = buffers[i % BUFFERS]
                device.kernels_wait(buffer.copied)
                yield place, self._matrix(self._memory_of(buffer, place), place)
                buffer.computed = device.computed()
                if i + BUFFERS < len(places):
                    self._begin_fill(buffer, places[i + BUFFERS])
                if i + BUFFERS - 1 < len(places):
                    self._queue_copy(buffers[(i + BUFFERS - 1) % BUFFERS])
            complete = True
        finally:
            if not complete:
                self._finish_copies()
        if self._fills_ahead:
            rest = _places(self.plan.resident, self._n, self.plan.block)
            for place, buffer in zip(rest, buffers, strict=False):
                self._begin_fill(buffer, place)

    def _finish_copies(self) -> None:
        """Wait for all fills and copies, so that none writes to memory that has been freed."""
        for buffer in self._buffers:
            wait(buffer.fills)
            buffer.fills, buffer.place = [], None
            if buffer.copied is not None:
                self.device.kernels_wait(buffer.copied)
                self.device.wait(buffer.copied)
            buffer.computed = self.device.computed()

    def _begin_fill(self, buffer: _Buffer, place: slice) -> None:
        """Let threads fill the pinned memory of a buffer, unless they do or have done so."""
        if buffer.place == place:
            return
        wait(buffer.fills)
        if buffer.copied is not None:
            self.device.wait(buffer.copied)
        n_bytes = (place.stop - place.start) * self._row_bytes
        target = buffer.pinned.array[:n_bytes].view(self._kind).reshape(-1, self._d)
        threads = self._threads if n_bytes >= _SMALL_COPY else 1
        ends = np.linspace(0, len(target), threads + 1, dtype=int)
        buffer.place = place
        buffer.fills = [
            self._pool.submit(self._copy, target[a:b], place.start + int(a))
            for a, b in itertools.pairwise(ends)
        ]

    def _queue_copy(self, buffer: _Buffer) -> None:
        """Queue the copy of a buffer to the GPU as soon as its pinned memory is filled."""
        place = buffer.place
        assert place is not None
        for fill in buffer.fills:
            fill.result()
        buffer.place = None
        self.device.copies_wait(buffer.computed)
        n_bytes = (place.stop - place.start) * self._row_bytes
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

    def _copy(self, target: npt.NDArray[Any], start: int) -> None:
        """Copy the rows from number `start` on to pinned memory [m, d]."""
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
