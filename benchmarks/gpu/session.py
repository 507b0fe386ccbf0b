"""Build, test, compare and measure on a machine with one NVIDIA GPU, in bounded time.

    python benchmarks/gpu/session.py [--minutes 5] [--only build,compare,...] [--skip ...]

A session of five minutes does these parts in this order, and keeps time for each of them, so that
no part starves a later one. `build` compiles both native modules for this GPU alone, in place,
while Python imports the libraries for the first time. `paths` runs a small assignment in every code
and on every product path, against stored results. `compare` compares every CUDA op with the CPU's.
`ceilings` measures the device's peak rates, and `bench` and `kmeans` the kernels and K-means.
`end_to_end` trains VGG-16 on puzzles and AlexNet on classes for a few steps, and clusters features.

These parts follow if time is left. `jit` builds the modules for Turing and Ampere, which the driver
compiles for this GPU, and `tests` runs the project's tests of GPU code with all modules. Then come
exactness, streaming, other K-means libraries (`peers`), `profile` with Nsight Compute if `--only`
names it or `--profile` is given, `sanitize` under memcheck, which must also find a planted bug, and
longer trainings (`train`).

Every part runs in a process of its own with a time limit. A part that crashes, hangs or lacks a
library becomes a row of the results, and the other parts still run. The results name every part for
which the time did not suffice. After every part the session writes gpu_session.json and
gpu_session.md into the folder `--out`; gpu_session.log holds everything that the processes print.
The exit status is 1 if a part failed, differed or did not run. `--dry-run` does the same on a CPU
at tiny sizes, in about a minute.

All parts together take longer than ten minutes. These calls divide the work:

    --minutes 5 --wheels FOLDER
    --only build,jit,tests,sanitize,profile --wheels FOLDER
    --only build,ceilings,kmeans:exact,kmeans:stream,peers --wheels FOLDER
    --only build,ceilings,train --wheels FOLDER

The session needs torch, CuPy, NumPy, scikit-learn, pybind11, pytest, CMake, ninja and nvcc, and no
network. It does not use an installed ktfast. `--wheels` names a folder with wheels that the machine
may lack: pybind11 3.0 or later for `build`, pydantic and filelock with their dependencies for
`end_to_end` and `train`, flash-kmeans and fastkmeans for `peers`.
"""

import argparse
import functools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import hardware_tests
import ncu
import sanitize
from plan import COMPARISONS, LIMITS, NOT_DRY, PARTS, chosen, reserved, sections_of
from process import ROOT, Session, tail
from results import Row, Section, json_rows

HERE = Path(__file__).parent
MEASURE = [sys.executable, str(HERE / "measure.py")]
# Imported beside the build, because the first import on a machine reads gigabytes of libraries.
IMPORTS = "import torch, sklearn.cluster, cupy; torch.zeros(1, device='cuda')"
PRODUCTS = ("HMMA", "IMMA", "HGMMA", "IGMMA")  # tensor-core instructions
TEST_SHARE = 0.6  # largest share of the time for tests that one file may take
PLANTED_SECONDS = 30
DRY_TESTS = ("test_philox",)


class Parts:
    """The parts of a session; each part fills a section of the results."""

    def __init__(self, session: Session, arguments: argparse.Namespace) -> None:
        self.session = session
        self.arguments = arguments
        self.dry_run = session.dry_run

    def named(self, name: str) -> Callable[[Section], None]:
        """The part of a name."""
        own = {"build": self.build, "jit": self.jit, "tests": self.tests}
        own |= {"sanitize": self.sanitize, "profile": self.profile}
        return own.get(name) or functools.partial(self.measure, names=sections_of(name))

    def wheels(self, section: Section, folder: Path, target: Path) -> None:
        """Install the wheels of a folder into a target folder, for this session alone."""
        found = sorted(map(str, folder.glob("*.whl")))
        command = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps"]
        command += ["--no-cache-dir", "--target", str(target)]
        for wheel in found:
            _, problem = self.session.run("wheels", [*command, wheel], section.left())
            row: Row = {"wheel": Path(wheel).name}
            section.rows.append(row | ({"error": problem} if problem else {}))
        path = self.session.extended("PYTHONPATH", target)
        self.session.environment["PYTHONPATH"] = path

    def build(self, section: Section) -> None:
        """Build both modules into ktfast/ for this GPU alone, and list the kernels' resources."""
        architecture = self.arguments.architecture or architecture_of(self.session.facts)
        folder = ROOT / "build" / "gpu-session"
        imports = self.session.beside([sys.executable, "-c", IMPORTS])
        steps = {
            "configure": configuration(folder, architecture, "-DKTFAST_INPLACE=ON"),
            "build": ["cmake", "--build", str(folder)],
            "kernels": [sys.executable, str(HERE.parent / "cuda_resources.py"), "--json"],
        }
        output = self.steps(section, steps, architecture)
        imports.kill()  # later processes do the rest
        imports.wait()
        section.rows += kernel_rows(output)

    def jit(self, section: Section) -> None:
        """Build modules of intermediate code, which the driver compiles, for `tests`."""
        modules = ROOT / "build" / "gpu-session-modules"
        for place, architecture in hardware_tests.JIT.items():
            steps = {
                "configure": configuration(modules / place, architecture, "-DKTFAST_INPLACE=OFF"),
                "build": ["cmake", "--build", str(modules / place), "--target", "_cuda"],
            }
            self.steps(section, steps, architecture)
        self.session.environment[hardware_tests.MODULES] = str(modules)

    def steps(self, section: Section, steps: dict[str, list[str]], architecture: str) -> str:
        """Run the steps of a build until one fails; what the last one printed."""
        output = ""
        for step, command in steps.items():
            began = time.monotonic()
            output, problem = self.session.run(section.name, command, section.left())
            section.rows.append(
                {"step": step, "for": architecture, "seconds": time.monotonic() - began}
            )
            if problem:
                section.rows[-1]["error"] = tail(output)
                section.problem = f"{step}: {problem}"
                break
        return output

    def tests(self, section: Section) -> None:
        """Run every test file in its own process, so that a crash or hang stops that file alone."""
        question = [sys.executable, "-c", hardware_tests.FIND_ABSENT, *hardware_tests.TRAINING]
        absent, _ = self.session.run("tests", question, section.left())
        for path in hardware_tests.files(DRY_TESTS if self.dry_run else ()):
            if row := hardware_tests.not_run(path, absent):
                section.rows.append(row)
                continue
            began = time.monotonic()
            seconds = min(TEST_SHARE * LIMITS["tests"], section.left())
            command = hardware_tests.command_of(path, dry_run=self.dry_run)
            found = self.session.run("tests", command, seconds, KTFAST_TEST_NO_EMULATION="1")
            row = hardware_tests.row_of(path, *found)
            section.rows.append(row | {"seconds": time.monotonic() - began})

    def measure(self, section: Section, names: Iterable[str]) -> None:
        """Run sections of measure.py and keep the rows that they print."""
        seconds = section.left()
        command = [*MEASURE, *names]
        command += ["--seed", str(self.arguments.seed), "--seconds", str(max(seconds - 10, 1))]
        command += ["--images", str(self.arguments.images)] if self.arguments.images else []
        command += ["--device", "cpu", "--small"] if self.dry_run else []
        output, section.problem = self.session.run(section.name, command, seconds)
        section.rows = list(json_rows(output))
        if section.problem:
            section.rows.append({"section": section.name, "error": tail(output)})

    def sanitize(self, section: Section) -> None:
        """Run memcheck on the planted bug, which it must find, and on small comparisons."""
        tool, nvcc = (self.session.which(name) for name in ("compute-sanitizer", "nvcc"))
        if tool is None or nvcc is None:
            section.rows.append(self.lacking("compute-sanitizer and nvcc"))
            return
        with tempfile.TemporaryDirectory(prefix="ktfast-planted-") as folder:
            program = str(Path(folder) / sanitize.SOURCE.stem)
            command = [nvcc, "-arch=native", "-o", program, str(sanitize.SOURCE)]
            output, problem = self.session.run("sanitize", command, section.left())
            if problem:
                section.rows.append({"of": "planted bug", "error": tail(output)})
                return
            seconds = min(PLANTED_SECONDS, section.left())
            command = sanitize.command_of(tool, [program])
            found = self.session.run("sanitize", command, seconds)
            section.rows.append(sanitize.planted_row(*found))
        small = [*MEASURE, *COMPARISONS, "--small", *(["--device", "cpu"] if self.dry_run else [])]
        # An allocator that pools memory would hide accesses out of bounds.
        output, problem = self.session.run(
            "sanitize",
            sanitize.command_of(tool, small),
            section.left(),
            PYTORCH_NO_CUDA_MEMORY_CACHING="1",
        )
        cases = len(list(json_rows(output)))
        section.rows.append(sanitize.kernels_row(cases, output, problem))

    def profile(self, section: Section) -> None:
        """Profile the kernels of a fit with Nsight Compute."""
        tool = self.session.which("ncu")
        if tool is None:
            section.rows.append(self.lacking("ncu"))
            return
        program = [*MEASURE, "profile"]
        program += ["--device", "cpu", "--small"] if self.dry_run else []
        command = ncu.command_of(tool, program)
        output, section.problem = self.session.run("profile", command, section.left())
        section.rows = list(ncu.rows(output))
        if not section.rows:
            section.rows.append({"error": f"no kernel was profiled; {tail(output)}"})

    def lacking(self, tools: str) -> Row:
        """The row that names tools missing on the PATH; only a dry run may lack them."""
        return {"instead" if self.dry_run else "error": f"not on the PATH: {tools}"}


# --- builds and names of parts --------------------------------------------------------------------
def configuration(folder: Path, architecture: str, *options: str) -> list[str]:
    """The command that configures a build for one architecture."""
    command = ["cmake", "-S", str(ROOT), "-B", str(folder), "-G", "Ninja"]
    command += ["-DCMAKE_BUILD_TYPE=Release", "-DKTFAST_CUDA=ON", *options]
    command += [f"-DCMAKE_CUDA_ARCHITECTURES={architecture}"]
    return [*command, f"-DPython_EXECUTABLE={sys.executable}"]


def kernel_rows(output: str) -> Iterator[Row]:
    """Rows of the kernels that cuda_resources.py printed, for a table of their own."""
    for line in output.splitlines():
        if line.startswith('{"name"'):
            kernel = json.loads(line)
            products = {name: kernel["instructions"].get(name) for name in PRODUCTS}
            row = {key: kernel[key] for key in ("name", "architecture", "registers")}
            row |= {key: kernel[key] for key in ("shared_bytes", "stack_bytes")}
            yield {"section": "kernels"} | row | {k: v for k, v in products.items() if v}


def architecture_of(facts: dict[str, object]) -> str:
    """CMake's name for this GPU's machine code."""
    capability = str(facts.get("capability", ""))
    return f"{capability.replace('.', '')}-real" if capability else "native"


def planned(parts: Parts, names: list[str]) -> list[tuple[str, Callable[[Section], None]]]:
    """The sections. In a dry run one process measures all parts, because its start is slow."""
    if not parts.dry_run:
        return [(name, parts.named(name)) for name in names]
    names = [name for name in names if name not in NOT_DRY]
    measured = [section for name in names for section in sections_of(name)]
    sections = [(name, parts.named(name)) for name in names if not sections_of(name)]
    if measured:
        sections.insert(0, ("everything", functools.partial(parts.measure, names=measured)))
    return sections


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(os.environ.get("OUT") or "gpu-results"),
        help="folder that receives the results (default: %(default)s)",
    )
    text = f"parts to do, of {', '.join(PARTS)} (default: all but profile)"
    parser.add_argument("--only", default="", metavar="PART,...", help=text)
    parser.add_argument("--skip", default="", metavar="PART,...", help="parts to leave out")
    parser.add_argument("--minutes", type=float, default=9.5, help="limit of the session")
    parser.add_argument("--architecture", help="CMake's name (default: this GPU's)")
    parser.add_argument("--wheels", type=Path, help="folder of wheels to install for this session")
    parser.add_argument("--images", type=Path, help="photographs to train on")
    parser.add_argument("--profile", action="store_true", help="also profile the kernels with ncu")
    parser.add_argument(
        "--seed", type=int, default=time.time_ns() % 2**31, help="seed of the inputs"
    )
    parser.add_argument("--dry-run", action="store_true", help="run on the CPU at tiny sizes")
    return parser.parse_args()


def main() -> int:
    arguments = parsed()
    if not (arguments.profile or "profile" in arguments.only):
        arguments.skip = ",".join(filter(None, (arguments.skip, "profile")))
    names = list(chosen(arguments.only, arguments.skip))
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "gpu_session.log").unlink(missing_ok=True)
    session = Session(
        arguments.out,
        dry_run=arguments.dry_run,
        minutes=arguments.minutes,
        limits=LIMITS,
        more_facts={"seed": arguments.seed},
    )
    parts = Parts(session, arguments)
    with tempfile.TemporaryDirectory(prefix="ktfast-wheels-") as target:
        if arguments.wheels:
            work = functools.partial(parts.wheels, folder=arguments.wheels, target=Path(target))
            session.section("wheels", work)
        sections = planned(parts, names)
        for place, (name, part) in enumerate(sections):
            later = [after for after, _ in sections[place + 1 :]]
            session.section(name, part, reserved=reserved(later, 60 * arguments.minutes))
    print((arguments.out / "gpu_session.md").read_text(encoding="utf-8"))
    return int(any(section.failed() for section in session.sections))


if __name__ == "__main__":
    sys.exit(main())
