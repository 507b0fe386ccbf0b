"""Where rows are worked on and where their results are wanted: in NumPy, or on a GPU."""

import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from ktfast.kmeans.streaming import HostStream
from ktfast.native.arrays import device_of, empty, library_of, on_device
from ktfast.ops.vectors import contiguous

Float64 = npt.NDArray[np.float64]


class Place:
    """Brings arrays to the rows, and results to the user.

    Parameters
    ----------
    like : an array of the rows.
    stream : that brings them to a GPU; None: they are worked on where they lie.
    results_like : an array in whose library and on whose device results are wanted.

    Attributes
    ----------
    on_gpu : whether a GPU works on the rows.
    """

    def __init__(self, like: Any, stream: HostStream | None, results_like: Any) -> None:
        self.like = like
        self.on_gpu = stream is not None or device_of(like)[0] == "cuda"
        self._stream = stream
        self._results_like = results_like

    def to_device(self, array: Any) -> Any:
        """Copy a CPU array to the rows' GPU; CPU work stays in NumPy whatever the library."""
        if not self.on_gpu or not isinstance(array, np.ndarray):
            return array
        if self._stream is not None:
            return self._stream.device.from_host(array)
        if library_of(self.like) == "torch":
            writable = np.require(array, requirements=["C", "W"])  # torch warns of others
            return sys.modules["torch"].from_numpy(writable).to(self.like.device)
        with on_device(self.like):
            return sys.modules["cupy"].asarray(array)

    def to_library(self, array: Any, dtype: str | None = None) -> Any:
        """Bring a result of a dtype (None: its own) to the library and device of the rows."""
        if dtype is not None:
            with on_device(array):
                array = contiguous(array, dtype)
        like = self._results_like
        if library_of(array) == library_of(like) and device_of(array) == device_of(like):
            return array
        host = to_host(array)
        if library_of(like) == "torch":
            return sys.modules["torch"].from_numpy(host).to(like.device)
        if library_of(like) == "numpy":
            return host
        with on_device(like):
            return sys.modules["cupy"].asarray(host)

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        """Allocate where the rows are worked on: NumPy, or on the rows' GPU."""
        if self._stream is not None:
            return self._stream.device.empty(shape, dtype)
        return empty(shape, dtype, like=self.like if self.on_gpu else np.empty(0))


def to_host(array: Any) -> npt.NDArray[Any]:
    """A NumPy array with the same content; shares memory with what is on the CPU already."""
    if isinstance(array, np.ndarray):
        return array
    if library_of(array) == "torch":
        return np.asarray(array.cpu().numpy())
    return np.asarray(sys.modules["cupy"].asnumpy(array))


def float64_on_host(array: Any) -> Float64:
    """A float64 NumPy copy of an array of any dtype the kernels read."""
    if library_of(array) == "torch":  # NumPy has no bfloat16, and a GPU no room for wider numbers
        array = array.detach().cpu().to(sys.modules["torch"].float64)
    return to_host(array).astype(np.float64)
