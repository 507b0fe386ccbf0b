"""Files here and in object storage behind one interface: list them, and read parts of them.

Object storage is read through the package fsspec, which has an implementation for each protocol,
such as s3fs for `s3://`.
"""

import argparse
import fnmatch
import glob
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from ktfast import durable
from ktfast.errors import ConfigError, DataError, reading, shown

REMEDY = "check the address, the credentials and the network"
# A Path holds one slash of the two that follow the protocol. One letter would be a drive.
_URL = re.compile(r"([a-z][a-z0-9+.-]+):/+(.*)", re.DOTALL)
_FILE_URL = re.compile(r"^(file|local):/+")
_RANGE = re.compile(r"\{([0-9]+)\.\.([0-9]+)\}")
_CHOICE = re.compile(r"\{([^{}]*,[^{}]*)\}")


def argument_path(text: str) -> Path:
    """Convert an argument of a command line to a path; for the parameter `type` of argparse.

    A leading ~ is replaced by the home folder, as shells do not in `--run=~/runs`.

    Raises
    ------
    argparse.ArgumentTypeError
        The text is empty, as after a shell variable that is not set. Python would read it as the
        current folder.
    """
    if not text:
        raise argparse.ArgumentTypeError("the path is empty; give a file or folder")
    return Path(os.path.expanduser(text))


def url_of(path: str | os.PathLike[str]) -> str | None:
    """Give the URL that a path stands for; None for a path of this machine.

    `Path` turns `s3://bucket/x` into `s3:/bucket/x`, which this function reads, too. The protocols
    `file` and `local` stand for paths of this machine.
    """
    found = _URL.fullmatch(os.fspath(path))
    if found is None or found[1] in ("file", "local"):
        return None
    return f"{found[1]}://{found[2]}"


def local_path(path: str | os.PathLike[str]) -> Path:
    """Give the path of a `file:` URL, which `Path` may have read; other paths are unchanged."""
    return Path(_FILE_URL.sub("/", os.fspath(path)))


def is_pattern(path: str | os.PathLike[str]) -> bool:
    """Whether a path that names no file here may stand for several files."""
    return any(mark in os.fspath(path) for mark in "*?[{")


def check_apart(
    out: str | os.PathLike[str],
    inputs: Iterable[str | os.PathLike[str]],
    suffixes: tuple[str, ...] = (),
) -> None:
    """Refuse an output file that would replace an input, or would be read with the inputs later.

    Parameters
    ----------
    out : path
        The output file or its URL.
    inputs : iterable of path
        Files, folders, patterns and URLs that a command reads.
    suffixes : tuple of str
        Suffixes of the files that the command reads from a folder.

    Raises
    ------
    ConfigError
        `out` is an input, fits a pattern, or lies in a folder of inputs with one of the suffixes.
    """
    target = url_of(out) or os.path.realpath(local_path(out))
    for given in inputs:
        whole = url_of(given) or os.path.realpath(local_path(given))
        inside = target.startswith(whole.rstrip("/") + "/") and target.lower().endswith(suffixes)
        fits = is_pattern(given) and any(
            fnmatch.fnmatchcase(target, each) for each in _expanded(whole)
        )
        if target == whole:
            raise ConfigError(
                f"{shown(out)} is read by this command, and cannot be the result as well; give "
                "another file for the result"
            )
        if fits or (suffixes and inside):
            raise ConfigError(
                f"{shown(out)} would be one of the files of {shown(given)}, which this command "
                "reads; give another place for the result"
            )


class StoredFile(ABC):
    """A file of which parts are read.

    Attributes
    ----------
    name : str
        Path or URL.
    size : int
        Bytes.
    """

    name: str
    size: int

    @property
    @abstractmethod
    def identity(self) -> str:
        """A text that changes when the content changes."""

    @abstractmethod
    def open(self) -> BinaryIO:
        """Open the file for reading and seeking."""

    @abstractmethod
    def read(self, start: int, length: int) -> bytes:
        """Read `length` bytes from byte `start` on; several threads may call this.

        Raises
        ------
        DataError
            The file cannot be read, or is shorter.
        """


class LocalFile(StoredFile):
    """A file of this machine; see `StoredFile`.

    Parameters
    ----------
    path : str
        The file.
    """

    def __init__(self, path: str) -> None:
        self.name = path
        with reading(path, "a file"):
            self.size = os.stat(path).st_size

    @property
    def identity(self) -> str:
        """SHA-256 of the content."""
        with reading(self.name, "a file"):
            return durable.sha256_file(self.name)

    def open(self) -> BinaryIO:
        """Open the file."""
        with reading(self.name, "a file"):
            return open(self.name, "rb")

    def read(self, start: int, length: int) -> bytes:
        """Read a part of the file; see `StoredFile.read`."""
        with self.open() as file:
            return _whole(os.pread(file.fileno(), length, start), length, self.name)


class RemoteFile(StoredFile):
    """A file of object storage; see `StoredFile`.

    Parameters
    ----------
    system : AbstractFileSystem
        File system of fsspec.
    path : str
        Path in the file system.
    name : str
        URL of the file.
    """

    def __init__(self, system: Any, path: str, name: str) -> None:
        self._system, self._path, self.name = system, path, name
        with reading(name, "a file", REMEDY):
            self.size = int(system.size(path))

    @property
    def identity(self) -> str:
        """What the storage says of the content: its checksum, or its size and time."""
        with reading(self.name, "a file", REMEDY):
            return str(self._system.checksum(self._path))

    def open(self) -> BinaryIO:
        """Open the file."""
        with reading(self.name, "a file", REMEDY):
            return cast(BinaryIO, self._system.open(self._path, "rb"))

    def read(self, start: int, length: int) -> bytes:
        """Read a part of the file; see `StoredFile.read`."""
        if not length:
            return b""
        with reading(self.name, "a file", REMEDY):
            data = self._system.cat_file(self._path, start=start, end=start + length)
        return _whole(data, length, self.name)


def stored_files(pattern: str | os.PathLike[str], suffixes: Sequence[str]) -> list[StoredFile]:
    """List the files that a path, a folder or a pattern stands for, in the order of their names.

    Parameters
    ----------
    pattern : path
        A file; a folder, whose files with one of the suffixes are meant, at any depth; or a pattern
        with `*`, `?`, `[...]`, `{0000..0010}` or `{a,b}`. Each may be a URL.
    suffixes : sequence of str
        Suffixes of the files of a folder.

    Returns
    -------
    files : list of StoredFile
        The files, at least one.

    Raises
    ------
    DataError
        No file is meant, or a file does not exist, or a package is missing.
    """
    files: list[StoredFile] = []
    url = url_of(pattern)
    if url is None:
        text = os.fspath(local_path(pattern))
        # A file here may have any name, also that of a pattern.
        for each in [text] if os.path.lexists(text) else _expanded(text):
            files += [LocalFile(path) for path in _listed_here(each, suffixes)]
    else:
        system, path = file_system(url)
        for each in _expanded(path):
            with reading(url, "stored files", REMEDY):
                found = _listed_there(system, each, suffixes)
            files += [RemoteFile(system, path, system.unstrip_protocol(path)) for path in found]
    if not files:
        raise DataError(
            f"{shown(url or pattern)} names no file that ends in {' or '.join(suffixes)}; give a "
            "file, a folder or a pattern"
        )
    return files


def file_system(url: str) -> tuple[Any, str]:
    """Open the file system of a URL; give it with the path in it.

    Raises
    ------
    DataError
        fsspec or the package of the protocol is not installed, or the protocol is unknown.
    """
    try:
        import fsspec

        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        reason = "install fsspec" if error.name == "fsspec" else str(error)
        raise DataError(
            f"{shown(url)} needs the package fsspec and one for its protocol, of which one is not "
            f"installed: {reason}"
        ) from error
    except Exception as error:  # each file system raises its own exceptions
        raise DataError(
            f"{shown(url)} cannot be opened ({type(error).__name__}: {error}); {REMEDY}"
        ) from error
    return system, str(path)


def _listed_here(path: str, suffixes: Sequence[str]) -> list[str]:
    """The files of this machine that a path, a folder or a pattern names."""
    if os.path.isdir(path):
        found = glob.iglob("**", root_dir=path, recursive=True)
        return sorted(os.path.join(path, name) for name in found if name.endswith(tuple(suffixes)))
    if not os.path.lexists(path) and glob.has_magic(path):
        return sorted(glob.glob(path, recursive=True))
    return [path]


def _listed_there(system: Any, path: str, suffixes: Sequence[str]) -> list[str]:
    """The files of a file system that a path, a folder or a pattern names."""
    if glob.has_magic(path):
        return sorted(str(found) for found in system.glob(path))
    if system.isdir(path):
        found = system.find(path)
        return sorted(str(name) for name in found if str(name).endswith(tuple(suffixes)))
    return [path]


def _expanded(pattern: str) -> Iterator[str]:
    """Expand `{0000..0010}` and `{a,b}` as a shell does."""
    if found := _RANGE.search(pattern):
        width = len(found[1]) if found[1].startswith("0") else 1
        names = [f"{n:0{width}d}" for n in range(int(found[1]), int(found[2]) + 1)]
    elif found := _CHOICE.search(pattern):
        names = found[1].split(",")
    else:
        yield pattern
        return
    for name in names:
        yield from _expanded(pattern[: found.start()] + name + pattern[found.end() :])


def _whole(data: bytes, length: int, name: str) -> bytes:
    if len(data) != length:
        raise DataError(
            f"{shown(name)} became shorter while it was read; write the file again, and do not "
            "change it while it is in use"
        )
    return data
