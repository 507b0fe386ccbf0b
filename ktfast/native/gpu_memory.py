"""GPU memory for rows that lie in host memory: allocation, pinned memory and copies.

torch allocates the memory if it is installed with CUDA, else CuPy does. Kernels run on the current
stream of the library, and copies run on a second stream. Events order the two streams without
making the host wait.
"""

import importlib
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ktfast.errors import InputError
from ktfast.native import arrays, modules
from ktfast.optional import problem_of

Bytes = npt.NDArray[np.uint8]


class Pinned(NamedTuple):
    """Pinned host memory, which the GPU can read directly.

    Attributes
    ----------
    array : array, uint8 [n]
        The memory as an array of NumPy.
    source : array, uint8 [n]
        The same memory as an object that the library copies from.
    """

    array: Bytes
    source: Any


class Device(Protocol):
    """One GPU that holds rows for `ktfast.kmeans`.

    Attributes
    ----------
    like : array
        Array on the device. Pass it as `like` to `ktfast.native.arrays.empty`.
    """

    like: Any

    def free_bytes(self) -> int:
        """The number of bytes that can be allocated now."""

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        """Allocate an array."""

    def from_host(self, array: npt.NDArray[Any]) -> Any:
        """Copy an array of NumPy to the device."""

    def matrix(self, memory: Any, dtype: str, n: int, d: int) -> Any:
        """View the first n x d elements of memory uint8 [m] as a matrix."""

    def pinned(self, n_bytes: int) -> Pinned:
        """Allocate pinned host memory."""

    def copy(self, pinned: Pinned, memory: Any, n_bytes: int) -> None:
        """Queue a copy of `n_bytes` pinned bytes to GPU memory uint8 [m], on the copies' stream."""

    def copied(self) -> Any:
        """An event after all copies that have been queued."""

    def computed(self) -> Any:
        """An event after all kernels that have been queued."""

    def copies_wait(self, event: Any) -> None:
        """Make later copies wait for an event; the host does not wait."""

    def kernels_wait(self, event: Any) -> None:
        """Make later kernels wait for an event; the host does not wait."""

    def wait(self, event: Any) -> None:
        """Make the host wait for an event."""


class TorchDevice:
    """A GPU whose memory torch allocates; see `Device`."""

    def __init__(self, torch: ModuleType, index: int) -> None:
        self._torch = torch
        self._device = torch.device("cuda", index)
        self._stream = torch.cuda.Stream(self._device)
        self.like = torch.empty(0, device=self._device)

    def free_bytes(self) -> int:
        """See `Device`; memory that torch keeps for later allocations counts as free."""
        cuda = self._torch.cuda
        kept = cuda.memory_reserved(self._device) - cuda.memory_allocated(self._device)
        return int(cuda.mem_get_info(self._device)[0] + kept)

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        """See `Device`."""
        return arrays.empty(shape, dtype, like=self.like)

    def from_host(self, array: npt.NDArray[Any]) -> Any:
        """See `Device`."""
        writable = np.require(array, requirements=["C", "W"])  # torch warns about read-only arrays
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
    """A GPU whose memory CuPy allocates; see `Device`."""

    def __init__(self, cupy: ModuleType, index: int) -> None:
        self._cupy = cupy
        self._device = cupy.cuda.Device(index)
        with self._device:
            self._stream = cupy.cuda.Stream(non_blocking=True)
            self.like = cupy.empty(0)

    def free_bytes(self) -> int:
        """See `Device`; memory that CuPy keeps for later allocations counts as free."""
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
    """Open the GPU of that number with torch, or with CuPy if torch cannot use it.

    Raises
    ------
    RuntimeError
        The build has no CUDA module, there is no usable device, or neither torch with CUDA nor CuPy
        is installed.
    InputError
        There is no device of that number.
    """
    count = modules.cuda_devices()
    if 0 < count <= index:
        raise InputError(
            f"device cuda:{index} was asked for, but there are {count} CUDA devices; choose one of "
            f"cuda:0 to cuda:{count - 1}"
        )
    modules.cuda(index)
    for name, kind in (("torch", TorchDevice), ("cupy", CupyDevice)):
        if problem_of(name) is not None:
            continue
        module = importlib.import_module(name)
        if module.cuda.is_available():
            return kind(module, index)
    raise RuntimeError(
        "a GPU was asked to cluster rows in host memory, but neither torch with CUDA nor CuPy is "
        'installed to allocate GPU memory; pip install "ktfast[gpu]", or pass device=None'
    )


def free_bytes(array: Any) -> int:
    """The number of bytes that can be allocated now on the GPU of an array."""
    library, index = arrays.library_of(array), arrays.device_of(array)[1]
    module = importlib.import_module(library)
    kind = TorchDevice if library == "torch" else CupyDevice
    return kind(module, index).free_bytes()
