"""Read text and NumPy arrays from files that other programs wrote.

Every function checks the sizes that a file states before the function takes memory. Every failure
is a `DataError`, which names the file.
"""

import csv
import io
import math
import os
import stat
import zipfile
from collections.abc import Sequence
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ktfast.errors import DataError, reading, shown

MOST_TEXT = 256 << 20
"""Largest size of a text file, bytes. A list of a million images takes about 30 MB."""
UNPACKED_FREE = 1 << 30
"""Number of bytes to which even the smallest compressed file may unpack."""
UNPACKED_RATIO = 100
"""Largest ratio of the unpacked size to the size of the file, for more than `UNPACKED_FREE` bytes.
Zeros compress a thousandfold, and real data at most about twentyfold."""
_PIECE = 1 << 20

Array = npt.NDArray[Any]


def read_bytes(
    path: str | os.PathLike[str], what: str, remedy: str, *, pipes: bool = False
) -> bytes:
    """Read a small file.

    Parameters
    ----------
    path : path
        The file.
    what : str
        What the file should be, with an article, for messages.
    remedy : str
        What the user can do if the file cannot be read, in the imperative.
    pipes : bool
        Also read a named pipe, such as that of a shell's `<(command)`. Reading waits for the
        writer.

    Returns
    -------
    content : bytes
        The content.

    Raises
    ------
    DataError
        The file is missing, is a folder or a device, or is larger than `MOST_TEXT`.
    """
    with reading(path, what, remedy):
        # A pipe or a device could block for ever, or never end.
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise ValueError("it is a folder")
        if not stat.S_ISREG(status.st_mode) and not (pipes and stat.S_ISFIFO(status.st_mode)):
            raise ValueError("it is a pipe or a device")
        with open(path, "rb") as file:
            content = file.read(MOST_TEXT + 1)
        if len(content) > MOST_TEXT:
            raise ValueError(f"it holds more bytes than the limit of {MOST_TEXT:,}")
        return content


def read_text(path: str | os.PathLike[str], what: str, remedy: str, *, pipes: bool = False) -> str:
    """Read a text file in UTF-8, or in UTF-16 if the file begins with a byte-order mark of UTF-16.

    The byte-order mark, which some editors write, is left out.

    Parameters
    ----------
    path : path
        The file.
    what : str
        What the file should be, with an article, for messages.
    remedy : str
        What the user can do if the file cannot be read, in the imperative.
    pipes : bool
        Also read a named pipe, as `read_bytes` does.

    Returns
    -------
    text : str
        The content.

    Raises
    ------
    DataError
        The file cannot be read, or has another encoding.
    """
    content = read_bytes(path, what, remedy, pipes=pipes)
    with reading(path, what, remedy):
        wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        return content.decode("utf-16" if wide else "utf-8-sig")


def read_csv(path: str | os.PathLike[str], width: int, remedy: str) -> list[list[str]]:
    """Read the rows below the header of a CSV table that `ktfast.tables` wrote.

    Parameters
    ----------
    path : path
        The table. Its file names may be any bytes.
    width : int
        Number of columns.
    remedy : str
        What the user can do if the file cannot be read, in the imperative.

    Returns
    -------
    rows : list of list of str
        The rows. A byte of a file name that is not UTF-8 is a surrogate, as `os.listdir` gives it.

    Raises
    ------
    DataError
        The file cannot be read, or a row has another number of columns.
    """
    content = read_bytes(path, "a CSV table", remedy)
    with reading(path, "a CSV table", remedy):
        text = io.StringIO(content.decode("utf-8", "surrogateescape"), newline="")
        rows = list(csv.reader(text, strict=True))
        if wrong := [row for row in rows if len(row) != width]:
            raise ValueError(f"a row has {len(wrong[0])} columns, and {width} are expected")
        return rows[1:]


def map_npy(path: str | os.PathLike[str], remedy: str) -> Array:
    """Map a .npy file into memory, read-only.

    Parameters
    ----------
    path : path
        The file.
    remedy : str
        What the user can do if the file cannot be read, in the imperative.

    Returns
    -------
    array : array
        The array, with the shape and dtype that the file states.

    Raises
    ------
    DataError
        The file is missing, damaged, shorter than its header states, or holds Python objects.
    """
    with reading(path, "a .npy file", remedy):
        with open(path, "rb") as file:
            shape, fortran, dtype = npy_header(file, os.fstat(file.fileno()).st_size)
            offset = file.tell()
        if 0 in shape:  # an empty map is not possible
            return np.empty(shape, dtype)
        return np.memmap(path, dtype, "r", offset, shape, "F" if fortran else "C")


def read_npy(path: str | os.PathLike[str], remedy: str) -> Array:
    """Read a .npy file into memory; see `map_npy`."""
    with reading(path, "a .npy file", remedy), open(path, "rb") as file:
        return _array(file, os.fstat(file.fileno()).st_size)


def npy_of(data: bytes, name: str | os.PathLike[str], remedy: str) -> Array:
    """Read the content of a .npy file that was read before; see `map_npy`.

    Parameters
    ----------
    data : bytes
        Content of the file.
    name : path
        Name of the file in error messages.
    remedy : str
        What the user can do if the content cannot be read, in the imperative.

    Returns
    -------
    array : array
        The array.

    Raises
    ------
    DataError
        The content is damaged, or holds Python objects.
    """
    with reading(name, "a .npy file", remedy):
        return _array(io.BytesIO(data), len(data))


def read_npz(
    path: str | os.PathLike[str], names: Sequence[str] | None = None, *, remedy: str
) -> dict[str, Array]:
    """Read arrays of a .npz file.

    Parameters
    ----------
    path : path
        The file.
    names : sequence of str, optional
        Names of the arrays. None: all arrays of the file.
    remedy : str
        What the user can do if the file cannot be read, in the imperative.

    Returns
    -------
    arrays : dict of str to array
        The arrays by name.

    Raises
    ------
    DataError
        The file is missing or damaged, lacks an array, holds Python objects, or would unpack to far
        more than its size.
    """
    # zipfile does not close a damaged file that it opens itself.
    with (
        reading(path, "a .npz file", remedy),
        open(path, "rb") as file,
        zipfile.ZipFile(file) as archive,
    ):
        members = _members(archive)
        wanted = list(members) if names is None else list(names)
        if lacking := [name for name in wanted if name not in members]:
            raise DataError(
                f"{shown(path)} lacks {', '.join(lacking)}; it holds"
                f" {', '.join(map(ascii, members)) or 'no array'}; {remedy}"
            )
        size = sum(members[name].file_size for name in wanted)
        check_unpacked(size, os.fstat(file.fileno()).st_size)
        return {name: _member(archive, members[name]) for name in wanted}


def npz_names(path: str | os.PathLike[str], remedy: str) -> list[str]:
    """List the names of the arrays of a .npz file; raise `DataError` as `read_npz` does."""
    with (
        reading(path, "a .npz file", remedy),
        open(path, "rb") as file,
        zipfile.ZipFile(file) as archive,
    ):
        return list(_members(archive))


def check_unpacked(size: int, packed: int) -> None:
    """Refuse a compressed file that would unpack to far more than its own size.

    Parameters
    ----------
    size : int
        Size of the unpacked content, bytes.
    packed : int
        Size of the file, bytes.

    Raises
    ------
    ValueError
        The content is larger than `UNPACKED_FREE` bytes, and larger than the file by more than a
        factor of `UNPACKED_RATIO`.
    """
    if size > max(UNPACKED_FREE, UNPACKED_RATIO * packed):
        raise ValueError(f"its {packed:,} bytes would unpack to {size:,}, as in a zip bomb")


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The arrays of an archive by name."""
    return {
        item.filename.removesuffix(".npy"): item
        for item in archive.infolist()
        if item.filename.endswith(".npy")
    }


def _member(archive: zipfile.ZipFile, item: zipfile.ZipInfo) -> Array:
    """Read one array of an archive."""
    if item.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # zipfile unpacks other methods in steps of unbounded size; NumPy does not write them.
        raise ValueError(f"{item.filename} has a compression that NumPy does not write")
    with archive.open(item) as file:
        return _array(file, item.file_size)


def _array(file: IO[bytes], size: int) -> Array:
    """Read an array from the start of a stream of `size` bytes."""
    shape, fortran, dtype = npy_header(file, size)
    values = np.empty(math.prod(shape), dtype)
    content = values.view(np.uint8)
    done = 0
    while done < len(content):
        piece = file.read(min(_PIECE, len(content) - done))
        if not piece:
            raise EOFError(f"it ends after {done:,} of {len(content):,} bytes of values")
        content[done : done + len(piece)] = np.frombuffer(piece, np.uint8)
        done += len(piece)
    return values.reshape(shape, order="F" if fortran else "C")


def npy_header(file: IO[bytes], size: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read (shape, whether columns come first, dtype), and leave the stream at the values."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"its format version {version} is not for plain arrays")
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are not read")
    if dtype.itemsize == 0 or min(shape, default=0) < 0:
        raise ValueError(f"its header gives the shape {shape} of {dtype}")
    need, have = math.prod(shape) * dtype.itemsize, size - file.tell()
    if need > have:
        raise ValueError(f"its header gives {need:,} bytes of values, the file has {have:,}")
    return shape, fortran, dtype
