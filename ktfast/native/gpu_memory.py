"""A GPU's memory for data that lie on the host: allocation, pinned memory, copies beside kernels.

torch holds the memory where it is installed with CUDA, else CuPy. Kernels run on the library's
current stream; copies have a stream of their own, and events order the two without waiting.
"""

import importlib
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ktfast.errors import InputError
from ktfast.native import arrays, modules

Bytes = npt.NDArray[np.uint8]


class Pinned(NamedTuple):
    """Host memory that copies to the device read directly.

    array : uint8 [n], the memory.
    source : what the library copies from; shares the memory.
    """

    array: Bytes
    source: Any


class Device(Protocol):
    """One GPU, as `ktfast.kmeans.streaming` uses it.

    like : an array on the device, by which other arrays are allocated.
    """

    like: Any

    def free_bytes(self) -> int:
        """Memory that an allocation could get now."""

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        """Allocate an array."""

    def from_host(self, array: npt.NDArray[Any]) -> Any:
        """A copy on the device of a NumPy array."""

    def matrix(self, memory: Any, dtype: str, n: int, d: int) -> Any:
        """The first n x d elements of memory uint8 [m] as a matrix."""

    def pinned(self, n_bytes: int) -> Pinned:
        """Allocate pinned host memory."""

    def copy(self, pinned: Pinned, memory: Any, n_bytes: int) -> None:
        """Queue a copy of the first bytes to memory uint8 [m] on the stream of copies."""

    def copied(self) -> Any:
        """An event after all copies that are queued."""

    def computed(self) -> Any:
        """An event after all kernels that are queued."""

    def copies_wait(self, event: Any) -> None:
        """Let later copies start after an event."""

    def kernels_wait(self, event: Any) -> None:
        """Let later kernels start after an event."""

    def wait(self, event: Any) -> None:
        """Wait on the host for an event."""


class TorchDevice:
    """A GPU whose memory torch holds; see `Device`."""

    def __init__(self, torch: ModuleType, index: int) -> None:
        self._torch = torch
        self._device = torch.device("cuda", index)
        self._stream = torch.cuda.Stream(self._device)
        self.like = torch.empty(0, device=self._device)

    def free_bytes(self) -> int:
        """See `Device`; counts what torch keeps for later allocations as free."""
        cuda = self._torch.cuda
        kept = cuda.memory_reserved(self._device) - cuda.memory_allocated(self._device)
        return int(cuda.mem_get_info(self._device)[0] + kept)

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        """See `Device`."""
        return arrays.empty(shape, dtype, like=self.like)

    def from_host(self, array: npt.NDArray[Any]) -> Any:
        """See `Device`."""
        writable = np.require(array, requirements=["C", "W"])  # torch warns of others
        return self._torch.from_numpy(writable).to(self._device)

    def matrix(self, memory: Any, dtype: str, n: int, d: int) -> Any:
        """See `Device`."""
        kind = getattr(self._torch, dtype)
        return memory[: n * d * kind.itemsize].view(kind).view(n, d)

    def pinned(self, n_bytes: int) -> Pinned:
        """See `Device`."""
        source = self._torch.empty(n_bytes, dtype=self._torch.uint8, pin_memory=True)
        return Pinned(source.numpy(), source)

    def copy(self, pinned: Pinned, memory: Any, n_bytes: int) -> None:
        """See `Device`."""
        with self._torch.cuda.stream(self._stream):
            memory[:n_bytes].copy_(pinned.source[:n_bytes], non_blocking=True)

    def copied(self) -> Any:
        """See `Device`."""
        return self._stream.record_event()

    def computed(self) -> Any:
        """See `Device`."""
        return self._torch.cuda.current_stream(self._device).record_event()

    def copies_wait(self, event: Any) -> None:
        """See `Device`."""
        self._stream.wait_event(event)

    def kernels_wait(self, event: Any) -> None:
        """See `Device`."""
        self._torch.cuda.current_stream(self._device).wait_event(event)

    def wait(self, event: Any) -> None:
        """See `Device`."""
        event.synchronize()


class CupyDevice:
    """A GPU whose memory CuPy holds; see `Device`."""

    def __init__(self, cupy: ModuleType, index: int) -> None:
        self._cupy = cupy
        self._device = cupy.cuda.Device(index)
        with self._device:
            self._stream = cupy.cuda.Stream(non_blocking=True)
            self.like = cupy.empty(0)

    def free_bytes(self) -> int:
        """See `Device`; counts what CuPy keeps for later allocations as free."""
        with self._device:
            kept = self._cupy.get_default_memory_pool().free_bytes()
            return int(self._cupy.cuda.runtime.memGetInfo()[0] + kept)

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        """See `Device`."""
        return arrays.empty(shape, dtype, like=self.like)

    def from_host(self, array: npt.NDArray[Any]) -> Any:
        """See `Device`."""
        with self._device:
            return self._cupy.asarray(array)

    def matrix(self, memory: Any, dtype: str, n: int, d: int) -> Any:
        """See `Device`."""
        kind = np.dtype(dtype)
        return memory[: n * d * kind.itemsize].view(kind).reshape(n, d)

    def pinned(self, n_bytes: int) -> Pinned:
        """See `Device`."""
        memory = self._cupy.cuda.alloc_pinned_memory(n_bytes)
        array = np.frombuffer(memory, np.uint8, n_bytes)
        return Pinned(array, array)

    def copy(self, pinned: Pinned, memory: Any, n_bytes: int) -> None:
        """See `Device`."""
        with self._device:
            memory[:n_bytes].set(pinned.source[:n_bytes], stream=self._stream)

    def copied(self) -> Any:
        """See `Device`."""
        with self._device:
            return self._stream.record()

    def computed(self) -> Any:
        """See `Device`."""
        with self._device:
            return self._cupy.cuda.get_current_stream().record()

    def copies_wait(self, event: Any) -> None:
        """See `Device`."""
        with self._device:
            self._stream.wait_event(event)

    def kernels_wait(self, event: Any) -> None:
        """See `Device`."""
        with self._device:
            self._cupy.cuda.get_current_stream().wait_event(event)

    def wait(self, event: Any) -> None:
        """See `Device`."""
        event.synchronize()


def open_device(index: int) -> Device:
    """The GPU of that number, in the first library that can hold its memory.

    Raises
    ------
    RuntimeError : no CUDA module, no usable device, or neither torch with CUDA nor CuPy.
    InputError : there is no device of that number.
    """
    count = modules.cuda_devices()
    if 0 < count <= index:
        raise InputError(
            f"device cuda:{index} was asked for, but there are {count} CUDA devices, counted from "
            "cuda:0"
        )
    modules.cuda(index)
    for name, kind in (("torch", TorchDevice), ("cupy", CupyDevice)):
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        if module.cuda.is_available():
            return kind(module, index)
    raise RuntimeError(
        "rows on the host were to be clustered on a GPU, but neither torch with CUDA nor CuPy is "
        'installed to hold memory there; pip install "ktfast[gpu]", or leave device=None'
    )


def free_bytes(array: Any) -> int:
    """Memory that an allocation beside an array on a GPU could get now."""
    library, index = arrays.library_of(array), arrays.device_of(array)[1]
    module = importlib.import_module(library)
    kind = TorchDevice if library == "torch" else CupyDevice
    return kind(module, index).free_bytes()
