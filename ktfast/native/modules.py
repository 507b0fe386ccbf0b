"""The compiled modules: `_cpu` always, `_cuda` where it was built and a device can run it.

This file is the only importer of the two modules.
"""

import functools
from types import ModuleType
from typing import Any

from ktfast.native import _cpu as cpu
from ktfast.native.arrays import device_of

__all__ = [
    "covers",
    "cpu",
    "cuda",
    "cuda_devices",
    "cuda_module",
    "has_code_for",
    "has_cuda",
    "native_of",
    "simd_level",
]


@functools.cache
def cuda_module() -> ModuleType | None:
    """The compiled module `_cuda`, or None in a build without CUDA."""
    try:
        from ktfast.native import _cuda
    except ImportError:  # a build without CUDA
        return None
    return _cuda


def cuda_devices() -> int:
    """How many CUDA devices there are; 0 for a build without CUDA. Never raises."""
    module = cuda_module()
    return 0 if module is None else int(module.device_count())


def has_cuda() -> bool:
    """Whether CUDA ops can run: the module was built, with code for a device here. Never raises."""
    return any(map(has_code_for, range(cuda_devices())))


@functools.cache
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


def has_code_for(index: int) -> bool:
    """Whether this build has CUDA code for the device of that number."""
    module = cuda_module()
    return module is not None and covers(module.architectures, module.compute_capability(index))


def cuda(index: int = 0) -> ModuleType:
    """The module of CUDA kernels, for a device of that number.

    Raises
    ------
    RuntimeError : it was not built, or not for this device, or there is no usable device; the
        message says what to do.
    """
    module = cuda_module()
    if module is None:
        raise RuntimeError(
            "this build of ktfast has no CUDA module; reinstall it with nvcc on the PATH and "
            "KTFAST_CUDA=ON in the environment, or pass CPU arrays"
        )
    if cuda_devices() == 0:
        raise RuntimeError(
            "no usable CUDA device was found; check the driver with nvidia-smi, or pass CPU arrays"
        )
    if not has_code_for(index):
        capability = module.compute_capability(index)
        raise RuntimeError(
            f"this build of ktfast has no code for CUDA device {index} (compute capability "
            f"{capability // 10}.{capability % 10}), only for {module.architectures}; reinstall it "
            f"with CUDAARCHS={capability} in the environment, or pass CPU arrays"
        )
    return module


def native_of(array: Any) -> ModuleType:
    """The module of kernels for the array's device: `cpu`, or the result of `cuda`.

    Raises
    ------
    RuntimeError : see `cuda`.
    """
    kind, index = device_of(array)
    return cpu if kind == "cpu" else cuda(index)


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
