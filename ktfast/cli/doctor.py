"""`ktfast doctor`: which parts of ktfast work here, and how to install the others."""

import dataclasses
import importlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata

import ktfast
from ktfast.native import modules
from ktfast.native.quota import quota_cores
from ktfast.native.threads import n_threads, usable_cores
from ktfast.optional import problem_of

# docs/results/speed.md has the measurement.
_DALI = "the DALI feed (on a CPU 1.4 times as fast as Pillow on prepared images; decodes on a GPU)"


@dataclasses.dataclass(frozen=True)
class Finding:
    """One part of the installation or the machine.

    Attributes
    ----------
    name : str
        The part, for example a package.
    on : bool
        Whether the part works.
    detail : str
        Version and use of the part, or the command that installs it.
    required : bool
        Whether ktfast cannot work without the part.
    """

    name: str
    on: bool
    detail: str
    required: bool = False


def examine() -> list[Finding]:
    """Examine the installation, the machine and the optional packages, and change nothing.

    Returns
    -------
    findings : list of Finding
        One finding per part.
    """
    return list(_findings())


def _findings() -> Iterator[Finding]:
    python = sys.version.split()[0]
    yield Finding("ktfast", True, f"{ktfast.__version__} on Python {python}", required=True)
    cores = usable_cores()
    yield Finding("C++ kernels", True, f"{modules.simd_level()} on {cores} cores", required=True)
    yield Finding("CPU threads", True, _threads(), required=True)
    yield from _processes(cores)
    yield _cuda_kernels()
    yield _torch()
    for package, module, part, extra in (
        ("torchvision", "torchvision", "features from torchvision models", "train"),
        ("nvidia-dali-cuda130", "nvidia.dali", _DALI, "train"),
        ("pydantic", "pydantic", "configurations", "train"),
        ("safetensors", "safetensors", "weights on disk", "train"),
        ("matplotlib", "matplotlib", "the report", "train"),
        ("scikit-image", "skimage", "the demo and HOG features", "train"),
        ("cupy-cuda13x", "cupy", "CuPy arrays", "gpu"),
        ("faiss-cpu", "faiss", "comparisons in benchmarks", "bench"),
        ("tensorboard", "tensorboard", "TensorBoard events", ""),
    ):
        yield _package(package, module, part, extra)
    free = shutil.disk_usage(".").free / 1e9
    yield Finding("disk", free > 1, f"{free:.0f} GB free in the current folder")


def _threads() -> str:
    """Describe the threads that run the kernels."""
    quota = quota_cores()
    bounds = "" if quota is None else f", the container's CPU quota allows {quota}"
    return (
        f"{n_threads()} of ktfast's own (no OpenMP){bounds}; a thread without work waits about "
        "20 us and then sleeps"
    )


def _processes(cores: int) -> Iterator[Finding]:
    """Describe what this process gets, if a launcher such as torchrun started several."""
    size = os.environ.get("WORLD_SIZE", "1")
    if size == "1" or "RANK" not in os.environ:
        return
    here = os.environ.get("LOCAL_WORLD_SIZE", size)
    share = max(1, cores // int(here)) if here.isdigit() else 1
    own = f"process {os.environ['RANK']} of {size} has {n_threads()} of {cores} cores"
    variable = os.environ.get("OMP_NUM_THREADS")
    if variable == "1" and share > 1:
        yield Finding(
            "processes",
            False,
            f"{own}, because OMP_NUM_THREADS=1: torchrun sets this value if the variable is not "
            f"set; start torchrun with OMP_NUM_THREADS={share}",
        )
        return
    threads = "OMP_NUM_THREADS is not set" if variable is None else f"OMP_NUM_THREADS={variable}"
    yield Finding("processes", True, f"{own} ({threads})")


def _cuda_kernels() -> Finding:
    if importlib.util.find_spec("ktfast.native._cuda") is None:
        return Finding(
            "CUDA kernels",
            False,
            "not built; put nvcc (CUDA 13) on the PATH and reinstall ktfast with KTFAST_CUDA=ON",
        )
    try:
        modules.cuda()
    except RuntimeError as error:
        return Finding("CUDA kernels", False, f"built, but {error}")
    return Finding("CUDA kernels", True, "built, and a device is present")


def _torch() -> Finding:
    if (problem := problem_of("torch")) is not None:
        broken = f" ({problem})" if problem else ""
        return Finding("torch", False, f"every stage needs torch{broken}: {_remedy('train')}")
    import torch

    where = (
        f"uses {torch.cuda.get_device_name()}"
        if torch.cuda.is_available()
        else f"on the CPU with {torch.get_num_threads()} threads"
    )
    return Finding("torch", True, f"{torch.__version__}, {where}")


def _package(package: str, module: str, part: str, extra: str) -> Finding:
    """Examine an optional package.

    `extra` names ktfast's optional dependencies that include the package. "" means that the package
    is installed by its own name.
    """
    remedy = _remedy(extra) if extra else f"pip install {package}"
    problem = problem_of(module)
    if problem is not None:
        broken = f" ({problem})" if problem else ""
        return Finding(package, False, f"for {part}{broken}: {remedy}")
    found = importlib.import_module(module)
    try:
        version = metadata.version(package)
    except metadata.PackageNotFoundError:  # the module comes from a package of another name
        version = getattr(found, "__version__", "unknown version")
    return Finding(package, True, f"{version}, for {part}")


def _remedy(extra: str) -> str:
    return f'pip install "ktfast[{extra}]"'
