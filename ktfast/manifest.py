"""Manifests: the size and SHA-256 of every file of a folder, and the comparison of files with them.

The `result.json` of a stage holds the manifest of the stage's folder. Whoever reads a file of a
stage compares the file with the manifest first.
"""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ktfast.durable import describe_file, problem, read_json, read_sealed
from ktfast.errors import DataError, shown

Record = Mapping[str, Any]
"""A file's entry in a manifest: "bytes" and "sha256"."""

_THREADS = 8
# The keys of a result of an earlier version of ktfast, which has neither hash nor manifest.
_UNSEALED = frozenset(
    {"stage", "version", "config", "inputs", "fingerprint", "started", "seconds", "throughput"}
    | {"outputs", "summary"}
)


def describe(folder: Path, leave_out: Callable[[str], bool]) -> dict[str, dict[str, Any]]:
    """Describe all files of a folder and of the folders below it.

    Parameters
    ----------
    folder : Path
        The folder.
    leave_out : callable
        Takes a path below the folder, and returns whether the manifest leaves the file out.

    Returns
    -------
    files : dict of str to dict
        Size in bytes and SHA-256 by path below the folder.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {
        name: path for path in paths if not leave_out(name := path.relative_to(folder).as_posix())
    }
    with ThreadPoolExecutor(_THREADS) as pool:
        return dict(zip(names, pool.map(describe_file, names.values()), strict=True))


def problems(
    pairs: Iterable[tuple[Path, Record]], *, hashed: bool = True
) -> list[tuple[Path, str]]:
    """Compare files with their entries in a manifest, several files at a time.

    Parameters
    ----------
    pairs : iterable of (Path, mapping)
        Files and their entries.
    hashed : bool
        Whether to compare the SHA-256 of the content too, not only the size.

    Returns
    -------
    found : list of (Path, str)
        The damaged files, each with what has happened to it.
    """
    pairs = list(pairs)
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda pair: problem(*pair, hashed=hashed), pairs)
        return [(path, text) for (path, _), text in zip(pairs, found, strict=True) if text]


def read_result(path: Path, remedy: str) -> dict[str, Any]:
    """Read and verify the `result.json` of a stage.

    Parameters
    ----------
    path : Path
        The file.
    remedy : str
        What the user can do if the file is damaged, as an order.

    Returns
    -------
    result : dict
        The result. Its key "files" is the manifest of the stage's folder. A result that an earlier
        version of ktfast wrote has no manifest.

    Raises
    ------
    DataError
        The file is missing or damaged.
    """
    return read_sealed_or(path, remedy, _UNSEALED)


def read_sealed_or(path: Path, remedy: str, unsealed: frozenset[str]) -> dict[str, Any]:
    """Read a sealed JSON object, or an object of an earlier version, which has no hash.

    Parameters
    ----------
    path : Path
        The file.
    remedy : str
        What the user can do if the file is damaged, as an order.
    unsealed : frozenset of str
        All keys that an object without a hash may have.

    Returns
    -------
    value : dict
        The object.

    Raises
    ------
    DataError
        The file is missing or damaged.
    """
    try:
        return read_sealed(path, remedy)
    except DataError as damage:
        try:
            value = read_json(path)
        except DataError:
            raise damage from None
        if isinstance(value, dict) and unsealed.issuperset(value):
            return value
        raise


def verified(folder: Path, name: str, files: Mapping[str, Record] | None, remedy: str) -> Path:
    """Give the path of a file of a stage's folder after comparing the file with the manifest.

    Parameters
    ----------
    folder : Path
        The stage's folder.
    name : str
        Path of the file below the folder.
    files : mapping of str to mapping, or None
        The manifest. None, for a stage of an earlier version: only the existence is checked.
    remedy : str
        What the user can do if the file is damaged, as an order.

    Returns
    -------
    path : Path
        The file.

    Raises
    ------
    DataError
        The file is missing or damaged. The message names the file and the remedy.
    """
    path = folder / name
    if files is None:
        text = None if path.is_file() else "is missing"
    elif name not in files:
        text = "is not in the manifest of its stage"
    else:
        text = problem(path, files[name])
    if text is not None:
        raise DataError(f"{shown(path)} is damaged: it {text}; {remedy}")
    return path
