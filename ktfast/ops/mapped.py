"""Copy rows of memory-mapped files. A file that becomes shorter raises an error. Internal.

Another program may cut a file off while the file is mapped. Whoever then touches the mapped memory
is killed by the signal SIGBUS. The system call `process_vm_readv` copies the memory instead: the
kernel stops at the first page that the file no longer has, and says how many bytes it has copied.
The call costs as much time as copying the memory in the process.

The functions also take `LazyRows`, which are read from files and not mapped.
"""

import ctypes
import functools
import os
from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from ktfast.errors import DataError, shown
from ktfast.native.lazy_rows import LazyRows
from ktfast.ops.vectors import COPY_BYTES, contiguous, read_ahead, readable

Rows = npt.NDArray[Any] | LazyRows

# The kernel takes at most this many areas in a call.
_AREAS = 1024
# A call copies less than 2 GiB.
_CALL_BYTES = 1 << 30


def is_mapped(x: Any) -> bool:
    """Whether the functions here copy the rows: those of a memory map without gaps, or lazy rows.

    A copy of a memory map in main memory is of NumPy's type `memmap`, too, but maps no file.
    """
    if isinstance(x, LazyRows):
        return True
    is_map = isinstance(x, np.memmap) and getattr(x, "_mmap", None) is not None
    return is_map and x.ndim == 2 and bool(x.flags.c_contiguous)


def copy_mapped(source: Rows, target: npt.NDArray[Any]) -> None:
    """Copy rows from a mapped file.

    Parameters
    ----------
    source : np.memmap or LazyRows [m, d]
        Rows without gaps.
    target : array [m, d]
        Receives the rows; in the same dtype and without gaps.

    Raises
    ------
    DataError
        The file has become shorter. The message names the file.
    """
    if isinstance(source, LazyRows):
        np.copyto(target, source.read(0, len(source)))
        return
    from_bytes, into = source.reshape(-1).view(np.uint8), target.reshape(-1).view(np.uint8)
    for start in range(0, source.nbytes, _CALL_BYTES):
        piece = into[start : start + _CALL_BYTES]
        areas = np.array([[from_bytes.ctypes.data + start, piece.nbytes]], np.uintp)
        _copy(areas, source, piece)


def copied_blocks(
    source: Rows, most_rows: int | None = None
) -> Iterator[tuple[slice, npt.NDArray[Any]]]:
    """Divide the rows of a mapped file into blocks, each of which is copied to one buffer.

    Parameters
    ----------
    source : np.memmap or LazyRows [n, d]
        Rows without gaps.
    most_rows : int, optional
        Most rows of a block. None: as many as `COPY_BYTES` hold.

    Yields
    ------
    rows : slice
        The rows of the block.
    block : array [rows, d]
        The block in native byte order. It is valid until the next block is requested.

    Raises
    ------
    DataError
        The file has become shorter. The message names the file.
    """
    n, d = source.shape
    step = max(1, COPY_BYTES // max(1, d * source.itemsize))
    step = min(step, n, most_rows or step)
    if isinstance(source, LazyRows):
        for start in range(0, n, max(1, step)):
            block = source.read(start, min(start + step, n))
            yield slice(start, start + len(block)), block if readable(block) else contiguous(block)
        return
    buffer = np.empty((step, d), source.dtype)
    for start in range(0, n, max(1, step)):
        rows = slice(start, min(start + step, n))
        read_ahead(source[rows.stop : rows.stop + step])
        block = buffer[: rows.stop - rows.start]
        copy_mapped(source[rows], block)
        yield rows, block if readable(block) else contiguous(block)


def take_mapped(source: Rows, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Copy some rows of a mapped file.

    Parameters
    ----------
    source : np.memmap or LazyRows [n, d]
        Rows without gaps.
    rows : array, int64 [m]
        Numbers of the rows, in 0 .. n - 1.

    Returns
    -------
    array [m, d]
        The rows in the given order.

    Raises
    ------
    DataError
        The file has become shorter. The message names the file.
    """
    if isinstance(source, LazyRows):
        return source.take(rows)
    target = np.empty((len(rows), source.shape[1]), source.dtype)
    row_bytes = source.shape[1] * source.itemsize
    for start in range(0, len(rows) if row_bytes else 0, _AREAS):
        some = rows[start : start + _AREAS]
        areas = np.empty((len(some), 2), np.uintp)
        areas[:, 0] = source.ctypes.data + some * row_bytes
        areas[:, 1] = row_bytes
        _copy(areas, source, target[start : start + len(some)])
    return target


def _copy(areas: npt.NDArray[np.uintp], source: Any, target: npt.NDArray[Any]) -> None:
    """Copy areas of memory (address, bytes) one after the other to an array."""
    copy = _process_vm_readv()
    if copy is None:
        _copy_checked(areas, source, target)
        return
    into = np.array([[target.ctypes.data, target.nbytes]], np.uintp)
    copied = copy(os.getpid(), into.ctypes.data, 1, areas.ctypes.data, len(areas), 0)
    if copied != target.nbytes:
        _refuse_short(source)


def _copy_checked(areas: npt.NDArray[np.uintp], source: Any, target: npt.NDArray[Any]) -> None:
    """Copy where the system call is forbidden, after a check of the file's size.

    A file that shrinks between the check and the copy still kills the process.
    """
    mapping = source
    while isinstance(mapping, np.ndarray):
        mapping = mapping.base
    if mapping.size() < len(mapping):
        _refuse_short(source)
    done = 0
    for address, size in areas.tolist():
        ctypes.memmove(target.ctypes.data + done, address, size)
        done += size


def _refuse_short(source: Any) -> NoReturn:
    name = getattr(source, "filename", None)
    raise DataError(
        f"{shown(name) if name else 'the file of a memory-mapped array'} became shorter while its "
        "rows were read; write the file again, and do not change it while it is in use"
    )


@functools.cache
def _process_vm_readv() -> Any:
    """The function of the C library; None if the system lacks or forbids the call."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "process_vm_readv", None)
    if call is None:
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_ulong
    call.argtypes = [ctypes.c_int, pointer, number, pointer, number, number]
    call.restype = ctypes.c_ssize_t
    source, target = np.ones(1, np.uint8), np.zeros(1, np.uint8)
    into, area = (np.array([[array.ctypes.data, 1]], np.uintp) for array in (target, source))
    copied = call(os.getpid(), into.ctypes.data, 1, area.ctypes.data, 1, 0)
    return call if copied == 1 and target[0] == 1 else None
