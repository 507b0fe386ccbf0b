"""Build, test, compare and measure on a machine with one NVIDIA GPU: one command, bounded time.

    python benchmarks/gpu_session.py [--out gpu-results] [--minutes 9.5] [--sanitize]

It builds both native modules in place for this GPU, runs the ops' tests, compares every CUDA op
with its CPU twin (gpu_compare.py) and times them beside the device's ceilings and plain torch
(gpu_measure.py). Each section is a process with a time limit: what crashes, hangs or is missing
becomes a row of the result and the rest goes on. Results are written after every section to
gpu_session.json and .md, everything the processes print to gpu_session.log. The exit status is 1
if anything failed or differed. `--dry-run` goes the same way without a GPU or a build, in seconds.

Needs torch, CuPy, NumPy, scikit-learn, pybind11, scikit-build-core, pytest, CMake, ninja and nvcc;
no network. An installed ktfast is not used: the checkout's own is.
"""

import argparse
import functools
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path

from gpu_results import Row, Section, write_results

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"
TESTS = ("philox", "bindings", "jigsaw_tiles", "kmeans_assign", "kmeans_update", "kmeans")
OPS = ("jigsaw_tiles", "kmeans_assign", "kmeans_update", "KMeans")
COMPARISONS = tuple(f"compare:{op}" for op in OPS)
BENCHES = ("ceilings", *(f"bench:{op}" for op in OPS))
SECONDS = {"build": 240, "tests": 150, "compare": 45, "ceilings": 30, "bench": 60, "sanitize": 150}
PART = 0.6  # of a section's time, at most, for one of its commands
CLOSING = 3  # seconds left to write the results
PACKAGES = ("torch", "cupy-cuda13x", "numpy", "scikit-learn", "pybind11", "cmake", "ninja")


class Session:
    """Runs commands within the time, and keeps what they say."""

    def __init__(self, out: Path, *, dry_run: bool, minutes: float, seed: int) -> None:
        self.out = out
        self.dry_run = dry_run
        self.began = time.monotonic()
        self.deadline = self.began + 60 * minutes - CLOSING
        self.seed = seed
        self.sections: list[Section] = []
        self.environment = dict(os.environ)
        tools = (str(Path(sys.executable).parent), "/usr/local/cuda/bin")
        self.environment["PATH"] = os.pathsep.join((os.environ.get("PATH", os.defpath), *tools))
        if not dry_run:
            above = os.environ.get("PYTHONPATH")
            self.environment["PYTHONPATH"] = os.pathsep.join(
                [str(ROOT), *([above] if above else [])]
            )
        self.facts = device_facts(dry_run, self.environment["PATH"])

    def which(self, tool: str) -> str | None:
        return shutil.which(tool, path=self.environment["PATH"])

    def run(self, name: str, command: list[str], seconds: float, **more: str) -> tuple[str, str]:
        """The output of a command, and what went wrong ("" if nothing)."""
        if seconds < 1:
            return "", "not run: the time was up"
        with (self.out / "gpu_session.log").open("a+b") as log:
            log.write(f"\n=== {name}: {' '.join(command)}\n".encode())
            log.flush()
            start = log.tell()
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self.environment | more,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=os.setpgrp,  # so that its children end with it
            )
            try:
                code = process.wait(seconds)
                problem = "" if code == 0 else f"exit status {code}"
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                problem = f"stopped after {seconds:.0f} s"
            log.seek(start)
            return log.read().decode(errors="replace"), problem

    def section(self, name: str, work: Callable[[Section], None]) -> None:
        """Do one part of the session, whatever becomes of it, and write the results so far."""
        began = time.monotonic()
        limit = SECONDS[name.partition(":")[0]]
        section = Section(name, ends=min(began + limit, self.deadline))
        try:
            work(section)
        except Exception as error:  # the other sections still count
            section.problem = f"{type(error).__name__}: {error}"
        section.seconds = time.monotonic() - began
        self.sections.append(section)
        state = section.problem or ("something failed" if section.failed() else "ok")
        print(f"{name}: {state}, {section.seconds:.0f} s", flush=True)
        facts = {
            "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            "command": " ".join(["python", *sys.argv]),
            "seed": self.seed,
            "seconds": round(time.monotonic() - self.began),
        }
        write_results(self.out, self.facts | facts, self.sections)

    # --- the parts ------------------------------------------------------------------------------
    def build(self, section: Section, architecture: str) -> None:
        """Both modules into ktfast/, for this GPU alone."""
        folder = ROOT / "build" / "gpu-session"
        configure = ["cmake", "-S", str(ROOT), "-B", str(folder), "-G", "Ninja"]
        configure += ["-DCMAKE_BUILD_TYPE=Release", "-DKTFAST_CUDA=ON", "-DKTFAST_INPLACE=ON"]
        configure += [f"-DCMAKE_CUDA_ARCHITECTURES={architecture}"]
        configure += [f"-DPython_EXECUTABLE={sys.executable}"]
        for step in (configure, ["cmake", "--build", str(folder)]):
            began = time.monotonic()
            output, problem = self.run("build", step, section.left())
            row: Row = {"step": "configure" if step is configure else "build"}
            section.rows.append(row | {"for": architecture, "seconds": time.monotonic() - began})
            if problem:
                section.rows[-1]["error"] = tail(output)
                section.problem = problem
                return

    def tests(self, section: Section) -> None:
        """Every test file by itself, so that a crash or a hang costs no other's result."""
        for name in TESTS[:1] if self.dry_run else TESTS:
            # No strictness: libraries newer than the project has seen may warn, and a plug-in of
            # pytest may be missing; neither is news about the kernels.
            # A dry run tests the ktfast that is installed, not this checkout, which is not built.
            command = [sys.executable, *(["-P"] if self.dry_run else []), "-m", "pytest", "-v"]
            command += [
                "--tb=short",
                "-p",
                "no:cacheprovider",
                "-W",
                "default",
                "-o",
                "addopts=",
                f"tests/test_{name}.py",
            ]
            began = time.monotonic()
            seconds = min(PART * SECONDS["tests"], section.left())
            output, problem = self.run("tests", command, seconds)
            row: Row = {"file": f"test_{name}.py", **count_outcomes(output)}
            section.rows.append(row | {"seconds": time.monotonic() - began})
            if problem:
                reasons = re.findall(r"^(?:FAILED|ERROR) (.*)", output, flags=re.MULTILINE)
                section.rows[-1]["error"] = f"{problem}; " + ("; ".join(reasons) or tail(output))

    def measure(self, section: Section, names: Iterable[str]) -> None:
        """Sections of gpu_measure.py, and what they print."""
        seconds = section.left()
        command = [sys.executable, str(BENCHMARKS / "gpu_measure.py"), *names]
        command += ["--seed", str(self.seed), "--seconds", str(max(seconds - 10, 1))]
        command += ["--device", "cpu", "--small"] if self.dry_run else []
        output, section.problem = self.run(section.name, command, seconds)
        section.rows = list(json_rows(output))
        if section.problem:
            section.rows.append({"section": section.name, "error": tail(output)})

    def sanitize(self, section: Section) -> None:
        """Small comparisons under NVIDIA's checkers of memory accesses and of races."""
        tool = self.which("compute-sanitizer")
        if tool is None:
            section.rows.append({"error": "compute-sanitizer is not on the PATH"})
            return
        for check in ("memcheck", "racecheck"):
            command = [tool, "--tool", check, "--error-exitcode", "9"]
            # torch asks the driver questions that it expects to fail.
            command += ["--report-api-errors", "no"] if check == "memcheck" else []
            command += [sys.executable, str(BENCHMARKS / "gpu_measure.py"), *COMPARISONS, "--small"]
            # An allocator that pools memory would hide accesses out of bounds.
            seconds = min(PART * SECONDS["sanitize"], section.left())
            output, problem = self.run(
                "sanitize", command, seconds, PYTORCH_NO_CUDA_MEMORY_CACHING="1"
            )
            summary = re.search(r"(?:ERROR|RACECHECK) SUMMARY: ((\d+) .*)", output)
            row: Row = {"check": check, "cases": len(list(json_rows(output)))}
            row |= {"errors": int(summary[2]), "summary": summary[1]} if summary else {}
            section.rows.append(row | ({"error": f"{problem}; {tail(output)}"} if problem else {}))


# --- reading what the processes say ---------------------------------------------------------------
def tail(output: str, length: int = 600) -> str:
    """The end of an output, where the reason usually stands."""
    lines = [line.strip() for line in output.splitlines()]
    return " / ".join(line for line in lines if line.strip("^~ "))[-length:]


def json_rows(output: str) -> Iterator[Row]:
    for line in output.splitlines():
        if line.startswith('{"section"') and line.endswith("}"):
            yield json.loads(line)


def count_outcomes(output: str) -> Row:
    """How many tests passed, failed and were skipped, also of a run that was cut short."""
    outcomes = re.findall(r"^\S+::.* (PASSED|FAILED|SKIPPED|ERROR)\b", output, flags=re.MULTILINE)
    return {
        "passed": outcomes.count("PASSED"),
        "failed": outcomes.count("FAILED") + outcomes.count("ERROR"),
        "skipped": outcomes.count("SKIPPED"),
    }


def answer(command: list[str], path: str) -> str:
    """What a tool prints, or why it does not."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=20, env=os.environ | {"PATH": path}
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"unknown ({error})"
    return done.stdout.strip() or f"unknown ({done.stderr.strip()})"


def device_facts(dry_run: bool, path: str) -> dict[str, str]:
    """The device, the versions of what is used on it, and the state of the code."""
    facts = {"device": platform.processor() or platform.machine()}
    if not dry_run:
        query = ["nvidia-smi", "--query-gpu=name,driver_version,compute_cap,memory.total"]
        values = answer([*query, "--format=csv,noheader"], path).split("\n")[0].split(", ")
        facts = dict(zip(("device", "driver", "capability", "memory"), values, strict=False))
        release = re.search(r"release (\S+),", answer(["nvcc", "--version"], path))
        facts["nvcc"] = release[1] if release else "unknown"
    facts["cores"] = str(len(os.sched_getaffinity(0)))
    facts["python"] = platform.python_version()
    for package in PACKAGES:
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            facts[package] = "no package of this name"
    facts["commit"] = answer(["git", "-C", str(ROOT), "describe", "--always", "--dirty"], path)
    return facts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=Path(os.environ.get("OUT") or "gpu-results"), help="folder"
    )
    parser.add_argument("--minutes", type=float, default=9.5, help="the whole session's limit")
    parser.add_argument("--architecture", help="CMake's name; default: this GPU's, machine code")
    parser.add_argument("--sanitize", action="store_true", help="also run compute-sanitizer")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**31, help="of the inputs")
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, tiny sizes, no build")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "gpu_session.log").unlink(missing_ok=True)
    dry_run = arguments.dry_run
    session = Session(
        arguments.out, dry_run=dry_run, minutes=arguments.minutes, seed=arguments.seed
    )

    if not dry_run:
        capability = session.facts.get("capability", "")
        architecture = arguments.architecture or (
            capability.replace(".", "") + "-real" if capability else "native"
        )
        session.section("build", functools.partial(session.build, architecture=architecture))
    session.section("tests", session.tests)
    names = COMPARISONS + BENCHES
    # A dry run shares one process, whose start is most of its time.
    for group in [names] if dry_run else [(name,) for name in names]:
        name = "bench: everything" if dry_run else group[0]
        session.section(name, functools.partial(session.measure, names=group))
    if arguments.sanitize:
        session.section("sanitize", session.sanitize)
    print((arguments.out / "gpu_session.md").read_text(encoding="utf-8"))
    return int(any(section.failed() for section in session.sections))


if __name__ == "__main__":
    sys.exit(main())
