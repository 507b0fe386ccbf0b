"""Build the CUDA kernels for the emulated GPU and call them on NumPy arrays."""

import ctypes
import platform
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[3]
EMULATION = Path(__file__).parent
# Like the CPU module, without fused multiply-adds. Kernels reinterpret arrays as vectors of words,
# so strict aliasing is off. Some intrinsics change the rounding mode. Hidden symbols keep two such
# libraries separate.
FLAGS = [
    *("-std=c++17", "-g1", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-frounding-math"),
    *("-fno-strict-aliasing", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"),
    *("-DKTFAST_CUDA_EMULATION", f"-I{EMULATION}", f"-I{ROOT / 'csrc'}"),
]
# Kernels report every memory access to access_hooks.cpp. The compiler's detectors are not linked.
KERNEL_FLAGS = [
    *("-O1", "-fsanitize=thread", "--param=tsan-instrument-func-entry-exit=0"),
    *("-fsanitize=bounds", "-fsanitize-recover=bounds"),
]
ELEMENTS = ["float32", "float64", "float16", "bfloat16", "uint8", "int8"]  # ElementType
ARENA_BYTES = 1 << 26
GAP = 4096  # bytes between two arrays


def element_of(x):
    """Return the number of an array's dtype. uint16 means bfloat16, which NumPy lacks."""
    return ELEMENTS.index("bfloat16" if x.dtype == np.uint16 else x.dtype.name)


def build(folder):
    """Build the shared library and return its path. Skip the test without g++ on x86-64."""
    compiler = shutil.which("g++")
    if compiler is None or platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("the CUDA emulation needs g++ on x86-64")

    def compile_one(source):
        target = folder / "_".join(source.relative_to(ROOT).with_suffix(".o").parts)
        kernels = source.suffix == ".cu"
        flags = [*FLAGS, *(KERNEL_FLAGS if kernels else ["-O2"])]
        command = [compiler, "-x", "c++", *flags, "-c", source, "-o", target]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return target

    kernels = [*(ROOT / "csrc").glob("*/cuda/**/*.cu"), EMULATION / "self_test.cu"]
    with ThreadPoolExecutor(2) as pool:
        # The emulation comes first, because the linker keeps the first copy of a function.
        objects = list(pool.map(compile_one, [*EMULATION.glob("*.cpp"), *kernels]))
    library = folder / "emulated_cuda.so"
    subprocess.run([compiler, "-shared", *objects, "-o", library, "-ldl"], check=True)
    return library


class EmulatedCuda:
    """Calls the library's functions with NumPy arrays. An error becomes a RuntimeError.

    Arrays are copied to the device's memory and back. The memory is an arena with gaps between the
    arrays.
    """

    def __init__(self, path):
        self.library = ctypes.CDLL(str(path))
        memory = np.empty(ARENA_BYTES, np.uint8)
        self.arena = memory[-memory.ctypes.data % GAP :]

    def set(self, seed=0, capability=90):
        """Choose the order of the threads, and the emulated device's compute capability times 10.

        The seed also draws what uninitialised shared memory holds, how many blocks run together
        and how late asynchronous copies are. The launches so far are forgotten.
        """
        self.seed, self.capability = seed, capability
        self.library.emulation_set(ctypes.c_uint64(seed), capability)

    def launches(self):
        """Return the kernels launched since the last call: names, and threads of a block."""
        function = self.library["emulation_launches"]
        function.restype = ctypes.c_char_p
        lines = function().decode().splitlines()
        pairs = (line.split(" ", 1) for line in lines)
        return [(re.search(r"(\w+_kernel)", name)[1], int(threads)) for threads, name in pairs]

    def size(self, name, *numbers):
        """Return the result of a function of integers."""
        function = self.library[name]
        function.restype = ctypes.c_int64
        return function(*(ctypes.c_int64(n) for n in numbers))

    def call(self, name, *arguments):
        """Call a function with integers (passed as int64), arrays and None (nullptr)."""
        passed, copies, at = [], [], GAP
        for argument in arguments:
            if not isinstance(argument, np.ndarray):
                passed.append(argument if argument is None else ctypes.c_int64(argument))
                continue
            assert argument.flags.c_contiguous
            assert at + argument.nbytes + GAP <= self.arena.size, "the arena is too small"
            place = self.arena[at : at + argument.nbytes]
            place[:] = np.frombuffer(argument, np.uint8)
            passed.append(ctypes.c_void_p(place.ctypes.data))
            copies.append((argument, place))
            at += -(-argument.nbytes // GAP) * GAP + GAP
        known = np.array([(p.ctypes.data, p.size) for _, p in copies], np.int64)
        self.library.emulation_arrays(
            ctypes.c_void_p(self.arena.ctypes.data),
            ctypes.c_int64(self.arena.size),
            ctypes.c_void_p(known.ctypes.data),
            ctypes.c_int64(len(known)),
        )
        function = self.library[name]
        function.restype = ctypes.c_char_p
        error = function(*passed)
        if error is not None:
            raise RuntimeError(error.decode())
        for array, place in copies:
            if array.flags.writeable:
                array.reshape(-1).view(np.uint8)[:] = place

    def kmeans_assign(self, x, centers, element=None):
        """Return labels [n] and squared distances [n]; `element` names the type of uint16 rows."""
        (n, d), k = x.shape, len(centers)
        prepared = np.full(self.size("emulated_kmeans_prepared_size", k, d), np.nan, np.float32)
        self.call("emulated_kmeans_prepare", k, d, centers, prepared)
        labels, distances = np.full(n, -1, np.int32), np.full(n, np.nan)
        kind = ELEMENTS.index(element or x.dtype.name)
        self.call("emulated_kmeans_assign", n, k, d, x, kind, centers, prepared, labels, distances)
        return labels, distances

    def kmeans_update(self, x, labels, k, weight=None, element=None):
        """Return sums [k, d] and counts [k]."""
        n, d = x.shape
        workspace = np.full(self.size("emulated_kmeans_update_workspace_size", n, k), -7, np.int64)
        sums, counts = np.zeros((k, d)), np.zeros(k)
        kind = ELEMENTS.index(element or x.dtype.name)
        self.call(
            "emulated_kmeans_update", n, k, d, x, kind, labels, weight, workspace, sums, counts
        )
        return sums, counts
