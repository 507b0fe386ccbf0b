"""Durable file writes: a reader sees the old content or the new content, never a part of either.

`replacing` writes every artifact: a temporary file in the destination folder, fsync, `os.replace`,
fsync of the folder. If the disk is full, `replacing` raises an error and the old file stays whole.

The hash of a file is computed once per process. A file counts as the same file as long as its path,
inode, size, and times of modification and change are the same.
"""

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ktfast.errors import ConfigError, DataError, reading, shown

SEAL = "sha256"
"""Key under which a JSON object of `write_sealed` holds its own hash."""

_CHUNK = 1 << 20
# The names that `replacing` gives to temporary files; the number is that of the process.
_TEMPORARY = re.compile(r"\..+\.[0-9]+\.tmp", re.DOTALL)
# A file whose last change is younger than this is hashed again next time: the clock of a file
# system advances in steps of some milliseconds, so that two changes may have one time.
_SETTLED_NS = 100_000_000

_known: dict[tuple[Any, ...], str] = {}
_sound: set[bytes] = set()
"""SHA-256 of the contents in which `read_sealed` has found no damage."""


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces `path` when the block ends without an error.

    Parameters
    ----------
    path : path
        The destination. Its folder must exist.

    Yields
    ------
    file : BinaryIO
        A binary file, open for writing and seeking.

    Raises
    ------
    OSError
        The write, the flush or the rename failed. `path` has its old content.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def check_place(path: str | os.PathLike[str]) -> None:
    """Refuse the name of a file that cannot be written, before the content is computed.

    Parameters
    ----------
    path : path
        The file, which need not exist.

    Raises
    ------
    ConfigError
        `path` is a folder, or its folder does not exist or does not let this process write.
    """
    place = Path(path).absolute().parent
    if os.path.isdir(path):  # False in a folder that this process may not read
        raise ConfigError(f"{shown(path)} is a folder; give the name of a file")
    if not place.is_dir():
        raise ConfigError(f"the folder of {shown(path)} does not exist; make this folder first")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ConfigError(
            f"the folder of {shown(path)} does not allow this process to write; give a file in "
            "another folder"
        )


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Flush a folder's entries to disk, so that a rename in the folder survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write bytes to a file, completely or not at all."""
    with replacing(path) as file:
        file.write(data)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a value as indented JSON to a file, completely or not at all."""
    write_bytes(path, _as_text(value))


def _as_text(value: Any) -> bytes:
    """Convert a value to the bytes that `write_json` writes."""
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def read_json(
    path: str | os.PathLike[str], build: Callable[[Any], Any] = lambda value: value
) -> Any:
    """Read a JSON file.

    Parameters
    ----------
    path : path
        The file.
    build : callable, optional
        Makes the result from the JSON value. `build` raises an exception if the value is not what
        the caller expects.

    Returns
    -------
    value : Any
        The JSON value, or what `build` made from it.

    Raises
    ------
    DataError
        The file is missing or damaged, or `build` raised an exception. The message names the file.
    """
    with reading(path, "JSON", "make the file again"):
        return build(json.loads(Path(path).read_bytes()))


def parse_row(line: str | bytes) -> dict[str, Any] | None:
    """Parse one line of a file with one JSON object per line; None if the line is damaged."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def write_sealed(path: str | os.PathLike[str], value: dict[str, Any]) -> None:
    """Write a JSON object with its own hash, completely or not at all.

    Parameters
    ----------
    path : path
        The file.
    value : dict
        JSON values. The key "sha256" is added for the hash.
    """
    write_json(path, {**value, SEAL: sha256_json(value)})


def read_sealed(path: str | os.PathLike[str], remedy: str) -> dict[str, Any]:
    """Read a JSON object that `write_sealed` wrote, without its hash.

    Parameters
    ----------
    path : path
        The file.
    remedy : str
        What the user can do if the file is damaged, as an order.

    Returns
    -------
    value : dict
        The object as it was written.

    Raises
    ------
    DataError
        The file is missing, or a byte of the file has changed. The message names the file.
    """
    with reading(path, "JSON", remedy):
        data = Path(path).read_bytes()
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(data)
        content = hashlib.sha256(data).digest()
        if content in _sound or _seal_holds(data, value):
            _sound.add(content)
            return {k: v for k, v in value.items() if k != SEAL}
    raise DataError(f"{shown(path)} is damaged; {remedy}")


def _seal_holds(data: bytes, value: Any) -> bool:
    """Whether a JSON value and the text that it was read from are as `write_sealed` wrote them."""
    # A changed space leaves the value as it was; the comparison of the texts finds such a change.
    if not isinstance(value, dict) or data != _as_text(value):
        return False
    return value.get(SEAL) == sha256_json({k: v for k, v in value.items() if k != SEAL})


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Compute the hexadecimal SHA-256 of a file's content, or recall it if the file is unchanged.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    sha256 : str
        The hash.
    """
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        begun, identity = time.time_ns(), _identity(path, os.fstat(file.fileno()))
        if identity in _known:
            return _known[identity]
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
        settled = begun - max(identity[-2:]) > _SETTLED_NS
        if settled and identity == _identity(path, os.fstat(file.fileno())):
            _known[identity] = digest.hexdigest()
    return digest.hexdigest()


def remember(path: str | os.PathLike[str], sha256: str) -> None:
    """Note the hash of a file that this process has just written, so that nobody computes it."""
    _known[_identity(path, os.stat(path))] = sha256


def sha256_json(value: Any) -> str:
    """Compute the hexadecimal SHA-256 of a JSON value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def describe_file(path: Path) -> dict[str, Any]:
    """Describe a file for a manifest: size in bytes and SHA-256."""
    sha256 = sha256_file(path)
    return {"bytes": path.stat().st_size, "sha256": sha256}


def part(path: Path) -> dict[str, Any]:
    """Describe a file for a manifest: name, size in bytes and SHA-256."""
    return {"file": path.name, **describe_file(path)}


def is_whole(folder: Path, part: Mapping[str, Any], *, hashed: bool) -> bool:
    """Compare a file with its manifest.

    Parameters
    ----------
    folder : Path
        Folder of the file.
    part : mapping
        The file's entry in the manifest, from the function `part`.
    hashed : bool
        Whether to compare the SHA-256 of the content too, not only the size.

    Returns
    -------
    whole : bool
        Whether the file is as the manifest says.
    """
    return problem(folder / part["file"], part, hashed=hashed) is None


def problem(path: Path, record: Mapping[str, Any], *, hashed: bool = True) -> str | None:
    """Say how a file differs from its entry in a manifest; None if the file is whole.

    Parameters
    ----------
    path : Path
        The file.
    record : mapping
        The file's entry in the manifest.
    hashed : bool
        Whether to compare the SHA-256 of the content too, not only the size.

    Returns
    -------
    problem : str or None
        What has happened to the file, such as "is missing".
    """
    try:
        size = path.stat().st_size if path.is_file() else None
        if size is None:
            return "is missing"
        if size != record["bytes"]:
            return f"has {size} bytes instead of {record['bytes']}"
        if hashed and sha256_file(path) != record["sha256"]:
            return "has another content than when it was written"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None


def remove_leftovers(folder: Path, *, deep: bool = False) -> None:
    """Remove the temporary files that a killed writer left in a folder.

    Files of other programs stay, also if their names end in .tmp.

    Parameters
    ----------
    folder : Path
        The folder.
    deep : bool
        Whether to remove such files in the folders below it, too.
    """
    for path in (folder.rglob if deep else folder.glob)(".*.tmp"):
        if _TEMPORARY.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def _identity(path: str | os.PathLike[str], status: os.stat_result) -> tuple[Any, ...]:
    times = status.st_mtime_ns, status.st_ctime_ns
    return os.path.abspath(path), status.st_dev, status.st_ino, status.st_size, *times
