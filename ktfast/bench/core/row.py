"""A row of a benchmark, measured by a function in a process of its own.

`run_row` starts the process, and `main` runs inside it. A row that aborts, hangs or lacks its
library becomes a row that says so, and the other rows are still measured.
"""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

# Prefixes of variables that set the threads or the kernels of numerical libraries. Some
# environments pin these variables to values that halve a library's speed.
_TUNING = ("OPENBLAS_", "GOTO_", "MKL_", "OMP_", "GOMP_", "KMP_", "BLIS_", "THP_MEM_ALLOC_ENABLE")
# The working directory leaves sys.path, because it may hold another ktfast.
# The empty path is the working directory, which PYTHONPATH names if the caller's path has it.
_ROW = (
    "import sys; sys.path = [path for path in sys.path if path];"
    "from ktfast.bench.core.row import main; main(*sys.argv[1:])"
)
# Modules whose distribution has another name.
_PACKAGES = {
    "cuml": "cuml-cu13",
    "cuvs": "cuvs-cu13",
    "cv2": "opencv-python-headless",
    "faiss": "faiss-cpu",
    "flash_kmeans": "flash-kmeans",
    "nvidia": "nvidia-dali-cuda130",
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "sklearnex": "scikit-learn-intelex",
}


def run_row(
    target: str,
    arguments: Mapping[str, Any],
    *,
    threads: int,
    environment: Mapping[str, str] | None = None,
    timeout: float = 600,
) -> dict[str, Any]:
    """Call a function in a new process.

    The process inherits this process's environment without the variables that tune numerical
    libraries (OPENBLAS_*, OMP_*, MKL_* and others), and can import what this process can import.

    Parameters
    ----------
    target : str
        "module:function". The function returns a JSON object.
    arguments : mapping
        Keyword arguments of the function, JSON values.
    threads : int
        OMP_NUM_THREADS of the process.
    environment : mapping of str, optional
        More variables of the process.
    timeout : float, optional
        Seconds after which the process is ended.

    Returns
    -------
    result : dict
        The result of the function, or ``{"problem": text}`` if the process aborted, failed, lasted
        too long or lacks a library.
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
    # Some libraries print something when the process ends, after the result.
    results = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return dict(json.loads(results[-1]))


def _last_line(stderr: str) -> str:
    lines = stderr.strip().splitlines()
    return f": {lines[-1].strip()[:160]}" if lines else ""


def main(target: str, arguments: str) -> None:
    """Call a function in this process and print its result as a line of JSON.

    Parameters
    ----------
    target : str
        "module:function".
    arguments : str
        Keyword arguments of the function, a JSON object.
    """
    module, _, name = target.partition(":")
    try:
        result = getattr(importlib.import_module(module), name)(**json.loads(arguments))
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        result = {"problem": f"missing: pip install {_PACKAGES.get(missing, missing)}"}
    print(flush=True)
    print(json.dumps(result), flush=True)
