"""Build a copy of ktfast whose AVX-512 and AMX kernels run on any processor with AVX2.

Test fixtures call `build`. As a script, the file takes the folder to build in.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pybind11
import pytest

import ktfast

ROOT = Path(__file__).parents[3]
EMULATION = Path(__file__).parent
PROCESSOR = re.compile(r"KTFAST_(X86|ARM)_")
"""Macros of CMakeLists.txt that say which kernels a build has."""
AVX2_FLAGS = ["-mavx2", "-mfma", "-mf16c"]
AVX512_FLAGS = [
    *(*AVX2_FLAGS, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"),
    *("-mavx512vnni", "-mavx512bf16"),
    # GCC 12 warns about its own headers (GCC bug 105593).
    "-Wno-maybe-uninitialized",
]
AMX_FLAGS = [*AVX512_FLAGS, "-mamx-tile", "-mamx-int8", "-mamx-bf16"]
EMULATION_FLAGS = [*AVX2_FLAGS, f"-I{EMULATION}", "-Wno-psabi"]
# The flags of CMakeLists.txt, except for the level of optimisation.
FLAGS = [
    *("-std=c++17", "-O2", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-pthread"),
    *("-Wall", "-Wextra", "-Werror", "-DKTFAST_X86_SIMD=1", "-DKTFAST_X86_AMX=1"),
    f"-I{ROOT / 'csrc'}",
    *("-isystem", pybind11.get_include(), "-isystem", sysconfig.get_path("include")),
]


def cpu_flags():
    """Return the processor's features, with the names that Linux gives them."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return set(next((line for line in lines if line.startswith("flags")), "").split())


def compiler():
    """Return the path of g++. Skip the test without g++ or without AVX2, FMA and F16C."""
    found = shutil.which("g++")
    if found is None or platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("the AVX-512 emulation needs g++ on x86-64")
    if not {"avx2", "fma", "f16c"} <= cpu_flags():
        pytest.skip("the AVX-512 emulation needs AVX2, FMA and F16C")
    return found


def link(objects, library):
    """Link a shared library and return its path."""
    command = [compiler(), "-shared", "-pthread", *objects, "-o", library]
    subprocess.run(command, check=True)
    return library


def compile_one(source, target, flags):
    """Compile a source file and return the path of the object file."""
    command = [compiler(), *FLAGS, *flags, "-c", source, "-o", target]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


def compile_all(folder, sources, flags_of):
    """Compile source files with their own flags, and return the paths of the object files."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return list(
            pool.map(
                lambda s: compile_one(s, folder / object_name(s.relative_to(ROOT)), flags_of(s)),
                sources,
            )
        )


def flags_of(source):
    """Return a source file's compiler flags. The emulation replaces those of AVX-512 and AMX."""
    folder = source.parent.name
    if folder.startswith("avx512") or folder == "amx":
        return EMULATION_FLAGS
    if folder == "avx2":
        return AVX2_FLAGS
    if source.name == "cpu_features.cpp":
        return ["-include", EMULATION / "processor.h"]
    return []


def object_name(source):
    """Return the name of a source file's object, with the folders, because file names repeat."""
    return "_".join(source.with_suffix(".o").parts)


def x86_sources():
    """Return the source files of the CPU module on x86-64."""
    return [
        source
        for source in (ROOT / "csrc").rglob("*.cpp")
        if source.name != "bind_cuda.cpp" and not source.parent.name.startswith("neon")
    ]


def is_plain(source):
    """Whether a source file is compiled alike for every processor, as most files are.

    A file in csrc/<op>/cpu/<instruction set>/ is not, and neither is one that asks for one.
    """
    folders = ("bindings", "common", "cpu", "scalar")
    return source.parent.name in folders and not PROCESSOR.search(source.read_text())


def build_plain(folder):
    """Compile the source files that are alike for every processor; return the folder."""
    headers = (ROOT / "csrc").rglob("*.h")
    assert not [path for path in headers if PROCESSOR.search(path.read_text())]
    # The bindings take the longest, and half of that time with -O1.
    compile_all(
        folder,
        [source for source in x86_sources() if is_plain(source)],
        lambda source: ["-O1"] if source.parent.name == "bindings" else [],
    )
    return folder


def build(folder, plain=None):
    """Build a copy of the package with the emulated module in a folder for PYTHONPATH.

    `plain` is the folder of `build_plain`. Without it, its files are compiled into `folder`.
    """
    return build_package(folder, x86_sources(), flags_of, plain)


def build_package(folder, sources, flags_of, plain=None):
    """Copy the package to a folder, and compile source files with their own flags to its module."""
    compiler()
    plain = plain or build_plain(folder)
    package = folder / "ktfast"
    left_out = shutil.ignore_patterns("*.so", "__pycache__")
    shutil.copytree(Path(ktfast.__file__).parent, package, ignore=left_out, dirs_exist_ok=True)
    objects = compile_all(folder, [s for s in sources if not is_plain(s)], flags_of)
    objects += [plain / object_name(s.relative_to(ROOT)) for s in sources if is_plain(s)]
    link(objects, package / "native" / f"_cpu{sysconfig.get_config_var('EXT_SUFFIX')}")
    return folder


if __name__ == "__main__":
    build(Path(sys.argv[1]))
