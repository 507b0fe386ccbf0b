"""Builds the CUDA kernels for the emulation of cuda_emulation/ and calls them on NumPy arrays."""

import ctypes
import platform
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
EMULATION = Path(__file__).parent / "cuda_emulation"
# As the CPU module, without contraction. Kernels reinterpret arrays as vectors of words, and the
# intrinsics of stated rounding change the mode. Hidden symbols keep two such libraries apart.
FLAGS = (
    "-std=c++17 -O1 -g1 -fPIC -fvisibility=hidden -ffp-contract=off -frounding-math "
    "-fno-strict-aliasing -Wall -Wextra -Werror -Wno-unknown-pragmas -DKTFAST_CUDA_EMULATION"
).split()
SANITIZE = ["-fsanitize=address,bounds", "-fno-sanitize-recover=bounds"]
ELEMENTS = ["float32", "float64", "float16", "bfloat16", "uint8", "int8"]  # ElementType


def sources():
    """The kernels as they are, the C layer, and the emulation's own test kernels."""
    return [*(ROOT / "csrc").glob("*/*_cuda.cu"), *EMULATION.glob("*.cpp")]


def build(folder, sanitize=False):
    """The path of the shared library; skips where it cannot be built."""
    compiler = shutil.which("g++")
    if compiler is None or platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("the CUDA emulation needs g++ on x86-64")
    flags = [*FLAGS, *(SANITIZE if sanitize else []), f"-I{EMULATION}", f"-I{ROOT / 'csrc'}"]

    def compile_one(source):
        target = folder / (source.stem + ".o")
        command = [compiler, "-x", "c++", *flags, "-c", source, "-o", target]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return target

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_one, sources()))
    library = folder / "emulated_cuda.so"
    subprocess.run([compiler, *flags, "-shared", *objects, "-o", library, "-ldl"], check=True)
    return library


def address(array):
    """A pointer argument: None is nullptr."""
    if array is None:
        return None
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)


class EmulatedCuda:
    """The library's functions; arrays are NumPy's, and what goes wrong is a RuntimeError."""

    def __init__(self, path):
        self.library = ctypes.CDLL(str(path))

    def set(self, seed=0, capability=90):
        """Choose the order of the threads, and the emulated device's compute capability times 10.

        The seed also draws what uninitialised shared memory holds, how many blocks run together
        and how late asynchronous copies are.
        """
        self.library.emulation_set(ctypes.c_uint64(seed), capability)

    def size(self, name, *numbers):
        function = self.library[name]
        function.restype = ctypes.c_int64
        return function(*(ctypes.c_int64(n) for n in numbers))

    def call(self, name, *arguments):
        """Call a function with integers (as int64), arrays and None."""
        function = self.library[name]
        function.restype = ctypes.c_char_p
        error = function(
            *(
                ctypes.c_int64(a) if isinstance(a, int) else a if _is_ctypes(a) else address(a)
                for a in arguments
            )
        )
        if error is not None:
            raise RuntimeError(error.decode())

    def kmeans_assign(self, x, centers, element=None):
        """Labels [n] and squared distances [n]; bfloat16 rows come as uint16 with its name."""
        n, d = x.shape
        k = len(centers)
        prepared = np.full(self.size("emulated_kmeans_prepared_size", k, d), np.nan, np.float32)
        self.call("emulated_kmeans_prepare", k, d, centers, prepared)
        labels, distances = np.full(n, -1, np.int32), np.full(n, np.nan)
        kind = ELEMENTS.index(element or x.dtype.name)
        self.call("emulated_kmeans_assign", n, k, d, x, kind, centers, prepared, labels, distances)
        return labels, distances

    def kmeans_update(self, x, labels, k, weight=None, element=None):
        """Sums [k, d] and counts [k]."""
        n, d = x.shape
        workspace = np.full(self.size("emulated_kmeans_update_workspace_size", n, k), -7, np.int64)
        sums, counts = np.zeros((k, d)), np.zeros(k)
        kind = ELEMENTS.index(element or x.dtype.name)
        self.call(
            "emulated_kmeans_update", n, k, d, x, kind, labels, weight, workspace, sums, counts
        )
        return sums, counts


def _is_ctypes(value):
    return isinstance(value, (ctypes._SimpleCData, ctypes.Array))
