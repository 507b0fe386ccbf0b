"""Durable file writes: a reader sees the old content or the new content, never a part of either.

`replacing` writes every artifact: a temporary file in the destination folder, fsync, `os.replace`,
fsync of the folder. If the disk is full, `replacing` raises an error and the old file stays whole.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ktfast.errors import reading


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
    write_bytes(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def read_json(
    path: str | os.PathLike[str], build: Callable[[Any], Any] = lambda value: value
) -> Any:
    """Read a JSON file.

    Parameters
    ----------
    path : path
        The file.
    build : callable, optional
        Makes the result from the JSON value. An exception of `build` means that the file holds
        something else.

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


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Compute the hexadecimal SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_json(value: Any) -> str:
    """Compute the hexadecimal SHA-256 of a JSON value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def part(path: Path) -> dict[str, Any]:
    """Describe a file for a manifest: name, size in bytes and SHA-256."""
    size, sha256 = path.stat().st_size, sha256_file(path)
    return {"file": path.name, "bytes": size, "sha256": sha256}


def is_whole(folder: Path, part: dict[str, Any], *, hashed: bool) -> bool:
    """Compare a file with its manifest.

    Parameters
    ----------
    folder : Path
        Folder of the file.
    part : dict
        The file's entry in the manifest, from the function `part`.
    hashed : bool
        Whether to compare the SHA-256 of the content too, not only the size.

    Returns
    -------
    whole : bool
        Whether the file is as the manifest says.
    """
    path = folder / part["file"]
    return (
        path.is_file()
        and path.stat().st_size == part["bytes"]
        and (not hashed or sha256_file(path) == part["sha256"])
    )


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that a killed writer left in a folder."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)
