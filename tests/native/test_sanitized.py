"""Run tests of the native code on a build with AddressSanitizer and UBSan.

A separate process runs the tests. An access outside an array, a misaligned access or an overflow
of a signed number ends the process.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.sanitized_build import ROOT, build, environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # the first test builds ktfast
TESTS = Path(__file__).parents[1]
LONG = pytest.mark.skipif(
    "KTFAST_TEST_SANITIZE_ALL" not in os.environ,
    reason="takes over five minutes; set KTFAST_TEST_SANITIZE_ALL",
)
PLANTED = """
import numpy as np
from ktfast.native import modules

class Longer:
    # Claims 64 rows more than the array has.
    def __init__(self, array):
        self.array = array
    def __dlpack_device__(self):
        return (1, 0)
    def __dlpack__(self, **_):
        import ctypes
        capsule = self.array.__dlpack__()
        address = ctypes.pythonapi.PyCapsule_GetPointer
        address.restype, address.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
        tensor = address(capsule, b"dltensor")
        shape = ctypes.c_int64.from_address(ctypes.c_int64.from_address(tensor + 24).value)
        shape.value += 64
        return capsule

x = np.ones((4000, 3), np.float32)
modules.cpu.kmeans_ranges(x=Longer(x), largest=np.zeros(3), n_threads=1)
print("not found")
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return build(tmp_path_factory.mktemp("sanitized"))


def run_python(package, *arguments):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=package,
        env=environment(package),
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_planted_overrun_is_found(package):
    done = run_python(package, "-c", PLANTED)
    assert "not found" not in done.stdout
    assert "AddressSanitizer: heap-buffer-overflow" in done.stderr


@pytest.mark.parametrize(
    ("files", "selection"),
    [
        (["native/test_bindings.py"], ""),
        pytest.param(["ops"], "not cuda and not 2_to_31 and not emulated", marks=LONG),
        pytest.param(
            ["kmeans/test_hard_inputs.py", "kmeans/test_bits.py"],
            "not cuda and not emulated",
            marks=LONG,
        ),
    ],
    ids=["bindings", "ops", "kmeans"],
)
def test_native_code_is_clean(package, files, selection):
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={ROOT}"]
    done = run_python(package, *command, "-k", selection, *(TESTS / file for file in files))
    assert done.returncode == 0, f"{done.stdout[-8000:]}\n{done.stderr[-8000:]}"
    assert " passed" in done.stdout
