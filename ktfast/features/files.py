"""Read features that another program wrote: one array, and the paths of the images of its rows.

A file of features may name the image of every row. ktfast then matches rows with images by path.
"""

import csv
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ktfast import readers
from ktfast.errors import DataError, reading, shown

Array = npt.NDArray[Any]
Paths = tuple[str, ...]

LIST_SUFFIXES = (".csv", ".txt")
"""Suffixes of a list of paths that lies beside a `.npy` file and has the same stem."""
PATH_COLUMNS = ("path", "paths")
"""Names of the column or array that holds the paths."""


def read_npz(path: Path) -> tuple[Array, Paths]:
    """Read the arrays `features` [n, d] and `paths` [n] of an `.npz` file into memory.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    features : array [n, d]
        The features.
    paths : tuple of str
        Path of the image of each row.

    Raises
    ------
    DataError
        The file is damaged, or lacks an array, or an array has another shape.
    """
    remedy = "write it with numpy.savez(file, features=array, paths=numpy.array(list_of_paths))"
    names = readers.npz_names(path, remedy)
    key = next((name for name in PATH_COLUMNS if name in names), None)
    if "features" not in names or key is None:
        raise DataError(
            f"{shown(path)} must hold the arrays features and paths, got "
            f"{', '.join(sorted(names)) or 'no array'}; {remedy}"
        )
    arrays = readers.read_npz(path, ["features", key], remedy=remedy)
    features, paths = arrays["features"], arrays[key]
    if paths.dtype.kind not in "US" or paths.ndim != 1:
        raise DataError(
            f"{shown(path)}: the array {key} must hold text [n], got {paths.dtype} "
            f"{list(paths.shape)}; {remedy}"
        )
    return features, tuple(os.fsdecode(name) for name in paths.tolist())


def read_parquet(path: Path) -> tuple[Array, Paths]:
    """Read the features and paths of a Parquet file into memory.

    Parameters
    ----------
    path : Path
        A file with a column `path` of text or bytes, and a column of lists of numbers. The column
        of lists is named `features`, unless the file has only one column of lists.

    Returns
    -------
    features : array [n, d]
        The features.
    paths : tuple of str
        Path of the image of each row.

    Raises
    ------
    DataError
        pyarrow is not installed, the file is damaged or lacks a column, a value is missing, or the
        lists differ in length.
    """
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(
            f"{shown(path)}: reading Parquet needs pyarrow, which is not installed; "
            "pip install pyarrow"
        ) from error
    with reading(path, "a Parquet file", "write it again with pyarrow, pandas or polars"):
        with open(path, "rb") as stream:
            schema = parquet.read_schema(stream)
            lists = [field.name for field in schema if _is_list(arrow.types, field.type)]
            names = [field.name for field in schema]
            column = "features" if "features" in lists or len(lists) != 1 else lists[0]
            key = next((name for name in PATH_COLUMNS if name in names), None)
            if column not in lists or key is None:
                raise DataError(
                    f"{shown(path)} must have a column path and a column features of lists of "
                    f"numbers, got the columns {', '.join(names)}; name the columns so"
                )
            table = parquet.read_table(stream, columns=[key, column])
        features = _matrix(path, table[column].combine_chunks(), column)
        paths = table[key].to_pylist()
        if not all(isinstance(name, str | bytes) for name in paths):
            raise DataError(
                f"{shown(path)}: a row of the column {key} holds no text; give every row the path "
                "of its image"
            )
    return features, tuple(os.fsdecode(name) for name in paths)


def _is_list(types: Any, kind: Any) -> bool:
    tests = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    return any(test(kind) for test in tests)


def _matrix(path: Path, lists: Any, column: str) -> Array:
    """Turn a column of equally long lists of numbers into an array [n, d]."""
    values = lists.flatten()
    n, lengths = len(lists), set(lists.value_lengths().unique().to_pylist())
    if lists.null_count or values.null_count or len(lengths) > 1:
        found = sorted(str(length) for length in lengths)
        raise DataError(
            f"{shown(path)}: the lists of the column {column} must have one length and no missing "
            f"value, got {lists.null_count + values.null_count} missing values and the lengths "
            f"{', '.join(found[:5])}; give every image the same number of features"
        )
    array: Array = values.to_numpy(zero_copy_only=False)
    return array.reshape(n, -1) if n else array.reshape(0, 0)


def list_beside(path: Path) -> Path | None:
    """Find the list of paths beside a `.npy` file: the same stem with the suffix .csv or .txt.

    Raises
    ------
    DataError
        There are two lists.
    """
    found = [file for s in LIST_SUFFIXES if (file := path.with_suffix(s)).is_file()]
    if len(found) > 1:
        raise DataError(
            f"two lists of paths lie beside {shown(path)}: {shown(found[0].name)} and "
            f"{shown(found[1].name)}; rename the list that does not belong to the features"
        )
    return found[0] if found else None


def read_list(path: Path) -> Paths:
    """Read a list of paths.

    Parameters
    ----------
    path : Path
        A `.txt` file with one path per line, or a `.csv` file with a column `path` or with only one
        column. The text is UTF-8. Bytes that are not UTF-8 are kept, so that any file name can be
        listed.

    Returns
    -------
    paths : tuple of str
        The paths in the order of the file.

    Raises
    ------
    DataError
        The file cannot be read, has several columns and none is named `path`, or has a line with
        another number of columns than the first line.
    """
    with reading(path, "a list of paths", "give one path per line, or a CSV with a column path"):
        text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
        if path.suffix.lower() != ".csv":
            return tuple(line for line in text.replace("\r\n", "\n").split("\n") if line)
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    if not rows:
        return ()
    head = [name.strip().lower() for name in rows[0]]
    column = next((head.index(name) for name in PATH_COLUMNS if name in head), None)
    if column is None and len(head) > 1:
        raise DataError(
            f"{shown(path)} has the columns {', '.join(rows[0][:5])}, and none is named path; name "
            "the column of the paths in the first line"
        )
    body = rows if column is None else rows[1:]
    short = next((row for row in body if len(row) != len(head)), None)
    if short is not None:
        raise DataError(
            f"{shown(path)}: a line has {len(short)} columns and the first line has {len(head)}; "
            "put paths that hold a comma in quotation marks"
        )
    return tuple(row[column or 0] for row in body)


def checked(path: Path, features: Array, paths: Sequence[str] | None, listed: Path | None) -> Array:
    """Check that an array holds numbers [n, d], one row per path.

    Parameters
    ----------
    path : Path
        File of the features, for messages.
    features : array
        What the file holds.
    paths : sequence of str or None
        Path of the image of each row, if the file names the paths.
    listed : Path or None
        List that the paths come from, if they do not come from the file itself.

    Returns
    -------
    features : array [n, d]
        The array.

    Raises
    ------
    DataError
        The array has another shape or type, or the number of paths differs from the number of rows.
    """
    if features.ndim != 2 or features.dtype.kind not in "fiu":
        raise DataError(
            f"{shown(path)} must hold numbers [n, d], got {features.dtype} {list(features.shape)}; "
            "write one row of numbers for each image"
        )
    if 0 in features.shape:
        raise DataError(
            f"{shown(path)} holds no numbers: its shape is {list(features.shape)}; give a file "
            "with at least one row and one column"
        )
    if paths is not None and len(paths) != len(features):
        place = shown(path if listed is None else listed)
        raise DataError(
            f"{place} gives {len(paths)} paths for the {len(features)} rows of {shown(path)}, the "
            f"first path is {shown(paths[0]) if paths else 'missing'}; give one path per row"
        )
    return features


READERS: dict[str, Callable[[Path], tuple[Array, Paths]]] = {
    ".npz": read_npz,
    ".parquet": read_parquet,
    ".pq": read_parquet,
}
"""Readers of files that hold features and paths, by suffix."""
