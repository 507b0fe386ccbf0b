"""Rows that lie on the host, read by a GPU block by block: more of them than its memory holds.

A pass has three hands: the host copies block i + 2 to pinned memory, the copy engine brings block
i + 1 to the GPU, kernels work on block i. Events order them, and the host waits for nothing but a
pinned buffer that is still read. What fits the memory budget stays on the GPU between passes.
"""

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ktfast.errors import InputError
from ktfast.native.arrays import library_of
from ktfast.native.gpu_memory import Device, Pinned
from ktfast.ops.vectors import dtype_name, read_ahead

# Blocks start at multiples of this: the GPU's tiles of rows.
_TILE_ROWS = 128
# A block is as large as this where the budget allows it: copies of less do not reach full speed.
_BLOCK_BYTES = 1 << 27
_BLOCK_ROWS = 1 << 18
# Device bytes of a row for the length of a fit: two labels, a distance, a weight, sorted order.
_ROW_BYTES = 40
# Device bytes of a row while its block is worked on: changes by cluster, the screen's candidates;
# and of its code, two a feature and 16, features in groups of 128.
_WORK_BYTES = 320
_CODE_BYTES = 2
# Device bytes of an element of the centres: three times float64, prepared, integer sums.
_CENTER_BYTES = 40
# Below so many bytes one thread copies to pinned memory; at most so many threads do.
_SMALL_COPY = 1 << 22
_COPY_THREADS = 8
# Share of the device's free memory that is used where no budget is given.
BUDGET_SHARE = 0.8


class Plan(NamedTuple):
    """What of the device's memory is used for what.

    resident : rows that stay there, a prefix.
    block : rows of a block.
    spare : bytes of the budget that are left.
    """

    resident: int
    block: int
    spare: int


def make_plan(
    n: int, d: int, row_bytes: int, n_clusters: int, budget: int, *, work_bytes: int = 0
) -> Plan:
    """Divide a budget of device memory.

    Parameters
    ----------
    n, d : rows and features.
    row_bytes : of a row as it lies.
    n_clusters : k.
    budget : bytes.
    work_bytes : what a row takes while its block is worked on, beside what every row takes.

    Raises
    ------
    InputError : not even one block fits; the message says how many bytes are needed.
    """
    work = _WORK_BYTES + _CODE_BYTES * (-(-d // 128) * 128) + work_bytes
    centers = _CENTER_BYTES * d * (-(-n_clusters // 128) * 128)
    fixed = n * (_ROW_BYTES + d // 64) + centers
    left = budget - fixed
    least = _TILE_ROWS * (2 * row_bytes + work)
    if left < least:
        raise InputError(
            f"{budget:,} bytes of GPU memory may be used, but {n} rows, {d} features and "
            f"{n_clusters} clusters need at least {fixed + least:,}; raise memory_budget, or free "
            "some"
        )
    block = min(_BLOCK_BYTES // max(1, row_bytes), left // (2 * (2 * row_bytes + work)))
    block = _tiles(min(block, _BLOCK_ROWS))
    spare = left - n * row_bytes - min(block, n) * work
    if spare >= 0:
        return Plan(n, block, spare)
    left -= block * (2 * row_bytes + work)
    resident = left // max(1, row_bytes) // _TILE_ROWS * _TILE_ROWS
    return Plan(resident, block, left - resident * row_bytes)


def _tiles(rows: int) -> int:
    return max(1, rows // _TILE_ROWS) * _TILE_ROWS


class _Buffer:
    """Pinned memory, and device memory if needed, of one block; and when each may be rewritten."""

    def __init__(self, device: Device, n_bytes: int, *, is_on_device: bool) -> None:
        self.pinned: Pinned = device.pinned(n_bytes)
        self.memory = device.empty((n_bytes if is_on_device else 0,), "uint8")
        # Memory may have served kernels that are still queued.
        self.computed = device.computed()
        self.copied: Any = None


class HostStream:
    """Matrices on the host as blocks on a device. One pass at a time.

    Parameters
    ----------
    shards : matrices [n_i, d] of NumPy or torch on the CPU, of one dtype.
    dtype : its name.
    device : where blocks are needed.
    plan : of its memory.
    n_threads : threads that copy to pinned memory, at most.
    """

    def __init__(
        self, shards: Sequence[Any], dtype: str, device: Device, plan: Plan, n_threads: int
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
        self._settled = False

    def parts(self) -> Iterator[tuple[slice, Any]]:
        """Blocks of rows in order on the device, with their place in 0 .. n - 1.

        A block is valid until the next one is asked for. Kernels that read it are queued on the
        stream that is current then.
        """
        resident, step = self.plan.resident, self.plan.block
        prefix = list(_places(0, resident, step))
        rest = list(_places(resident, self._n, step))
        if self._settled:
            for place in prefix:
                yield place, self._matrix(self._resident_memory(place), place)
            yield from self._pass(rest)
            return
        self._allocate()
        yield from self._pass(prefix + rest)
        self._settled = True
        if not rest:
            for buffer in self._buffers:
                if buffer.copied is not None:
                    self.device.wait(buffer.copied)
            self._buffers = []

    def _allocate(self) -> None:
        if self._buffers:
            return
        self._resident = self.device.empty((self.plan.resident * self._row_bytes,), "uint8")
        n_bytes = min(self.plan.block, self._n) * self._row_bytes
        is_on_device = self.plan.resident < self._n
        self._buffers = [_Buffer(self.device, n_bytes, is_on_device=is_on_device) for _ in range(2)]

    def _pass(self, places: list[slice]) -> Iterator[tuple[slice, Any]]:
        """Blocks that are copied on the way; those of the resident prefix to where they stay."""
        device, complete = self.device, False
        try:
            for place, buffer in zip(places, self._buffers, strict=False):
                self._stage(buffer, place)
            for i, place in enumerate(places):
                buffer = self._buffers[i % 2]
                device.kernels_wait(buffer.copied)
                yield place, self._matrix(self._memory_of(buffer, place), place)
                buffer.computed = device.computed()
                if i + 2 < len(places):
                    self._stage(buffer, places[i + 2])
            complete = True
        finally:
            if not complete:  # nothing may be copied after the memory is given back
                for buffer in self._buffers:
                    if buffer.copied is not None:
                        device.kernels_wait(buffer.copied)
                        device.wait(buffer.copied)
                    buffer.computed = device.computed()

    def _stage(self, buffer: _Buffer, place: slice) -> None:
        """Fill the pinned memory and queue its copy."""
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
        """Copy rows from `start` on to pinned memory."""
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
            np.copyto(target[done : done + len(rows)], rows)
            if isinstance(rows, np.memmap):
                read_ahead(self._shards[shard][first + len(rows) :][: 2 * self.plan.block])
            done += len(rows)


def _places(first: int, last: int, step: int) -> Iterator[slice]:
    for start in range(first, last, step):
        yield slice(start, min(start + step, last))


def _bits(shard: Any) -> npt.NDArray[Any]:
    """A matrix as NumPy reads it; bfloat16, which NumPy lacks, as integers of 16 bits."""
    if library_of(shard) != "torch":
        return np.asanyarray(shard)
    if dtype_name(shard) == "bfloat16":
        shard = shard.view(sys.modules["torch"].int16)
    return np.asarray(shard.numpy())
