"""The project's tests of GPU code: their files, the command, and the outcomes as a row."""

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from process import ROOT, tail
from results import Row

# A file has tests of GPU code if a test takes a fixture that can be a GPU, or if it names CUDA.
ON_GPU = re.compile(r"def test_\w+\([^)]*\b(backend|device|gpu)\b|has_cuda|\"cuda\"")
ALSO = ("test_philox", "test_bindings", "test_estimator")
# Builds of intermediate code by their folders, and the variable that names the parent folder; see
# tests/support/hardware_kernels.py.
JIT = {"jit75": "75-virtual", "jit80": "80-virtual"}
MODULES = "KTFAST_TEST_CUDA_MODULES"
# Tests of trainings import these libraries too, which a machine for kernels may lack.
TRAINING = ("PIL", "filelock", "jinja2", "matplotlib", "pydantic", "safetensors", "tomli_w")
OF_TRAINING = re.compile("(training|voc)/")
FIND_ABSENT = """
import importlib.util
import sys
print(*(name for name in sys.argv[1:] if not importlib.util.find_spec(name)))
"""
NOT_ON_GPU = re.compile("(bench|benchmarks|emulation)/|native/test_backend|test_layering")


def files(names: Iterable[str] = ()) -> list[Path]:
    """The test files with the given names; without names, all test files about a GPU."""
    tests = ROOT / "tests"
    found = sorted(tests.rglob("test_*.py"))
    if names:
        return [path for path in found if path.stem in names]
    likely = [path for path in found if not NOT_ON_GPU.match(path.relative_to(tests).as_posix())]
    return [path for path in likely if path.stem in ALSO or ON_GPU.search(path.read_text())]


def command_of(path: Path, *, dry_run: bool) -> list[str]:
    """The command that runs a test file.

    A dry run tests the ktfast that Python finds, because this checkout may not be built.
    """
    command = [sys.executable, *(["-P"] if dry_run else []), "-m", "pytest", "-v", "--tb=short"]
    # Without pytest's strict options, tests of the kernels also run if newer libraries warn or a
    # plug-in of pytest is missing.
    command += ["-p", "no:cacheprovider", "-W", "default", "-o", "addopts="]
    command += ["--import-mode=importlib"]
    # CPU variants need no GPU and are left out, except tests that compare a GPU with the CPU's bits
    # (names with cpu_s).
    command += ["-k", "not cpu or cpu_s"]
    return [*command, str(path.relative_to(ROOT))]


def not_run(path: Path, absent: str) -> Row | None:
    """The row of a test file that needs libraries which are absent; None if nothing is lacking.

    Parameters
    ----------
    path : Path
        The test file.
    absent : str
        The names in `TRAINING` that Python does not find, separated by spaces.
    """
    name = path.relative_to(ROOT / "tests").as_posix()
    if not absent.strip() or not OF_TRAINING.match(name):
        return None
    wheels = ", ".join(absent.split())
    return {"file": f"tests/{name}", "instead": f"not run: needs the wheels of {wheels}"}


def row_of(path: Path, output: str, problem: str) -> Row:
    """The outcomes of a test file, and the reasons of failures."""
    row: Row = {"file": path.relative_to(ROOT).as_posix(), **count_outcomes(output)}
    if problem:
        reasons = re.findall(r"^(?:FAILED|ERROR) (.*)", output, flags=re.MULTILINE)
        row["error"] = f"{problem}; " + ("; ".join(reasons) or tail(output))
    return row


def count_outcomes(output: str) -> Row:
    """The number of tests that passed, failed and were skipped, also in a run cut short."""
    outcomes = re.findall(r"^\S+::.* (PASSED|FAILED|SKIPPED|ERROR)\b", output, flags=re.MULTILINE)
    return {
        "passed": outcomes.count("PASSED"),
        "failed": outcomes.count("FAILED") + outcomes.count("ERROR"),
        "skipped": outcomes.count("SKIPPED"),
    }
