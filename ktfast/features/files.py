"""Read features that another program wrote: one array, and the paths of the images of its rows.

A file of features may name the image of every row. ktfast then matches rows with images by path.
"""

import csv
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ktfast import readers
from ktfast.errors import DataError, reading, shown

Array = npt.NDArray[Any]
Paths = tuple[str, ...]

LIST_SUFFIXES = (".csv", ".txt")
"""Suffixes of a list of paths that lies beside a `.npy` file and has the same stem."""
PATH_COLUMNS = ("path", "paths")
"""Names of the column or array that holds the paths."""


def read_npz(path: Path, needs_paths: bool = True) -> tuple[Array, Paths | None]:
    """Read the arrays `features` [n, d] and `paths` [n] of an `.npz` file into memory.

    Parameters
    ----------
    path : Path
        The file.
    needs_paths : bool
        Refuse a file without paths. False: the file may also hold a single array of any name.

    Returns
    -------
    features : array [n, d]
        The features.
    paths : tuple of str or None
        Path of the image of each row. None: the file names no paths.

    Raises
    ------
    DataError
        The file is damaged, sparse, or lacks an array, or an array has another shape.
    """
    remedy = "write it with numpy.savez(file, features=array, paths=numpy.array(list_of_paths))"
    if not needs_paths:
        remedy = "write it with numpy.savez(file, features=array)"
    names = readers.npz_names(path, remedy)
    if {"format", "shape", "data"} <= set(names):
        raise DataError(
            f"{shown(path)} holds a sparse matrix of SciPy, but dense features are needed; "
            "write scipy.sparse.load_npz(file).toarray() with numpy.save"
        )
    key = next((name for name in PATH_COLUMNS if name in names), None)
    others = [name for name in names if name != key]
    wanted = others[0] if len(others) == 1 and not needs_paths else "features"
    if wanted not in names or (key is None and needs_paths):
        expected = "the arrays features and paths" if needs_paths else "one array, or features"
        raise DataError(
            f"{shown(path)} must hold {expected}, got {', '.join(sorted(names)) or 'no array'}; "
            f"{remedy}"
        )
    arrays = readers.read_npz(path, [wanted, *([key] if key else [])], remedy=remedy)
    if key is None:
        return arrays[wanted], None
    paths = arrays[key]
    if paths.dtype.kind not in "US" or paths.ndim != 1:
        raise DataError(
            f"{shown(path)}: the array {key} must hold text [n], got {paths.dtype} "
            f"{list(paths.shape)}; {remedy}"
        )
    return arrays[wanted], tuple(os.fsdecode(name) for name in paths.tolist())


def read_parquet(path: Path, needs_paths: bool = True) -> tuple[Array, Paths | None]:
    """Read the features and paths of a Parquet file into memory.

    Parameters
    ----------
    path : Path
        A file with a column `path` of text or bytes, and a column of lists of numbers. The column
        of lists is named `features`, unless the file has only one column of lists.
    needs_paths : bool
        Refuse a file without paths. False: a file without lists is also read, if all columns but
        the paths hold numbers of one type. Each column is then a feature.

    Returns
    -------
    features : array [n, d]
        The features.
    paths : tuple of str or None
        Path of the image of each row. None: the file names no paths.

    Raises
    ------
    DataError
        pyarrow is not installed, the file is damaged or lacks a column, a value is missing, or the
        lists differ in length.
    """
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(
            f"{shown(path)}: reading Parquet needs pyarrow, which is not installed; "
            "pip install pyarrow"
        ) from error
    with reading(path, "a Parquet file", "write it again with pyarrow, pandas or polars"):
        with open(path, "rb") as stream:
            schema = parquet.read_schema(stream)
            columns, key = feature_columns(path, schema, needs_paths)
            table = parquet.read_table(stream, columns=[*([key] if key else []), *columns])
        features = table_matrix(path, table, columns)
        if key is None:
            return features, None
        paths = table[key].to_pylist()
        if not all(isinstance(name, str | bytes) for name in paths):
            raise DataError(
                f"{shown(path)}: a row of the column {key} holds no text; give every row the path "
                "of its image"
            )
    return features, tuple(os.fsdecode(name) for name in paths)


def feature_columns(
    path: Path | str, schema: Any, needs_paths: bool, keys: Sequence[str] = PATH_COLUMNS
) -> tuple[list[str], str | None]:
    """Choose the columns of a table of Arrow that hold the features and the paths.

    Parameters
    ----------
    path : Path or str
        The file, for messages.
    schema : Schema
        The columns of the table.
    needs_paths : bool
        Refuse a table without paths; see `read_parquet`.
    keys : sequence of str
        Names that the column of the paths may have.

    Returns
    -------
    columns : list of str
        One column of lists, or columns of numbers.
    key : str or None
        The column of the paths, if there is one.

    Raises
    ------
    DataError
        The table lacks a column. The message names the columns.
    """
    lists = [field.name for field in schema if _is_list(field.type)]
    names = [field.name for field in schema]
    column = "features" if "features" in lists or len(lists) != 1 else lists[0]
    key = next((name for name in keys if name in names), None)
    if not lists and not needs_paths:
        return _number_columns(path, schema, key), key
    if column not in lists or (key not in PATH_COLUMNS and needs_paths):
        expected = "a column path and a column features" if needs_paths else "one column"
        raise DataError(
            f"{shown(path)} must have {expected} of lists of "
            f"numbers, got the columns {', '.join(names)}; name the columns so"
        )
    return [column], key


def table_matrix(path: Path | str, table: Any, columns: Sequence[str]) -> Array:
    """Turn the columns that `feature_columns` chose into an array [n, d].

    Raises
    ------
    DataError
        A value is missing, or the lists differ in length. The message names the column.
    """
    if _is_list(table.schema.field(columns[0]).type):
        return _matrix(path, table[columns[0]].combine_chunks(), columns[0])
    return _from_columns(path, table, columns)


def _number_columns(path: Path | str, schema: Any, key: str | None) -> list[str]:
    """Name the columns of numbers; refuse columns of other types, such as row numbers or text."""
    kinds = {field.name: str(field.type) for field in schema if not _is_index(field.name, key)}
    first = next(iter(kinds.values()), "nothing")
    odd = next((name for name, kind in kinds.items() if kind != first), None)
    if odd is not None or first not in _NUMBERS:
        name = next(iter(kinds), "none") if odd is None else odd
        raise DataError(
            f"{shown(path)}: all columns must hold numbers of one type, but the column {name} "
            f"holds {kinds.get(name, 'nothing')}"
            f"{'' if odd is None else f' and the first column holds {first}'}; remove or convert "
            "columns that are no features, or name the paths path"
        )
    return list(kinds)


_NUMBERS = (
    *("float", "double", "halffloat", "int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64"),
)


def _is_index(name: str, key: str | None) -> bool:
    """Whether a column holds the paths, or the index that pandas stores."""
    return name == key or name.startswith("__index_level_")


def _from_columns(path: Path | str, table: Any, columns: Sequence[str]) -> Array:
    """Join columns of numbers to an array [n, d]."""
    missing = next((name for name in columns if table[name].null_count), None)
    if missing is not None:
        raise DataError(
            f"{shown(path)}: the column {missing} has {table[missing].null_count} missing values; "
            "fill the values, or remove the rows"
        )
    return np.stack([table[name].to_numpy() for name in columns], axis=1)


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    tests = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    return any(test(kind) for test in tests)


def _matrix(path: Path | str, lists: Any, column: str) -> Array:
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


READERS: dict[str, Callable[[Path, bool], tuple[Array, Paths | None]]] = {
    ".npz": read_npz,
    ".parquet": read_parquet,
    ".pq": read_parquet,
}
"""Readers of files that hold features and paths, by suffix."""
