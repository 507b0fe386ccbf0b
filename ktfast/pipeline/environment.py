"""The environment of a run: versions, processor and device.

`environment.json` in the run folder records the environment, because the last bits of a result
depend on it.
"""

import platform
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import ktfast
from ktfast.config import Config
from ktfast.errors import ConfigError
from ktfast.native.threads import usable_cores

PACKAGES = ("numpy", "scikit-learn", "torch", "torchvision", "nvidia-dali-cuda130")


def describe_environment(config: Config) -> dict[str, Any]:
    """Describe versions, processor, threads and device, as JSON values."""
    import torch

    device = resolve_device(config.device)
    return {
        "ktfast": ktfast.__version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": _processor_name(),
        "threads": config.threads or usable_cores(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu",
        "packages": {package: _version(package) for package in PACKAGES},
    }


def resolve_device(device: str) -> str:
    """Turn the option `device` into the torch device that is used.

    Parameters
    ----------
    device : str
        "auto", "cpu", "cuda" or "cuda:N".

    Returns
    -------
    device : str
        "cpu", "cuda" or "cuda:N".

    Raises
    ------
    ConfigError
        The name is none of these, or torch does not find the device.
    """
    import torch

    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", device):
        raise ConfigError(f"device {device!r} is unknown; give auto, cpu, cuda or cuda:N")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(
            f"device {device!r} was asked for, but torch finds no CUDA device; give device cpu, or "
            "see what `ktfast doctor` says about torch"
        )
    index = device.partition(":")[2]
    if index and int(index) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {device!r} was asked for, but torch finds {torch.cuda.device_count()} CUDA "
            "devices, counted from cuda:0"
        )
    return device


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Let torch use a number of CPU threads for the length of a block; 0 changes nothing."""
    if not threads:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _processor_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()
