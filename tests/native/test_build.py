"""What the build does without a compiler and on other processors, and what the processor offers."""

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ktfast.native import modules

ROOT = Path(__file__).parents[2]
# Extensions that need the system to save registers of their own, by Linux's names.
LINUX_FLAGS = Path("/proc/cpuinfo")


def flags():
    """The processor's extensions, as the kernel of the operating system lists them."""
    lines = LINUX_FLAGS.read_text().splitlines()
    return set(next(line for line in lines if line.startswith("flags")).split())


@pytest.mark.skipif(
    platform.machine() != "x86_64" or not LINUX_FLAGS.exists(), reason="not Linux on x86-64"
)
def test_the_processor_and_linux_name_the_same_extensions():
    found = modules.cpu.x86_features()
    assert set(found) == {
        *("fma", "f16c", "avx2", "avx512f", "avx512dq", "avx512bw", "avx512vl"),
        *("avx512_vnni", "avx512_bf16", "amx_bf16", "amx_tile", "amx_int8"),
    }
    assert {name for name, there in found.items() if there} == set(found) & flags()


def configured(tmp_path, **environment):
    """Configure the build with a generator that needs no other program."""
    cmake = shutil.which("cmake")
    if cmake is None:
        pytest.skip("there is no cmake on the PATH")
    command = [cmake, "-S", ROOT, "-B", tmp_path / "build", "-G", "Unix Makefiles"]
    command += ["-DCMAKE_MAKE_PROGRAM=/bin/true", f"-DPython_EXECUTABLE={sys.executable}"]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize(
    "environment", [{"PATH": "/nonexistent"}, {"PATH": "/nonexistent", "CXX": "/nonexistent/c++"}]
)
def test_a_missing_compiler_is_one_sentence_with_the_remedy(tmp_path, environment):
    done = configured(tmp_path, **environment)
    assert done.returncode != 0
    message = " ".join(done.stderr.split())
    assert "No working C++ compiler was found" in message
    assert "apt install g++" in message
    assert "CMAKE_CXX_COMPILER" not in message.replace("CMAKE_CXX_COMPILER-NOTFOUND", "")
    assert done.stderr.count("CMake Error") == 1
