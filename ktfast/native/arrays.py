"""Arrays of NumPy, torch and CuPy: library, device, stream, allocation and conversion.

This file imports neither torch nor CuPy. It finds the library of an array by the module that
defines the array's type; a caller who passes such an array has already imported its library.
"""

import contextlib
import functools
import sys
from typing import Any, Literal, cast

import numpy as np

from ktfast.native.lazy_rows import LazyRows

__all__ = [
    "as_like",
    "contiguous",
    "device_of",
    "dtype_name",
    "empty",
    "in_memory",
    "library_of",
    "on_device",
    "stream_of",
]

Library = Literal["numpy", "torch", "cupy"]


def library_of(array: Any) -> Library:
    """The library that an array belongs to: "numpy", "torch" or "cupy".

    Raises
    ------
    TypeError
        The object is no array of NumPy, torch or CuPy.
    """
    kind = type(array)
    library = _found[kind] if kind in _found else _library_of_type(kind)
    if library is None:
        raise TypeError(f"expected an array of NumPy, torch or CuPy, got {type(array).__name__}")
    return library


_found: dict[type, Library] = {}  # by type, since small fits ask hundreds of times


def _library_of_type(kind: type) -> Library | None:
    """The library that defines a type of arrays or one of the type's bases, None if none does."""
    if issubclass(kind, np.ndarray | LazyRows):  # blocks of lazy rows are arrays of NumPy
        return _found.setdefault(kind, "numpy")
    for base in kind.__mro__:
        name = base.__module__.partition(".")[0]
        if name == "torch" and base.__name__ == "Tensor":
            return _found.setdefault(kind, "torch")
        if name == "cupy" and base.__name__ == "ndarray":
            return _found.setdefault(kind, "cupy")
    return None


def device_of(array: Any) -> tuple[Literal["cpu", "cuda"], int]:
    """The device that holds an array: ``("cpu", 0)`` or ``("cuda", index)``.

    Raises
    ------
    TypeError
        The object is no array of NumPy, torch or CuPy.
    ValueError
        The array is on a device that ktfast has no kernels for.
    """
    library = library_of(array)
    if library == "cupy":
        return "cuda", int(array.device.id)
    if library == "torch" and array.device.type != "cpu":
        if array.device.type != "cuda":
            raise ValueError(
                f"the array is on device {array.device}, but ktfast computes on cpu and cuda only; "
                "move the array to one of these devices"
            )
        return "cuda", int(array.device.index)
    return "cpu", 0


def on_device(array: Any) -> contextlib.AbstractContextManager[Any]:
    """Make the array's GPU the current GPU of its library inside a `with` block.

    torch exports only arrays of the current GPU, and CuPy allocates on the current GPU. The block
    changes nothing for arrays on the CPU.
    """
    kind, index = device_of(array)
    if kind == "cpu":
        return contextlib.nullcontext()
    module = sys.modules[library_of(array)]
    device = module.cuda.device if library_of(array) == "torch" else module.cuda.Device
    return cast("contextlib.AbstractContextManager[Any]", device(index))


def stream_of(array: Any) -> int:
    """The address of the stream on which the array's library queues work for the array's GPU."""
    index = device_of(array)[1]
    if library_of(array) == "torch":
        return int(sys.modules["torch"].cuda.current_stream(index).cuda_stream)
    cupy = sys.modules["cupy"]
    with cupy.cuda.Device(index):
        return int(cupy.cuda.get_current_stream().ptr)


def empty(shape: tuple[int, ...], dtype: str, like: Any) -> Any:
    """Allocate an array in the library and on the device of `like`.

    Parameters
    ----------
    shape : tuple of int
        Lengths of the axes.
    dtype : str
        Name of a dtype of NumPy or torch, such as "float32" or "bfloat16".
    like : array
        Array of NumPy, torch or CuPy.

    Returns
    -------
    array
        Array whose values are not initialised.

    Raises
    ------
    TypeError
        The library has no such dtype.
    """
    library = library_of(like)
    if library == "torch":
        torch = sys.modules["torch"]
        return torch.empty(shape, dtype=getattr(torch, dtype), device=like.device)
    if dtype == "bfloat16":
        raise TypeError(
            "NumPy and CuPy have no bfloat16; pass torch tensors, or ask for float16 or float32"
        )
    if library == "cupy":
        cupy = sys.modules["cupy"]
        with cupy.cuda.Device(like.device.id):
            return cupy.empty(shape, dtype=dtype)
    return np.empty(shape, dtype=dtype)


def dtype_name(array_or_dtype: Any) -> str:
    """The name of the dtype of an array, or of a dtype, without its library: "float32"."""
    if isinstance(array_or_dtype, type):  # such as np.float32, whose attribute `dtype` is no dtype
        return str(np.dtype(array_or_dtype).name)
    dtype = getattr(array_or_dtype, "dtype", array_or_dtype)
    if isinstance(dtype, np.dtype):
        return _numpy_name(dtype)
    text = str(dtype)
    if text.startswith("torch."):
        return text.removeprefix("torch.")
    return str(np.dtype(dtype).name)


@functools.lru_cache(maxsize=128)
def _numpy_name(dtype: np.dtype[Any]) -> str:
    return str(dtype.name)


def in_memory(tensor: Any) -> Any:
    """A torch tensor without its graph, whose memory holds its values.

    torch negates some tensors lazily, such as the imaginary part of a conjugate: the memory then
    holds the negated values. Such a tensor is copied; every other tensor keeps its memory.
    """
    return (tensor.detach() if tensor.requires_grad else tensor).resolve_neg()


def contiguous(array: Any, dtype: str | None = None) -> Any:
    """The array itself if kernels can read its memory as it lies, else a copy that they can read.

    Kernels read elements that are row-major without gaps, aligned and of native byte order.

    Parameters
    ----------
    array : array
        Array of NumPy, torch or CuPy. A torch tensor is detached from its graph.
    dtype : str, optional
        Name of the dtype that the result must have. None keeps the dtype of `array`.

    Returns
    -------
    array
        Array of the same shape, library and device.
    """
    library = library_of(array)
    if library == "torch":
        kind = array.dtype if dtype is None else getattr(sys.modules["torch"], dtype)
        return in_memory(array).to(kind).contiguous()
    name = dtype_name(array) if dtype is None else dtype
    if library == "numpy":
        return np.require(array, dtype=np.dtype(name), requirements=["C", "A"])
    with on_device(array):  # CuPy copies on the current GPU, which may not hold the array
        return sys.modules["cupy"].ascontiguousarray(array, dtype=name)


def as_like(array: Any, dtype: str, like: Any) -> Any:
    """Convert an array to a dtype and to the library and device of `like`.

    Parameters
    ----------
    array : array or sequence of numbers
        Array of NumPy, torch or CuPy, or a list, tuple or range.
    dtype : str
        Name of a dtype, such as "int64".
    like : array
        Array of NumPy, torch or CuPy.

    Returns
    -------
    array
        `array` itself if it fits already and is row-major without gaps, else a copy.
    """
    target = library_of(like)
    if isinstance(array, (list, tuple, range)):
        array = np.asarray(array)
    source = library_of(array)
    if source != target and source == "torch":
        array = in_memory(array).cpu().numpy()
    elif source != target and source == "cupy":
        array = array.get()
    if target == "torch":
        torch = sys.modules["torch"]
        kind = getattr(torch, dtype)
        if source != target:
            return torch.tensor(np.ascontiguousarray(array), dtype=kind, device=like.device)
        return array.resolve_neg().to(device=like.device, dtype=kind).contiguous()
    if target == "cupy":
        cupy = sys.modules["cupy"]
        with cupy.cuda.Device(like.device.id):
            return cupy.ascontiguousarray(cupy.asarray(array, dtype=dtype))
    return np.ascontiguousarray(array, dtype=dtype)
