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
