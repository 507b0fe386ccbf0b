"""Matrices of row vectors as the k-means kernels read them: checks and blocks of rows."""

import ctypes
import functools
import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np

from ktfast.native.arrays import contiguous, dtype_name, library_of

__all__ = [
    "CALL_BYTES",
    "COPY_BYTES",
    "DTYPES",
    "check_output",
    "check_vectors",
    "contiguous",
    "dtype_name",
    "is_numpy",
    "read_ahead",
    "readable",
    "row_blocks",
]

DTYPES = ("float32", "float64", "float16", "bfloat16", "uint8", "int8")

# A kernel's call ends within about a second, so that Ctrl-C is answered, and a block that must be
# copied (wrong strides, byte order or alignment) stays this small.
CALL_BYTES = 1 << 28
COPY_BYTES = 1 << 25


def is_numpy(array: Any) -> bool:
    """Whether an array belongs to NumPy."""
    return isinstance(array, np.ndarray)


def check_vectors(x: Any, name: str = "x") -> Any:
    """Return `x`, detached from torch's graph, after checking that kernels can read its rows.

    Raises
    ------
    TypeError : not an array of NumPy, torch or CuPy, or of a dtype the kernels do not read.
    ValueError : not two-dimensional.
    """
    if library_of(x) == "torch" and x.requires_grad:
        x = x.detach()
    if dtype_name(x) not in DTYPES:
        raise TypeError(f"{name} must be one of {', '.join(DTYPES)}, got {dtype_name(x)}")
    if len(x.shape) != 2:
        raise ValueError(f"{name} must have shape [n, d], got {tuple(x.shape)}")
    return x


def readable(block: Any) -> bool:
    """Whether kernels can read a matrix where it lies: row-major without gaps, native, aligned."""
    if library_of(block) == "torch":
        return bool(block.is_contiguous())
    if not is_numpy(block):
        return bool(block.flags.c_contiguous)
    return bool(block.flags.c_contiguous and block.flags.aligned and block.dtype.isnative)


def row_blocks(x: Any, call_rows: int, multiple: int = 1) -> Iterator[tuple[slice, Any]]:
    """Yield the rows of `x` in order, as blocks that the kernels can read.

    Blocks are views where the layout allows it. Otherwise each is copied, with at most
    `COPY_BYTES` (or one row) at a time.

    Parameters
    ----------
    x : [n, d], checked by `check_vectors`.
    call_rows : the most rows of a block.
    multiple : blocks start at multiples of so many rows, even if they are larger than they should.

    Yields
    ------
    the slice of rows and the block [rows, d].
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


def read_ahead(block: Any) -> None:
    """Have the system read a block of a memory map while something else is computed.

    It is a hint: nothing waits for it, and nothing is told where it cannot be given.
    """
    advise = _madvise()
    if advise is None or not is_numpy(block) or block.size == 0:
        return
    low, high = np.lib.array_utils.byte_bounds(block)
    low -= low % mmap.PAGESIZE
    advise(ctypes.c_void_p(low), ctypes.c_size_t(high - low), mmap.MADV_WILLNEED)


@functools.cache
def _madvise() -> Any:
    """The C library's function, or None where there is none."""
    if not hasattr(mmap, "MADV_WILLNEED"):
        return None
    return getattr(ctypes.CDLL(None), "madvise", None)


def check_output(array: Any, name: str, shape: tuple[int, ...], dtype: str) -> None:
    """Refuse an output array of another shape or dtype."""
    if tuple(array.shape) != shape:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(array.shape)}")
    if dtype_name(array) != dtype:
        raise TypeError(f"{name} must be {dtype}, got {dtype_name(array)}")
