"""The files of an artifact: name, size and hash of each, and whether it is still whole."""

from pathlib import Path
from typing import Any

from ktfast import durable


def part(path: Path) -> dict[str, Any]:
    """What a manifest says about a file: its name, size in bytes and SHA-256."""
    size, sha256 = path.stat().st_size, durable.sha256_file(path)
    return {"file": path.name, "bytes": size, "sha256": sha256}


def is_whole(folder: Path, part: dict[str, Any], *, hashed: bool) -> bool:
    """Whether a file has the size, and where `hashed` the content, that its manifest says."""
    path = folder / part["file"]
    return (
        path.is_file()
        and path.stat().st_size == part["bytes"]
        and (not hashed or durable.sha256_file(path) == part["sha256"])
    )


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of a writer that was killed."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)
