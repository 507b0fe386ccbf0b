"""Builds a copy of ktfast whose AVX-512 and AMX kernels run on any processor with AVX2.

Fixtures call it; as a script it takes the folder.
"""

import os
import platform
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
AVX2_FLAGS = ["-mavx2", "-mfma", "-mf16c"]
AVX512_FLAGS = [
    *(*AVX2_FLAGS, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"),
    *("-mavx512vnni", "-mavx512bf16"),
    # GCC 12 warns of its own headers (bug 105593).
    "-Wno-maybe-uninitialized",
]
AMX_FLAGS = [*AVX512_FLAGS, "-mamx-tile", "-mamx-int8", "-mamx-bf16"]
EMULATION_FLAGS = [*AVX2_FLAGS, f"-I{EMULATION}", "-Wno-psabi"]
# As CMakeLists.txt has them, but for the level of optimisation.
FLAGS = [
    *("-std=c++17", "-O2", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-fopenmp"),
    *("-Wall", "-Wextra", "-Werror", "-DKTFAST_X86_SIMD=1", "-DKTFAST_X86_AMX=1"),
    f"-I{ROOT / 'csrc'}",
    *("-isystem", pybind11.get_include(), "-isystem", sysconfig.get_path("include")),
]


def cpu_flags():
    """What the processor can do, as Linux names it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return set(next((line for line in lines if line.startswith("flags")), "").split())


def compiler():
    """The path of g++; skips where there is none or the emulation could not run."""
    found = shutil.which("g++")
    if found is None or platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("the AVX-512 emulation needs g++ on x86-64")
    if not {"avx2", "fma", "f16c"} <= cpu_flags():
        pytest.skip("the AVX-512 emulation needs AVX2, FMA and F16C")
    return found


def link(objects, library):
    """A shared library."""
    command = [compiler(), "-shared", "-fopenmp", *objects, "-o", library]
    subprocess.run(command, check=True)
    return library


def compile_one(source, target, flags):
    """An object file."""
    command = [compiler(), *FLAGS, *flags, "-c", source, "-o", target]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


def flags_of(source):
    """The compiler flags of a file's folder, or those with which the emulation replaces them."""
    folder = source.parent.name
    if folder.startswith("avx512") or folder == "amx":
        return EMULATION_FLAGS
    if folder == "avx2":
        return AVX2_FLAGS
    if source.name == "cpu_features.cpp":
        return ["-include", EMULATION / "processor.h"]
    return []


def object_name(source):
    """The name of a file's object: files of one name lie in several folders."""
    return "_".join(source.with_suffix(".o").parts)


def build(folder):
    """A folder for PYTHONPATH, with a copy of the package and another ktfast.native._cpu."""
    compiler()
    csrc = ROOT / "csrc"
    sources = [s for s in csrc.rglob("*.cpp") if s.name != "bind_cuda.cpp"]
    package = folder / "ktfast"
    left_out = shutil.ignore_patterns("*.so", "__pycache__")
    shutil.copytree(Path(ktfast.__file__).parent, package, ignore=left_out, dirs_exist_ok=True)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        objects = list(
            pool.map(
                lambda s: compile_one(s, folder / object_name(s.relative_to(csrc)), flags_of(s)),
                sources,
            )
        )
    link(objects, package / f"_cpu{sysconfig.get_config_var('EXT_SUFFIX')}")
    return folder


if __name__ == "__main__":
    build(Path(sys.argv[1]))
