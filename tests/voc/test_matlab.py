"""The reader of .mat files gives what SciPy gives, and refuses what it cannot read."""

import io
import struct
import zlib

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from ktfast import readers
from ktfast.voc.matlab import read_cells


def saved(images, boxes, **options) -> bytes:
    """A .mat file of cells, written by SciPy beside another variable."""
    held = {"other": np.zeros(3), "images": np.empty((len(images), 1), object)}
    held["boxes"] = np.empty((1, len(boxes)), object)
    held["images"][:, 0] = images
    for i, cell in enumerate(boxes):
        held["boxes"][0, i] = cell
    file = io.BytesIO()
    savemat(file, held, **options)
    return file.getvalue()


def plain() -> bytes:
    return saved(["a", "2007_000001"], [np.ones((2, 4)), np.ones((1, 4))])


@pytest.mark.parametrize("packed", [False, True])
def test_cells_are_those_of_scipy(packed, rng):
    kinds = ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"]
    ids = ["", "x", "abc", "2007_000001", "a b", "münchen", *"0123"]
    boxes = [rng.integers(0, 100, (i, 4)).astype(kind) for i, kind in enumerate(kinds)]
    content = saved(ids, boxes, do_compression=packed)
    found, cells = read_cells(content, ("images", "boxes"))
    expected = loadmat(io.BytesIO(content))
    assert found == ids
    assert len(cells) == len(kinds)
    for cell, other in zip(cells[1:], expected["boxes"].ravel()[1:], strict=True):
        assert cell.dtype == other.dtype
        np.testing.assert_array_equal(cell, other, strict=True)


def element(kind: int, content: bytes) -> bytes:
    return struct.pack(">II", kind, len(content)) + content + bytes(-len(content) % 8)


def matrix(kind: int, dims: tuple[int, ...], name: bytes, values: bytes) -> bytes:
    sides = struct.pack(f">{len(dims)}i", *dims)
    flags = struct.pack(">II", kind, 0)
    return element(14, element(6, flags) + element(5, sides) + element(1, name) + values)


def head(version: int = 0x0100) -> bytes:
    return b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(">H", version) + b"MI"


def test_a_big_endian_file_of_an_old_machine_is_read():
    text = matrix(4, (1, 3), b"", element(4, "abc".encode("utf-16-be")))
    numbers = struct.pack(">4H", 1, 2, 30, 40)  # MATLAB stores whole doubles in fewer bytes
    box = matrix(6, (1, 4), b"", element(4, numbers))
    content = head() + matrix(1, (1, 1), b"images", text) + matrix(1, (1, 1), b"boxes", box)
    images, boxes = read_cells(content, ("images", "boxes"))
    assert images == ["abc"]
    assert boxes[0].tolist() == [[1, 2, 30, 40]]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"MATLAB 7.3 MAT-file".ljust(600), "version 7.3; save it .* -v7"),
        (b"text" * 99, "no .mat file"),
        (head(0x0300), "of version 3"),
        (plain()[:-9], "reaches beyond the end|ends within a tag"),
        (head() + element(3, b""), "unknown type"),
        (saved(["a"], []).replace(b"boxes", b"foxes"), "no variable boxes"),
        (head() + matrix(1, (2**30, 1), b"boxes", b""), "ends within a tag"),
        (head() + matrix(1, (-1, 1), b"boxes", b""), r"dimensions \(-1, 1\)"),
        (head() + matrix(1, (2, 2), b"boxes", b""), "must be a row or a column of cells"),
        (head() + matrix(6, (0, 0), b"boxes", element(9, b"")), "must be a row or a column"),
        (saved(["a"], [np.ones((1, 4)) * 1j]), "must hold text or real numbers"),
        (saved(["a"], [np.array([["ab"], ["cd"]])]), "must hold text|text of several rows"),
        (saved(["a"], [{"left": 1}]), "must hold text or real numbers"),
    ],
    ids=range(13),
)
def test_what_is_wrong_with_a_file_is_named(content, problem):
    with pytest.raises(ValueError, match=problem):
        read_cells(content, ("boxes",))


def packed_file(size: int, content: bytes) -> bytes:
    """A file whose one packed variable states another size than it has."""
    variable = matrix(1, (1, 1), b"boxes", content)
    packed = zlib.compress(variable[:4] + struct.pack(">I", size) + variable[8:])
    return head() + struct.pack(">II", 15, len(packed)) + packed


def test_a_packed_variable_takes_no_more_memory_than_it_states(monkeypatch):
    with pytest.raises(ValueError, match="another size than it states"):
        read_cells(packed_file(200, bytes(1 << 20)), ("boxes",))
    with pytest.raises(ValueError, match="another size than it states"):
        read_cells(packed_file(1 << 20, bytes(16)), ("boxes",))
    monkeypatch.setattr(readers, "UNPACKED_FREE", 1 << 16)
    with pytest.raises(ValueError, match="zip bomb"):
        read_cells(packed_file((1 << 20) + 64, bytes(1 << 20)), ("boxes",))
