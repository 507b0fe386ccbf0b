"""Read cells and structs from MATLAB's .mat files of version 5 (`save -v6` and `-v7`).

This is the part of the format that files of proposals and the masks of SBD use (MathWorks,
"MAT-File Format"). Every size that the file states is checked against the bytes that are there.
SciPy's reader supports more, but some damaged files crash SciPy's reader together with the process.
"""

import math
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ktfast.readers import check_unpacked

Value: TypeAlias = "str | npt.NDArray[Any]"
"""One cell: text of one row, or an array of numbers of the type that the file stores."""

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_CELL, _STRUCT, _TEXT, _NUMBERS = 1, 2, 4, range(6, 16)
_COMPLEX = 0x0800
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8"}
_TYPES |= {12: "i8", 13: "u8"}
# Type of the values by the class of a matrix; a file may store small values in a smaller type.
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4"}
_CLASSES |= {14: "i8", 15: "u8"}
_ENCODINGS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_HEAD = 1024
"""Unpacked bytes of a variable that hold its name; MATLAB's names have at most 63 letters."""


class _Element(NamedTuple):
    """A part of the file: its type, its content, and where the next part begins."""

    kind: int
    content: memoryview
    end: int


def read_cells(content: bytes, names: Sequence[str]) -> list[list[Value]]:
    """Read variables that are cell vectors.

    Parameters
    ----------
    content : bytes
        Content of the .mat file.
    names : sequence of str
        Names of the variables.

    Returns
    -------
    variables : list of list of str or array
        The cells of each variable, in the order of `names`.

    Raises
    ------
    ValueError, zlib.error, UnicodeDecodeError
        The file is damaged, has another version, or a variable is missing or of another kind.
    """
    order = _byte_order(content)
    found = _found(content, order, names)
    return [_cells(found[name], order, name) for name in names]


def read_field(content: bytes, name: str, field: str) -> npt.NDArray[Any]:
    """Read one field of a variable that is a single struct; other fields may have any type.

    Parameters
    ----------
    content : bytes
        Content of the .mat file.
    name : str
        Name of the variable.
    field : str
        Name of the field, which must hold numbers.

    Returns
    -------
    values : array
        The numbers, with the type that MATLAB has for them.

    Raises
    ------
    ValueError, zlib.error
        The file is damaged, has another version, or lacks such a field.
    """
    order = _byte_order(content)
    variable = _found(content, order, [name])[name]
    flags, dims, _, at = _head(variable, order)
    if flags & 0xFF != _STRUCT or math.prod(dims) != 1:
        raise ValueError(f"{name} must be a single struct")
    width = _element(variable, at, order)
    texts = _element(variable, width.end, order)
    length = int(_words(width.content, order, "i4")[0]) if width.kind == 5 else 0
    if length < 1 or len(texts.content) % length:
        raise ValueError(f"the names of the fields of {name} are damaged")
    at = texts.end
    for start in range(0, len(texts.content), length):
        part = _element(variable, at, order)
        if bytes(texts.content[start : start + length]).partition(b"\0")[0] == field.encode():
            values = _value(part.content, order, f"{name}.{field}") if part.kind == _MATRIX else ""
            if isinstance(values, str):
                raise ValueError(f"{name}.{field} must hold numbers")
            kind = _head(part.content, order)[0] & 0xFF
            return values.astype(_CLASSES[kind], copy=False)
        at = part.end
    raise ValueError(f"{name} has no field {field}")


def _found(content: bytes, order: Literal["<", ">"], names: Sequence[str]) -> dict[str, memoryview]:
    """The content of the named variables."""
    found: dict[str, memoryview] = {}
    for variable in _variables(memoryview(content)[_HEADER:], order, names):
        name = _named(variable, order)
        if name in names:
            found[name] = variable
    if lacking := [name for name in names if name not in found]:
        raise ValueError(f"it has no variable {', '.join(lacking)}")
    return found


def _byte_order(content: bytes) -> Literal["<", ">"]:
    if content.startswith((b"MATLAB 7.3", b"\x89HDF")) or content[512:516] == b"\x89HDF":
        raise ValueError("it is of version 7.3; save it in MATLAB with the option -v7")
    if len(content) < _HEADER or content[126:128] not in (b"IM", b"MI"):
        raise ValueError("it is no .mat file of version 5")
    order: Literal["<", ">"] = "<" if content[126:128] == b"IM" else ">"
    if (version := _words(memoryview(content)[124:126], order, "u2")[0]) != 0x0100:
        raise ValueError(f"it is of version {version >> 8}, not of version 1 of the format 5")
    return order


def _variables(
    data: memoryview, order: Literal["<", ">"], names: Sequence[str]
) -> Iterator[memoryview]:
    """Yield the content of each variable; of packed variables, only those that are named."""
    at = unpacked = 0
    while at < len(data):
        part = _element(data, at, order)
        at = part.end
        if part.kind == _MATRIX:
            yield part.content
        elif part.kind == _COMPRESSED:
            head = zlib.decompressobj().decompress(part.content, _HEAD)
            tag = _words(memoryview(head)[:8], order, "u4")
            if tag[0] == _MATRIX and _named(memoryview(head)[8:], order) in names:
                unpacked += int(tag[1])
                check_unpacked(unpacked, len(data))
                yield _unpacked(part.content, 8 + int(tag[1]))[8:]
        else:
            raise ValueError(f"it has a part of the unknown type {part.kind}")


def _unpacked(content: memoryview, size: int) -> memoryview:
    """Unpack exactly `size` bytes, whose checksum must be right."""
    stream = zlib.decompressobj()
    data = stream.decompress(content, size)
    rest = stream.decompress(stream.unconsumed_tail, 1)  # reads the checksum
    if len(data) != size or rest or not stream.eof:
        raise ValueError("a packed variable has another size than it states")
    return memoryview(data)


def _element(data: memoryview, at: int, order: Literal["<", ">"]) -> _Element:
    """Read the part at a position. Content of at most 4 bytes may stand in the tag itself."""
    tag = _words(data[at : at + 8], order, "u4")
    if len(tag) != 2:
        raise ValueError("it ends within a tag")
    kind, size = int(tag[0]), int(tag[1])
    if kind >> 16:
        kind, size, begin, end = kind & 0xFFFF, kind >> 16, at + 4, at + 8
    else:
        begin = at + 8
        end = begin + size + (0 if kind == _COMPRESSED else -size % 8)
    if begin + size > min(end, len(data)):
        raise ValueError(f"a part of {size:,} bytes reaches beyond the end")
    return _Element(kind, data[begin : begin + size], end)


def _named(variable: memoryview, order: Literal["<", ">"]) -> str:
    _, _, name, _ = _head(variable, order)
    return name


def _head(variable: memoryview, order: Literal["<", ">"]) -> tuple[int, tuple[int, ...], str, int]:
    """Class and flags, dimensions and name of a matrix, and where its values begin."""
    flags = _element(variable, 0, order)
    sides = _element(variable, flags.end, order)
    name = _element(variable, sides.end, order)
    if (flags.kind, len(flags.content), sides.kind, name.kind) != (6, 8, 5, 1):
        raise ValueError("the header of a variable is damaged")
    dims = tuple(int(side) for side in _words(sides.content, order, "i4"))
    if len(dims) < 2 or min(dims) < 0:
        raise ValueError(f"a variable has the dimensions {dims}")
    kind = int(_words(flags.content, order, "u4")[0])
    return kind, dims, bytes(name.content).decode("latin-1"), name.end


def _cells(variable: memoryview, order: Literal["<", ">"], name: str) -> list[Value]:
    """The cells of a row or column."""
    flags, dims, _, at = _head(variable, order)
    n = math.prod(dims)
    if flags & 0xFF != _CELL or n != max(dims):
        raise ValueError(f"{name} must be a row or a column of cells")
    found = []
    for _ in range(n):
        part = _element(variable, at, order)
        if part.kind != _MATRIX:
            raise ValueError(f"a cell of {name} has the unknown type {part.kind}")
        found.append(_value(part.content, order, name))
        at = part.end
    return found


def _value(cell: memoryview, order: Literal["<", ">"], name: str) -> Value:
    """One cell: text or real numbers."""
    if not len(cell):
        return np.empty((0, 0))
    flags, dims, _, at = _head(cell, order)
    values = _element(cell, at, order)
    if flags & 0xFF == _TEXT:
        return _text(values, dims, order, name)
    if flags & 0xFF not in _NUMBERS or flags & _COMPLEX or values.kind not in _TYPES:
        raise ValueError(f"a cell of {name} must hold text or real numbers")
    numbers = _words(values.content, order, _TYPES[values.kind])
    if len(numbers) != math.prod(dims):
        raise ValueError(f"a cell of {name} has {len(numbers)} numbers, not {dims}")
    return numbers.reshape(dims, order="F")


def _text(values: _Element, dims: tuple[int, ...], order: Literal["<", ">"], name: str) -> str:
    if values.kind not in _ENCODINGS:
        raise ValueError(f"a cell of {name} has text of the unknown type {values.kind}")
    encoding = _ENCODINGS[values.kind]
    if encoding in ("utf-16", "utf-32"):
        encoding += "-le" if order == "<" else "-be"
    text = bytes(values.content).decode(encoding)
    if math.prod(dims) and (dims[0] != 1 or len(dims) != 2):
        raise ValueError(f"a cell of {name} has text of several rows")
    return text


def _words(data: memoryview, order: Literal["<", ">"], dtype: str) -> npt.NDArray[Any]:
    if len(data) % np.dtype(dtype).itemsize:
        raise ValueError(f"{len(data)} bytes are no array of {dtype}")
    return np.frombuffer(data, np.dtype(dtype).newbyteorder(order))
