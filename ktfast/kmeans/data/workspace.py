"""Allocation on the device that processes the rows, and copies to and from this device."""

import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from ktfast.kmeans.array_types import Float64
from ktfast.kmeans.data.streaming import HostStream
from ktfast.native.arrays import device_of, empty, in_memory, library_of, on_device
from ktfast.ops.vectors import contiguous


class Workspace:
    """Allocates and copies arrays for the processing of rows.

    A CPU works on NumPy arrays, whichever library the rows belong to. A GPU works on arrays of the
    library that holds the rows there.

    Parameters
    ----------
    like : array
        An array of the rows.
    stream : HostStream or None
        Brings rows on the host to a GPU. None if the rows are processed where they lie.
    results_like : array
        Results are returned in the library and on the device of this array.

    Attributes
    ----------
    on_gpu : bool
        Whether a GPU processes the rows.
    stream : HostStream or None
        As given.
    results_like : array
        As given.
    """

    def __init__(self, like: Any, stream: HostStream | None, results_like: Any) -> None:
        self.on_gpu = stream is not None or device_of(like)[0] == "cuda"
        self.stream = stream
        self._like = like
        self.results_like = results_like
        # The weights that were copied to the GPU last: on the host, and on the GPU.
        self._copied_weights: tuple[Any, Any] = (None, None)

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        """Allocate an array on the device that processes the rows."""
        if self.stream is not None:
            return self.stream.device.empty(shape, dtype)
        return empty(shape, dtype, like=self._like if self.on_gpu else np.empty(0))

    def to_device(self, array: Any) -> Any:
        """Copy a NumPy array to the GPU that processes the rows; a CPU uses the array itself."""
        if not self.on_gpu or not isinstance(array, np.ndarray):
            return array
        if self.stream is not None:
            return self.stream.device.from_host(array)
        if library_of(self._like) == "torch":
            # torch warns about read-only arrays.
            writable = np.require(array, requirements=["C", "W"])
            return sys.modules["torch"].from_numpy(writable).to(self._like.device)
        with on_device(self._like):
            return sys.modules["cupy"].asarray(array)

    def weights(self, weight: Float64 | None) -> Any:
        """Copy weights to the device that processes the rows, once for repeated calls."""
        if weight is None or not self.on_gpu:
            return weight
        if self._copied_weights[0] is not weight:
            self._copied_weights = (weight, self.to_device(weight))
        return self._copied_weights[1]

    def labels_to_library(self, labels: Any) -> Any:
        """Bring labels to the user's library: int64 for torch, whose losses need it, else int32."""
        is_torch = library_of(self.results_like) == "torch"
        return self.to_library(labels, "int64" if is_torch else None)

    def to_library(self, array: Any, dtype: str | None = None) -> Any:
        """Bring a result to the user's library and device, in `dtype` (None: its own dtype)."""
        if dtype is not None:
            with on_device(array):
                array = contiguous(array, dtype)
        like = self.results_like
        if library_of(array) == library_of(like) and device_of(array) == device_of(like):
            return array
        host = to_host(array)
        if library_of(like) == "torch":
            return sys.modules["torch"].from_numpy(host).to(like.device)
        if library_of(like) == "numpy":
            return host
        with on_device(like):
            return sys.modules["cupy"].asarray(host)


def to_host(array: Any) -> npt.NDArray[Any]:
    """Bring an array to NumPy; an array on the CPU shares its memory with the result."""
    if isinstance(array, np.ndarray):
        return array
    if library_of(array) == "torch":
        return np.asarray(array.cpu().numpy())
    return np.asarray(sys.modules["cupy"].asnumpy(array))


def float64_on_host(array: Any) -> Float64:
    """Copy an array of any dtype that the kernels read to a float64 NumPy array."""
    if library_of(array) == "torch":
        # NumPy has no bfloat16. Widening on the host needs no further GPU memory.
        array = in_memory(array).cpu().to(sys.modules["torch"].float64)
    return to_host(array).astype(np.float64)
