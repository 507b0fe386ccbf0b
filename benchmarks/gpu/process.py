"""Commands with time limits, and the facts and sections of a session; session.py uses them."""

import hashlib
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path

from results import Section, write_results

ROOT = Path(__file__).resolve().parents[2]
CLOSING = 3  # seconds kept for writing the results
PACKAGES = ("torch", "cupy-cuda13x", "numpy", "scikit-learn", "pybind11", "cmake", "ninja")


class Session:
    """Runs commands within their time, and writes results and log.

    Parameters
    ----------
    out : Path
        Folder of the results and of the log.
    dry_run : bool
        Use no GPU.
    minutes : float
        Time of the whole session.
    limits : mapping of float
        Seconds of each section, by its name or by its name up to the first colon.
    more_facts : dict, optional
        Facts for the top of the results.
    """

    def __init__(
        self,
        out: Path,
        *,
        dry_run: bool,
        minutes: float,
        limits: Mapping[str, float],
        more_facts: dict[str, object] | None = None,
    ) -> None:
        self.out = out
        self.dry_run = dry_run
        self.began = time.monotonic()
        self.deadline = self.began + 60 * minutes - CLOSING
        self.limits = limits
        self.sections: list[Section] = []
        self.environment = dict(os.environ)
        tools = (str(Path(sys.executable).parent), "/usr/local/cuda/bin")
        self.environment["PATH"] = os.pathsep.join((os.environ.get("PATH", os.defpath), *tools))
        if not dry_run:
            self.environment["PYTHONPATH"] = self.extended("PYTHONPATH", ROOT, first=True)
        self.facts: dict[str, object] = dict(device_facts(dry_run, self.environment["PATH"]))
        self.facts |= more_facts or {}

    def extended(self, variable: str, path: Path, *, first: bool = False) -> str:
        """The value of a variable that lists paths, with one more path."""
        above = [self.environment[variable]] if self.environment.get(variable) else []
        return os.pathsep.join([str(path), *above] if first else [*above, str(path)])

    def which(self, tool: str) -> str | None:
        return shutil.which(tool, path=self.environment["PATH"])

    def run(self, name: str, command: list[str], seconds: float, **more: str) -> tuple[str, str]:
        """Run a command.

        Parameters
        ----------
        name : str
            Name of the section, for the log.
        command : list of str
            The program and its arguments.
        seconds : float
            Time after which the command and its children are stopped.
        **more : str
            More variables of the environment.

        Returns
        -------
        output : str
            What the command printed.
        problem : str
            What went wrong; "" if nothing did.
        """
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
                preexec_fn=os.setpgrp,  # a stop also ends the children
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

    def beside(self, command: list[str]) -> "subprocess.Popen[bytes]":
        """Start a command that runs beside the next parts; nobody waits for it."""
        with (self.out / "gpu_session.log").open("ab") as log:
            return subprocess.Popen(
                command, cwd=ROOT, env=self.environment, stdout=log, stderr=subprocess.STDOUT
            )

    def section(self, name: str, work: Callable[[Section], None], *, reserved: float = 0.0) -> None:
        """Do one part of the session and write the results so far; an error becomes its result.

        Parameters
        ----------
        name : str
            Name of the part.
        work : callable
            Does the part and fills its section.
        reserved : float, default 0
            Seconds at the end of the session that the part must leave to later parts.
        """
        began = time.monotonic()
        limit = self.limits[name] if name in self.limits else self.limits[name.partition(":")[0]]
        section = Section(name, ends=min(began + limit, self.deadline - reserved))
        try:
            if section.left() < 1:
                section.problem = "not run: the time was up"
            else:
                work(section)
        except Exception as error:  # the other sections still run
            section.problem = f"{type(error).__name__}: {error}"
        section.seconds = time.monotonic() - began
        self.sections.append(section)
        state = section.problem or ("something failed" if section.failed() else "ok")
        print(f"{name}: {state}, {section.seconds:.0f} s", flush=True)
        facts = {
            "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            "command": " ".join(["python", *sys.argv]),
            "seconds": round(time.monotonic() - self.began),
        }
        write_results(self.out, self.facts | facts, self.sections)


def tail(output: str, length: int = 600) -> str:
    """The end of an output, which usually names the reason of a failure."""
    lines = [line.strip() for line in output.splitlines()]
    return " / ".join(line for line in lines if line.strip("^~ "))[-length:]


def answer(command: list[str], path: str) -> str:
    """What a tool prints, or why the tool prints nothing."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=20, env=os.environ | {"PATH": path}
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"unknown ({error})"
    return done.stdout.strip() or f"unknown ({done.stderr.strip()})"


def device_facts(dry_run: bool, path: str) -> dict[str, str]:
    """The device, the versions of the libraries, and the state of the code."""
    facts = {"device": platform.processor() or platform.machine()}
    if not dry_run:
        query = ["nvidia-smi", "--query-gpu=name,driver_version,compute_cap,memory.total"]
        values = answer([*query, "--format=csv,noheader"], path).split("\n")[0].split(", ")
        facts = dict(zip(("device", "driver", "capability", "memory"), values, strict=False))
        release = re.search(r"release (\S+),", answer(["nvcc", "--version"], path))
        facts["nvcc"] = release[1] if release else "unknown"
    facts["cores"] = str(len(os.sched_getaffinity(0)))
    facts["python"] = platform.python_version()
    facts |= {package: version for package in PACKAGES if (version := version_of(package))}
    facts["commit"] = answer(["git", "-C", str(ROOT), "describe", "--always", "--dirty"], path)
    facts["sources"] = f"sha256 {sources_hash()}"
    return facts


def version_of(package: str) -> str:
    """The version of a distribution, "" if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def sources_hash() -> str:
    """16 digits of a hash of the sources, which identify the code on a machine without git."""
    digest = hashlib.sha256()
    for folder in ("csrc", "ktfast", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".h", ".cuh", ".cpp", ".cu", ".py"):
                digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]
