"""The machine, the command and the library versions that figures belong to."""

import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from ktfast.native import modules
from ktfast.native.threads import usable_cores

_EXTENSIONS = ("avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "amx_bf16")


def stamp(packages: Iterable[str], program: str = "ktfast") -> dict[str, Any]:
    """Date, command and machine of a measurement, the first entries of every record.

    Parameters
    ----------
    packages : iterable of str
        Distributions whose versions belong beside the figures.
    program : str, optional
        What a person types before the arguments of this process.

    Returns
    -------
    facts : dict
        The keys "date", "command" and "machine".
    """
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "command": shlex.join([*program.split(), *sys.argv[1:]]),
        "machine": machine(packages),
    }


def machine(packages: Iterable[str] = ()) -> dict[str, str]:
    """Processor, memory, GPU, load and versions.

    Parameters
    ----------
    packages : iterable of str, optional
        Distributions whose versions are wanted. Distributions that are not installed are left out.

    Returns
    -------
    facts : dict of str
        A text for each fact.
    """
    model, flags = _processor()
    simd = [modules.simd_level(), *(name for name in _EXTENSIONS if name in flags)]
    facts = {
        "CPU": model,
        "cores": str(usable_cores()),
        "instructions": " ".join(simd),
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB",
        "GPU": _gpu(),
        "load": f"{os.getloadavg()[0]:.1f}",
        "system": platform.platform(terse=True),
        "Python": platform.python_version(),
    }
    return facts | {name: found for name in ("ktfast", *packages) if (found := version_of(name))}


def version_of(package: str) -> str:
    """The version of a distribution, "" if the distribution is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # a checkout that is used in place has no metadata
        return str(getattr(sys.modules.get(package), "__version__", ""))


def _processor() -> tuple[str, set[str]]:
    """The processor's name and its flags, from Linux's /proc/cpuinfo."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine(), set()
    lines = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    facts = {key.strip(): value.strip() for key, _, value in lines}
    name = facts.get("model name", platform.machine())
    if "cpu family" in facts:
        name += f" (family {facts['cpu family']}, model {facts['model']})"
    return name, set(facts.get("flags", "").split())


def _gpu() -> str:
    """Names and driver of the GPUs, from nvidia-smi: a CUDA library would occupy the GPU."""
    if shutil.which("nvidia-smi") is None:
        return "none"
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "; ".join(done.stdout.split("\n")[:-1]) if done.returncode == 0 else "none"
