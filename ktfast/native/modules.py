"""The compiled modules: `_cpu`, and `_cuda` if the build has it and a device can run it.

No other file of the package imports the two modules.
"""

import functools
import re
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
    """The number of CUDA devices; 0 in a build without CUDA. Never raises an error."""
    module = cuda_module()
    return 0 if module is None else int(module.device_count())


def has_cuda() -> bool:
    """Whether the build has CUDA code for a device of this machine. Never raises an error."""
    return any(map(has_code_for, range(cuda_devices())))


@functools.cache
def covers(architectures: str, capability: int) -> bool:
    """Whether a build has code for a device.

    Machine code ("75-real") runs on its architecture and on later minor versions of it.
    Intermediate code ("75-virtual") runs on every later architecture. "75" stands for both. Code
    for "90a" runs on that architecture only, and code for "100f" on its major version only. Other
    names, such as "native", do not tell the architecture: they count as covering every device, and
    a kernel without code then raises CUDA's own error.

    Parameters
    ----------
    architectures : str
        Architectures in the notation of CMake, such as "75-real 90a-real 120".
    capability : int
        Compute capability of the device, such as 90.

    Returns
    -------
    bool
        Whether the device can run the code.
    """
    return any(_has_code(name, capability) for name in architectures.split())


def _has_code(name: str, capability: int) -> bool:
    """Whether the code of one architecture, such as "90a-real", runs on a device."""
    known = re.fullmatch(r"(\d+)([af]?)(?:-(real|virtual))?", name)
    if known is None:
        return True
    built, kind = int(known[1]), known[3]
    if known[2] == "a":
        return built == capability
    same_major = built // 10 == capability // 10
    fits = built <= capability and (same_major or known[2] != "f")
    return fits and (same_major or kind != "real")


def has_code_for(index: int) -> bool:
    """Whether this build has CUDA code for the device of that number."""
    module = cuda_module()
    return module is not None and covers(module.architectures, module.compute_capability(index))


def cuda(index: int = 0) -> ModuleType:
    """The compiled module `_cuda`, after checking that it can run on the device of that number.

    Raises
    ------
    RuntimeError
        The build has no CUDA, there is no usable device, or the build has no code for this
        device. The message says what to do.
    """
    module = cuda_module()
    if module is None:
        raise RuntimeError(
            "this build of ktfast has no CUDA module; reinstall it with nvcc on the PATH and "
            "KTFAST_CUDA=ON in the environment, or pass arrays on the CPU"
        )
    if cuda_devices() == 0:
        raise RuntimeError(
            "no usable CUDA device was found; check the driver with nvidia-smi, or pass arrays on "
            "the CPU"
        )
    if not has_code_for(index):
        capability = module.compute_capability(index)
        raise RuntimeError(
            f"this build of ktfast has no code for CUDA device {index} (compute capability "
            f"{capability // 10}.{capability % 10}), only for {module.architectures}; reinstall it "
            f"with CUDAARCHS={capability} in the environment, or pass arrays on the CPU"
        )
    return module


def native_of(array: Any) -> ModuleType:
    """The compiled module with the kernels for the array's device.

    Raises
    ------
    RuntimeError
        The array is on a GPU that this build cannot use; see `cuda`.
    """
    kind, index = device_of(array)
    return cpu if kind == "cpu" else cuda(index)


def simd_level() -> str:
    """The instruction-set level of the CPU kernels.

    The environment variable KTFAST_SIMD can choose a lower level than the processor's.

    Returns
    -------
    str
        "scalar", "avx2", "avx512", "amx" for AVX-512 with tile registers, or "neon" on aarch64.

    Raises
    ------
    ValueError
        KTFAST_SIMD names an unknown level, or a level that this processor does not have.
    """
    return str(cpu.simd_level())
