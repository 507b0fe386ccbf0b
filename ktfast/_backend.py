"""The only importer of the native modules, and what ops need to know about arrays.

Arrays of NumPy, torch and CuPy are recognised by the module that defines their type, so neither
torch nor CuPy is imported here: whoever passes such an array has imported it already.
"""

import contextlib
import functools
import os
import sys
from types import ModuleType
from typing import Any, Literal, cast

import numpy as np

from ktfast import _cpu as cpu

__all__ = [
    "as_like",
    "contiguous",
    "covers",
    "cpu",
    "cuda",
    "cuda_devices",
    "device_of",
    "dtype_name",
    "empty",
    "has_cuda",
    "library_of",
    "n_threads",
    "native_of",
    "on_device",
    "simd_level",
    "stream_of",
]

Library = Literal["numpy", "torch", "cupy"]

_MOST_THREADS = 64


@functools.cache
def _cuda_module() -> ModuleType | None:
    try:
        from ktfast import _cuda
    except ImportError:  # a build without CUDA
        return None
    return _cuda


def cuda_devices() -> int:
    """How many CUDA devices there are; 0 for a build without CUDA. Never raises."""
    module = _cuda_module()
    return 0 if module is None else int(module.device_count())


def has_cuda() -> bool:
    """Whether CUDA ops can run: the module was built, with code for a device here. Never raises."""
    return any(map(_has_code_for, range(cuda_devices())))


def covers(architectures: str, capability: int) -> bool:
    """Whether a build has code for a device.

    Parameters
    ----------
    architectures : as CMake was told, such as "75-real 90a-real 120": machine code of an
        architecture runs on later minor versions of it, intermediate code on everything later; what
        ends in "a" runs on that architecture alone.
    capability : of the device, such as 90.
    """
    for name in architectures.split():
        number, _, kind = name.partition("-")
        built = int(number.rstrip("af"))
        if number.endswith("a"):
            fits = built == capability
        else:
            same_major = built // 10 == capability // 10
            fits = built <= capability and (same_major or not number.endswith("f"))
            fits = fits and (same_major or kind != "real")
        if fits:
            return True
    return False


@functools.cache
def _has_code_for(index: int) -> bool:
    module = _cuda_module()
    return module is not None and covers(module.architectures, module.compute_capability(index))


def cuda(index: int = 0) -> ModuleType:
    """The module of CUDA kernels, for a device of that number.

    Raises
    ------
    RuntimeError : it was not built, or not for this device, or there is no usable device; the
        message says what to do.
    """
    module = _cuda_module()
    if module is None:
        raise RuntimeError(
            "this build of ktfast has no CUDA module; reinstall it with nvcc on the PATH and "
            "KTFAST_CUDA=ON in the environment, or pass CPU arrays"
        )
    if cuda_devices() == 0:
        raise RuntimeError(
            "no usable CUDA device was found; check the driver with nvidia-smi, or pass CPU arrays"
        )
    if not _has_code_for(index):
        capability = module.compute_capability(index)
        raise RuntimeError(
            f"this build of ktfast has no code for CUDA device {index} (compute capability "
            f"{capability // 10}.{capability % 10}), only for {module.architectures}; reinstall it "
            f"with CUDAARCHS={capability} in the environment, or pass CPU arrays"
        )
    return module


def library_of(array: Any) -> Library:
    """The library an array belongs to, by the module of its type.

    Raises
    ------
    TypeError : it is no array of NumPy, torch or CuPy.
    """
    for kind in type(array).__mro__:
        name = kind.__module__.partition(".")[0]
        if name == "numpy" and isinstance(array, np.ndarray):
            return "numpy"
        if name == "torch" and kind.__name__ == "Tensor":
            return "torch"
        if name == "cupy" and kind.__name__ == "ndarray":
            return "cupy"
    raise TypeError(f"expected an array of NumPy, torch or CuPy, got {type(array).__name__}")


def device_of(array: Any) -> tuple[Literal["cpu", "cuda"], int]:
    """The device that holds an array: ``("cpu", 0)`` or ``("cuda", index)``.

    Raises
    ------
    TypeError : it is no array of NumPy, torch or CuPy.
    ValueError : it is on a device that ktfast has no kernels for.
    """
    library = library_of(array)
    if library == "cupy":
        return "cuda", int(array.device.id)
    if library == "torch" and array.device.type != "cpu":
        if array.device.type != "cuda":
            raise ValueError(
                f"the array is on device {array.device}; ktfast computes on cpu and cuda, "
                "so move it there first"
            )
        return "cuda", int(array.device.index)
    return "cpu", 0


def native_of(array: Any) -> ModuleType:
    """The module of kernels for the array's device: `cpu`, or the result of `cuda`.

    Raises
    ------
    RuntimeError : see `cuda`.
    """
    kind, index = device_of(array)
    return cpu if kind == "cpu" else cuda(index)


def on_device(array: Any) -> contextlib.AbstractContextManager[Any]:
    """Make the array's GPU the current one for a block; does nothing for arrays on the CPU.

    torch exports arrays of the current GPU only, and CuPy allocates there.
    """
    kind, index = device_of(array)
    if kind == "cpu":
        return contextlib.nullcontext()
    module = sys.modules[library_of(array)]
    device = module.cuda.device if library_of(array) == "torch" else module.cuda.Device
    return cast("contextlib.AbstractContextManager[Any]", device(index))


def stream_of(array: Any) -> int:
    """The address of the stream on which the array's library now queues work on its device."""
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
    shape : lengths of the axes.
    dtype : a NumPy or torch dtype name, such as "float32" or "bfloat16".
    like : array of NumPy, torch or CuPy.

    Raises
    ------
    TypeError : the library has no such dtype; the message says which one does.
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
    """The plain name of a dtype ("float32"), of a NumPy, torch or CuPy array or dtype."""
    if isinstance(array_or_dtype, type):  # np.float32, whose attribute "dtype" is a descriptor
        return str(np.dtype(array_or_dtype).name)
    dtype = getattr(array_or_dtype, "dtype", array_or_dtype)
    text = str(dtype)
    if text.startswith("torch."):
        return text.removeprefix("torch.")
    return str(np.dtype(dtype).name)


def contiguous(array: Any) -> Any:
    """The array itself if its elements lie row-major without gaps, else a copy."""
    library = library_of(array)
    if library == "torch":
        return array.contiguous()
    if library == "cupy":
        with on_device(array):
            return sys.modules["cupy"].ascontiguousarray(array)
    return np.ascontiguousarray(array)


def as_like(array: Any, dtype: str, like: Any) -> Any:
    """Bring an array to a dtype and to the library and device of `like`; copies only if it must.

    Parameters
    ----------
    array : array of NumPy, torch or CuPy, or a sequence of numbers.
    dtype : a dtype name, such as "int64".
    like : array of NumPy, torch or CuPy.
    """
    target = library_of(like)
    if isinstance(array, (list, tuple, range)):
        array = np.asarray(array)
    source = library_of(array)
    if source != target and source == "torch":
        array = array.detach().cpu().numpy()
    elif source != target and source == "cupy":
        array = array.get()
    if target == "torch":
        torch = sys.modules["torch"]
        kind = getattr(torch, dtype)
        if source != target:
            return torch.tensor(np.ascontiguousarray(array), dtype=kind, device=like.device)
        return array.to(device=like.device, dtype=kind).contiguous()
    if target == "cupy":
        cupy = sys.modules["cupy"]
        with cupy.cuda.Device(like.device.id):
            return cupy.ascontiguousarray(cupy.asarray(array, dtype=dtype))
    return np.ascontiguousarray(array, dtype=dtype)


def n_threads(requested: int | None = None) -> int:
    """The number of CPU threads an op uses.

    At most 64, or one per core if there are more: the OpenMP runtime ends the process where it
    cannot start what it is asked for. One in a forked child of a process whose ops ran in threads:
    these do not outlive the fork, and the runtime would wait for them for ever.

    Parameters
    ----------
    requested : at least 1; None: OMP_NUM_THREADS if set, else every core this process may use.

    Raises
    ------
    ValueError : `requested` is not positive.
    """
    if requested is not None and requested < 1:
        raise ValueError(f"n_threads must be at least 1, got {requested}")
    variable = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if requested is None and variable.isdigit() and int(variable) > 0:
        requested = int(variable)
    if _threads.lost:
        return 1
    chosen = _cores() if requested is None else min(int(requested), max(_MOST_THREADS, _cores()))
    _threads.started |= chosen > 1
    return chosen


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Threads:
    """Whether OpenMP's threads were started in this process, and whether a fork lost them."""

    started = False
    lost = False

    def fork(self) -> None:
        self.lost = self.started


_threads = _Threads()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.fork)


def simd_level() -> str:
    """The instruction-set level of the CPU kernels; KTFAST_SIMD lowers it.

    Returns
    -------
    "scalar", "avx2", "avx512" or "amx": AVX-512 with tile registers.

    Raises
    ------
    ValueError : KTFAST_SIMD asks for an unknown level or one that is not available here.
    """
    return str(cpu.simd_level())
