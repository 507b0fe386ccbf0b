"""Tell whether files have changed: by size and time first, and by content if only the time differs.

Reading all files of a data set takes long. A file whose size and modification time are those of its
record counts as unchanged. If only the time differs, the content decides. Touching or copying a
file is therefore no change, and replacing a file by another file of equal size is a change.
"""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ktfast.durable import read_sealed, write_sealed
from ktfast.errors import DataError, shown
from ktfast.native.threads import usable_cores

SCHEMA = 1
UNREAD = ""
"""Hash of a file that could not be read: no verdict about its content."""


@dataclasses.dataclass(frozen=True)
class FileRecord:
    """State of a file when its content was read.

    Attributes
    ----------
    size : int
        Bytes.
    mtime_ns : int
        Time of the last modification, nanoseconds since 1970.
    sha256 : str
        Hash of the content; `UNREAD` if the file could not be read.
    """

    size: int
    mtime_ns: int
    sha256: str

    def is_of(self, size: int, mtime_ns: int) -> bool:
        """Say whether a file of this size and time is certainly the recorded one."""
        return self.sha256 != UNREAD and (self.size, self.mtime_ns) == (size, mtime_ns)


def read_recorded(path: str | os.PathLike[str]) -> tuple[bytes, FileRecord]:
    """Read a file, and record its state.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    content : bytes
        The file's bytes.
    record : FileRecord
        The file's size and time before the bytes were read, and the hash of the bytes.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        content = file.read()
    digest = hashlib.sha256(content).hexdigest()
    return content, FileRecord(status.st_size, status.st_mtime_ns, digest)


class FileHashes:
    """Hashes of files, kept in a JSON file so that an unchanged file is read once only.

    Parameters
    ----------
    store : Path, optional
        The JSON file. It is read now if it exists, and written by `save`. A damaged file counts as
        empty, because the hashes can be computed again. None: nothing is kept.
    """

    def __init__(self, store: Path | None = None) -> None:
        self._store = store
        self._records = read_records(store) if store is not None else {}
        self._changed = False

    def sha256(self, paths: Iterable[str | os.PathLike[str]]) -> list[str]:
        """Give the hash of each file's content; read the files of which no valid record is kept.

        Parameters
        ----------
        paths : iterable of path
            The files.

        Returns
        -------
        hashes : list of str
            SHA-256 of each file; `UNREAD` for a file that cannot be read.
        """
        names = [os.path.abspath(path) for path in paths]
        with ThreadPoolExecutor(usable_cores()) as pool:
            return list(pool.map(self._hash, names))

    def _hash(self, path: str) -> str:
        known = self._records.get(path)
        try:
            status = os.stat(path)
            if known is not None and known.is_of(status.st_size, status.st_mtime_ns):
                return known.sha256
            _, record = read_recorded(path)
        except OSError:
            return UNREAD
        self._records[path] = record
        self._changed = True
        return record.sha256

    def save(self) -> None:
        """Write the hashes to the store if there are new ones."""
        if self._store is not None and self._changed:
            write_records(self._store, self._records)
            self._changed = False


class ContentHashes(FileHashes):
    """Hashes of items that are parts of files, such as images in tar files; nothing is kept.

    Parameters
    ----------
    read : callable
        Gives the bytes of the item with a path, or raises a `DataError`.
    """

    def __init__(self, read: Callable[[str], bytes]) -> None:
        super().__init__()
        self._read = read

    def sha256(self, paths: Iterable[str | os.PathLike[str]]) -> list[str]:
        """Give the hash of each item's content; `UNREAD` for an item that cannot be read."""
        with ThreadPoolExecutor(usable_cores()) as pool:
            return list(pool.map(self._hash, map(os.fspath, paths)))

    def _hash(self, path: str) -> str:
        try:
            return hashlib.sha256(self._read(path)).hexdigest()
        except DataError:
            return UNREAD


def write_records(path: Path, records: Mapping[str, FileRecord], **more: Any) -> None:
    """Write records by path as a sealed JSON object, with further values.

    Parameters
    ----------
    path : Path
        The JSON file.
    records : mapping
        Records by path.
    **more : Any
        Further JSON values.
    """
    columns = {
        "paths": list(records),
        "sizes": [record.size for record in records.values()],
        "mtimes_ns": [record.mtime_ns for record in records.values()],
        "hashes": [record.sha256 for record in records.values()],
    }
    write_sealed(path, {"schema": SCHEMA, **more, **columns})


def read_records(path: Path, **expected: Any) -> dict[str, FileRecord]:
    """Read what `write_records` wrote.

    Parameters
    ----------
    path : Path
        The JSON file.
    **expected : Any
        Values that the file must hold.

    Returns
    -------
    records : dict
        Records by path; empty if the file is missing or damaged, or holds other values.
    """
    if not path.is_file():
        return {}
    try:
        value = read_sealed(path, "the files are read again")
        wanted = {"schema": SCHEMA, **expected}
        if {key: value.get(key) for key in wanted} != wanted:
            return {}
        columns = (value[name] for name in ("paths", "sizes", "mtimes_ns", "hashes"))
        return {
            str(name): FileRecord(int(size), int(mtime), str(sha256))
            for name, size, mtime, sha256 in zip(*columns, strict=True)
        }
    except (DataError, OSError, AttributeError, KeyError, TypeError, ValueError):
        return {}


@dataclasses.dataclass(frozen=True)
class FileChanges:
    """Differences between recorded files and the files of a folder now, by relative path.

    Attributes
    ----------
    added, removed, replaced : tuple of str
        Files that are new, that are gone, and that have other content.
    readable : tuple of str
        Files that could not be read when the record was made, and can be read now.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    readable: tuple[str, ...] = ()

    def text(self) -> str:
        """Name the first file of each kind of change; empty if no file changed."""
        kinds = (
            ("has other content", "have other content", self.replaced),
            ("is new", "are new", self.added),
            ("is gone", "are gone", self.removed),
        )
        clauses = []
        for one, many, paths in kinds:
            if len(paths) == 1:
                clauses.append(f"{shown(paths[0])} {one}")
            elif paths:
                clauses.append(f"{len(paths)} files {many}, the first is {shown(paths[0])}")
        return "; ".join(clauses)


def compare_files(
    root: Path,
    files: Mapping[str, tuple[int, int]],
    records: Mapping[str, FileRecord],
    hashes: FileHashes,
) -> FileChanges:
    """Compare the files of a folder with their records.

    Parameters
    ----------
    root : Path
        The folder.
    files : mapping
        Size and modification time in nanoseconds of each file now, by relative path.
    records : mapping
        Recorded files by relative path.
    hashes : FileHashes
        Hashes of files whose time differs from the record.

    Returns
    -------
    changes : FileChanges
        The differences.
    """
    both = [path for path in files if path in records]
    unread = [path for path in both if records[path].sha256 == UNREAD]
    doubtful = [
        path
        for path in both
        if records[path].sha256 != UNREAD
        and records[path].size == files[path][0]
        and not records[path].is_of(*files[path])
    ]
    now = dict(
        zip(
            [*unread, *doubtful],
            hashes.sha256(root / path for path in (*unread, *doubtful)),
            strict=True,
        )
    )
    other_size = {path for path in both if records[path].size != files[path][0]} - set(unread)
    other_content = {path for path in doubtful if now[path] != records[path].sha256}
    return FileChanges(
        added=tuple(sorted(files.keys() - records.keys())),
        removed=tuple(sorted(records.keys() - files.keys())),
        replaced=tuple(sorted(other_size | other_content)),
        readable=tuple(path for path in unread if now[path] != UNREAD),
    )
