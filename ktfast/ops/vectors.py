"""Matrices of row vectors as the k-means kernels read them: checks, and blocks of rows.

Internal: the k-means ops and `ktfast.kmeans` use this module.
"""

import ctypes
import functools
import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np

from ktfast.native.arrays import (
    contiguous,
    device_of,
    dtype_name,
    in_memory,
    library_of,
    stream_of,
)
from ktfast.native.modules import cpu, native_of
from ktfast.native.threads import n_threads as resolve_threads

__all__ = [
    "CALL_BYTES",
    "COPY_BYTES",
    "DTYPES",
    "check_output",
    "check_vectors",
    "contiguous",
    "dtype_name",
    "execution",
    "gpu_row_blocks",
    "is_numpy",
    "read_ahead",
    "readable",
    "row_blocks",
]

DTYPES = ("float32", "float64", "float16", "bfloat16", "uint8", "int8")

CALL_BYTES = 1 << 28
"""Most bytes of a block on a CPU. A kernel then returns within about a second and Ctrl-C works."""
COPY_BYTES = 1 << 25
"""Most bytes of a block that is copied because kernels cannot read the memory as it lies."""


def is_numpy(array: Any) -> bool:
    """Whether an array belongs to NumPy."""
    return isinstance(array, np.ndarray)


def check_vectors(x: Any, name: str = "x") -> Any:
    """Check that the kernels can read the rows of `x`; return `x` detached from torch's graph.

    Parameters
    ----------
    x : array [n, d]
        Rows, of NumPy, torch or CuPy.
    name : str, default "x"
        Name of the argument in error messages.

    Returns
    -------
    array [n, d]
        The same memory, or a copy of a tensor that torch negates lazily.

    Raises
    ------
    TypeError
        `x` is no array of NumPy, torch or CuPy, is sparse, or has a dtype that the kernels do not
        read.
    ValueError
        `x` is not two-dimensional.
    """
    if library_of(x) == "torch" and str(x.layout) != "torch.strided":
        raise TypeError(f"{name} must be dense, got layout {x.layout}; convert it with .to_dense()")
    if library_of(x) == "torch":
        x = in_memory(x)
    if dtype_name(x) not in DTYPES:
        raise TypeError(f"{name} must be one of {', '.join(DTYPES)}, got {dtype_name(x)}")
    if len(x.shape) != 2:
        raise ValueError(f"{name} must have shape [n, d], got {tuple(x.shape)}")
    return x


def readable(block: Any) -> bool:
    """Whether a matrix is row-major without gaps, aligned and of native byte order."""
    if library_of(block) == "torch":
        return bool(block.is_contiguous())
    if not is_numpy(block):
        return bool(block.flags.c_contiguous)
    return bool(block.flags.c_contiguous and block.flags.aligned and block.dtype.isnative)


def row_blocks(x: Any, call_rows: int, multiple: int = 1) -> Iterator[tuple[slice, Any]]:
    """Divide the rows of `x` into blocks that the kernels can read.

    A block is a view of `x` if the kernels can read the memory of `x`. Otherwise a block is a copy
    of at most `COPY_BYTES`, or of one row.

    Parameters
    ----------
    x : array [n, d]
        Rows, checked by `check_vectors`.
    call_rows : int
        Most rows of a block.
    multiple : int, default 1
        Blocks start at multiples of this number of rows. A block holds at least this number of
        rows, even if it is then larger than the limits.

    Yields
    ------
    rows : slice
        The rows of the block.
    block : array [rows, d]
        The block.
    """
    n, d = x.shape
    row_bytes = max(1, d * (x.element_size() if library_of(x) == "torch" else x.itemsize))
    in_place = readable(x)
    mapped = isinstance(x, np.memmap)
    limit = CALL_BYTES if in_place else COPY_BYTES
    step = max(1, min(call_rows, limit // row_bytes) // multiple) * multiple
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        if mapped:
            read_ahead(x[rows.stop : rows.stop + step])
        yield rows, x[rows] if in_place else contiguous(x[rows])


def gpu_row_blocks(x: Any, call_rows: int, multiple: int = 1) -> Iterator[tuple[slice, Any]]:
    """Divide the rows of `x` as `row_blocks` does, but on a GPU without a limit of bytes.

    A call of a GPU's kernel returns at once, so only its workspace limits the rows of a call. Each
    further call costs a few microseconds per kernel, in which the GPU is idle.
    """
    if device_of(x)[0] == "cpu" or not readable(x):
        yield from row_blocks(x, call_rows, multiple)
        return
    step = max(1, call_rows // multiple) * multiple
    for start in range(0, len(x), step):
        rows = slice(start, min(start + step, len(x)))
        yield rows, x[rows]


def read_ahead(block: Any) -> None:
    """Ask the system to read a block of a memory map from disk in the background.

    The call does not wait. It does nothing if the system has no such request.
    """
    advise = _madvise()
    if advise is None or not is_numpy(block) or block.size == 0:
        return
    low, high = np.lib.array_utils.byte_bounds(block)
    low -= low % mmap.PAGESIZE
    advise(ctypes.c_void_p(low), ctypes.c_size_t(high - low), mmap.MADV_WILLNEED)


@functools.cache
def _madvise() -> Any:
    """The function `madvise` of the C library, or None if the system has none."""
    if not hasattr(mmap, "MADV_WILLNEED"):
        return None
    return getattr(ctypes.CDLL(None), "madvise", None)


def check_output(array: Any, name: str, shape: tuple[int, ...], dtype: str) -> None:
    """Check the shape and the dtype of an array that an op writes to."""
    if tuple(array.shape) != shape:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(array.shape)}")
    if dtype_name(array) != dtype:
        raise TypeError(f"{name} must be {dtype}, got {dtype_name(array)}")


def execution(x: Any, n_threads: int | None) -> dict[str, Any]:
    """Arguments that say where a kernel runs: the number of CPU threads or the GPU's stream."""
    if native_of(x) is cpu:
        return {"n_threads": resolve_threads(n_threads)}
    return {"stream": stream_of(x)}
