"""The reader boundary: any failure to read a file is a `DataError` that names the file."""

import errno
import tokenize
import zlib

import pytest

from ktfast.durable import read_json
from ktfast.errors import ConfigError, DataError, opens, reading, shown


@pytest.mark.parametrize(
    "error",
    [
        zlib.error("bad block"),
        KeyError("boxes"),
        LookupError("unknown encoding: bogus"),
        tokenize.TokenError("EOF in multi-line statement", (1, 0)),
        MemoryError(),
        RecursionError("too deep"),
        PermissionError(errno.EACCES, "Permission denied"),
        FileNotFoundError(errno.ENOENT, "No such file or directory"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_every_failure_names_the_file_and_the_remedy(error):
    expected = pytest.raises(DataError, match=r"^rows\.npy .*; give another file$")
    with expected as caught, reading("rows.npy", "a .npy file", "give another file"):
        raise error
    assert caught.value.__cause__ is error


def test_errors_of_ktfast_and_interrupts_pass_unchanged():
    for error in (ConfigError("the option"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, reading("x", "a file"):
            raise error
        assert caught.value is error


def test_a_class_method_opens_within_the_boundary():
    class Folder:
        @classmethod
        @opens("a folder of features", "run the stage again")
        def open(cls, path, *, verify=False):
            return {"a": verify}[path]

    assert Folder.open("a", verify=True) is True
    for call in (lambda: Folder.open("b"), lambda: Folder.open(path="b")):
        with pytest.raises(DataError, match=r"^b cannot be read as a folder .*KeyError"):
            call()


def test_a_name_that_is_not_utf8_is_escaped(tmp_path):
    assert shown(b"caf\xe9.jpg") == "caf\\xe9.jpg"
    assert shown(tmp_path / "café.jpg") == str(tmp_path / "café.jpg")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_damaged_json_names_the_file(tmp_path, content):
    (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(DataError, match=r"result\.json cannot be read as JSON"):
        read_json(tmp_path / "result.json")
