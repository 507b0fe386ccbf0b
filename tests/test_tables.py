"""CSV tables: every file name comes back, and a failed write leaves the old table."""

import csv
import os

import pytest

from ktfast.tables import write_csv

NAMES = [
    "cat/1.jpg", "a, b.jpg", 'say "hi".jpg', "line\nbreak.jpg", "carriage\rreturn.jpg", " x .jpg",
    "ü/日本.jpg", os.fsdecode(b"caf\xe9.jpg"), os.fsdecode(b"\xff\xfe, \xed\xb3\xa9.jpg"), "path",
]  # fmt: skip


def test_every_name_comes_back(tmp_path):
    write_csv(tmp_path / "x.csv", ("path", "n"), ((name, k) for k, name in enumerate(NAMES)))
    with open(tmp_path / "x.csv", encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == NAMES
    assert [int(row["n"]) for row in rows] == list(range(len(NAMES)))
    assert b"caf\xe9.jpg,7\n" in (tmp_path / "x.csv").read_bytes()
    assert (tmp_path / "x.csv").read_bytes().startswith(b"path,n\ncat/1.jpg,0\n")


def test_a_table_is_complete_or_absent(tmp_path):
    write_csv(tmp_path / "x.csv", ("path",), [("a",)])

    def rows():
        yield ("b",)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_csv(tmp_path / "x.csv", ("path",), rows())
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"]
    assert (tmp_path / "x.csv").read_text() == "path\na\n"
