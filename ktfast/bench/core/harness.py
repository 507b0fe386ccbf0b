"""What the benchmarks share: the machine, rows in processes of their own, tables, saved results.

A row that aborts, hangs or lacks its library says so in the table; the other rows go on.
"""

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from ktfast import durable
from ktfast.native import modules

# Variables that set the threads or the kernels of numerical libraries. Some environments pin them
# to what halves a library's speed, so a row starts without them.
_TUNING = ("OPENBLAS_", "GOTO_", "MKL_", "OMP_", "GOMP_", "KMP_", "BLIS_", "THP_MEM_ALLOC_ENABLE")
_EXTENSIONS = ("avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "amx_bf16")


class Spread(NamedTuple):
    """A measurement that was repeated."""

    median: float
    least: float
    most: float

    def text(self, digits: int = 3) -> str:
        """The median with its range, such as "0.352 (0.350-0.361)"."""
        return f"{self.median:.{digits}f} ({self.least:.{digits}f}-{self.most:.{digits}f})"


def spread(values: Sequence[float]) -> Spread:
    """Median, least and most of the repeats."""
    return Spread(statistics.median(values), min(values), max(values))


def machine(packages: Iterable[str] = ()) -> dict[str, str]:
    """What the figures were measured on.

    Parameters
    ----------
    packages : distributions whose versions belong beside the figures; those not installed are
        left out.
    """
    model, flags = _processor()
    simd = [modules.simd_level(), *(name for name in _EXTENSIONS if name in flags)]
    facts = {
        "CPU": model,
        "cores": str(len(os.sched_getaffinity(0))),
        "instructions": " ".join(simd),
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB",
        "GPU": _gpu(),
        "load": f"{os.getloadavg()[0]:.1f}",
        "system": platform.platform(terse=True),
        "Python": platform.python_version(),
    }
    return facts | {name: found for name in ("ktfast", *packages) if (found := version_of(name))}


def version_of(package: str) -> str:
    """The version of a distribution, "" if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # also a checkout that is used in place
        return str(getattr(sys.modules.get(package), "__version__", ""))


def _processor() -> tuple[str, set[str]]:
    """The processor's name and its flags, as Linux knows them."""
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
    """Names and driver of the GPUs, without loading a library that would hold one."""
    if shutil.which("nvidia-smi") is None:
        return "none"
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "; ".join(done.stdout.split("\n")[:-1]) if done.returncode == 0 else "none"


# Without the working directory, which may hold another ktfast than this one.
_ROW = "import sys; del sys.path[0]; from ktfast.bench.core.row import main; main(*sys.argv[1:])"


def run_row(
    target: str,
    arguments: Mapping[str, Any],
    *,
    threads: int,
    environment: Mapping[str, str] | None = None,
    timeout: float = 600,
) -> dict[str, Any]:
    """Call a function in a process of its own.

    Parameters
    ----------
    target : "module:function"; the function returns a JSON object.
    arguments : its keyword arguments, JSON values.
    threads : OMP_NUM_THREADS of the process.
    environment : variables set on top of this process's environment, from which those that tune
        numerical libraries (OPENBLAS_*, OMP_*, MKL_* ...) are removed.
    timeout : seconds until the process is ended.

    Returns
    -------
    what the function returned, or ``{"problem": text}``: the process aborted, failed, was stopped
    or lacks a library.
    """
    clean = {key: value for key, value in os.environ.items() if not key.startswith(_TUNING)}
    clean["OMP_NUM_THREADS"] = str(threads)
    clean["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
    command = [sys.executable, "-c", _ROW, target, json.dumps(dict(arguments))]
    try:
        done = subprocess.run(
            command,
            env=clean | dict(environment or {}),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"problem": f"stopped after {timeout:g} s"}
    if done.returncode < 0:
        return {"problem": f"aborted (exit {128 - done.returncode}){_last_line(done.stderr)}"}
    if done.returncode > 0:
        return {"problem": f"failed (exit {done.returncode}){_last_line(done.stderr)}"}
    # Libraries may say something as they are unloaded.
    results = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return dict(json.loads(results[-1]))


def _last_line(stderr: str) -> str:
    lines = stderr.strip().splitlines()
    return f": {lines[-1].strip()[:160]}" if lines else ""


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in GitHub's markdown, padded so that it can be read as it is."""
    cells = [[str(cell).replace("|", "/") for cell in row] for row in (columns, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])


def save(folder: Path, name: str, record: Mapping[str, Any], text: str) -> None:
    """Write `record` as ``<name>.json`` and `text` as ``<name>.md`` into a folder, made if need be.

    Raises
    ------
    OSError : the folder cannot be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    durable.write_json(folder / f"{name}.json", record)
    durable.write_bytes(folder / f"{name}.md", (text.rstrip("\n") + "\n").encode())
