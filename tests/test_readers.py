"""Readers of text and arrays: hostile sizes, damaged archives and byte-order marks."""

import io
import os
import struct
import zipfile

import numpy as np
import pytest

from ktfast import readers
from ktfast.durable import parse_row
from ktfast.errors import DataError
from ktfast.readers import map_npy, read_npy, read_npz, read_text

REMEDY = "write the file again"


def npy(header: str, values: bytes = b"") -> bytes:
    """A .npy file with any text as its header."""
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + values


def described(shape: object, descr: str = "<f4") -> str:
    return f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n"


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.float32).reshape(3, 4),
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        np.arange(6, dtype=">i8"),
        np.array(["a", "bcd"]),
        np.array(7.5),
        np.zeros((0, 3), np.uint8),
    ],
    ids=["float32", "fortran", "byte-swapped", "text", "scalar", "empty"],
)
def test_arrays_are_those_of_numpy(array, tmp_path):
    np.save(tmp_path / "x.npy", array)
    np.savez(tmp_path / "x.npz", x=array)
    np.savez_compressed(tmp_path / "y.npz", x=array)
    found = [read_npy(tmp_path / "x.npy", REMEDY), map_npy(tmp_path / "x.npy", REMEDY)]
    found += [read_npz(tmp_path / name, remedy=REMEDY)["x"] for name in ("x.npz", "y.npz")]
    for other in found:
        assert other.dtype == array.dtype
        np.testing.assert_array_equal(other, array, strict=True)


@pytest.mark.parametrize(
    "content",
    [
        npy(described((1 << 40, 1 << 40)), bytes(64)),
        npy(described((-4,)), bytes(64)),
        npy(described((1 << 60,), "|V0")),
        npy(described((1,), "|O"), b"cos\nsystem\n."),
        npy("{'descr': (", bytes(64)),  # tokenize.TokenError
        npy("{" * 5000, bytes(64)),
        npy(described((3,)), bytes(11)),
        b"\x93NUMPY\x09\x00" + bytes(64),
        b"",
    ],
    ids=[
        "huge",
        "negative",
        "nothing",
        "objects",
        "unclosed",
        "nested",
        "short",
        "version",
        "empty",
    ],
)
def test_a_hostile_array_is_refused_before_it_takes_memory(content, tmp_path):
    (tmp_path / "x.npy").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", content)
    for read in (read_npy, map_npy, lambda path, remedy: read_npz(path, ["x"], remedy=remedy)):
        path = tmp_path / ("x.npy" if read in (read_npy, map_npy) else "x.npz")
        with pytest.raises(DataError, match=rf"{path.name} cannot be read as .*; {REMEDY}$"):
            read(path, REMEDY)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "UNPACKED_FREE", 1 << 16)
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros(1 << 20, np.uint8))
    with pytest.raises(DataError, match=r"x\.npz .* would unpack to 1,048,\d+, as in a zip bomb"):
        read_npz(tmp_path / "x.npz", remedy=REMEDY)
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(1 << 10))
    with zipfile.ZipFile(tmp_path / "y.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("x.npy", buffer.getvalue())
    with pytest.raises(DataError, match=r"y\.npz .*compression that NumPy does not write"):
        read_npz(tmp_path / "y.npz", remedy=REMEDY)


def test_what_an_archive_lacks_is_named(tmp_path):
    np.savez(tmp_path / "x.npz", a=1, b=2)
    with pytest.raises(DataError, match=r"x\.npz lacks c; it holds 'a', 'b'; write"):
        read_npz(tmp_path / "x.npz", ["a", "c"], remedy=REMEDY)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_may_begin_with_a_byte_order_mark(tmp_path, encoding):
    (tmp_path / "list.txt").write_text("é 1\nb\n", encoding)
    assert read_text(tmp_path / "list.txt", "a list", REMEDY) == "é 1\nb\n"


def test_what_is_no_text_is_named(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    (tmp_path / "large").write_bytes(bytes(2000))
    monkeypatch.setattr(readers, "MOST_TEXT", 1000)
    for name, problem in (
        ("pipe", "it is a pipe"),
        (".", "it is a folder"),
        ("latin", "UnicodeDecodeError"),
        ("large", "more bytes than the limit of 1,000"),
        ("absent", "does not exist"),
    ):
        with pytest.raises(DataError, match=problem):
            read_text(tmp_path / name, "a list", REMEDY)


@pytest.mark.parametrize("line", [b"", b"{", b"[1]", b"[" * 100_000, b"\xff", b'{"a": 1} {'])
def test_a_damaged_row_is_no_row(line):
    assert parse_row(line) is None
