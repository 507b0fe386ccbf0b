"""Read features of many files, or of object storage, as lazy shards with stable row ids.

A dataset is a folder or a pattern of Parquet files, a Lance dataset, or `.npy` files in object
storage. A row is read when a function asks for the row. A pass over the rows holds one or two row
groups of the Parquet files in memory.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ktfast import readers
from ktfast.errors import DataError, reading, shown
from ktfast.features.files import PATH_COLUMNS, checked, feature_columns, table_matrix
from ktfast.native.lazy_rows import Array, LazyRows, RowGroups
from ktfast.ops.vectors import DTYPES
from ktfast.optional import problem_of
from ktfast.remote import StoredFile, is_pattern, local_path, stored_files, url_of

PARQUET = (".parquet", ".pq")
ID_COLUMNS = (*PATH_COLUMNS, "id", "ids")
"""Names of the column that names the rows, the first that exists."""
WRITE_AGAIN = "write it again with pyarrow, pandas or polars"
_THREADS = 16
_HEADER_BYTES = 1 << 16


@dataclass(frozen=True)
class RowIds:
    """Names of the rows of a shard, which stay the same when files are added to the dataset.

    Attributes
    ----------
    column : str or None
        Column of the dataset that names the rows. None: the file, and the row's number in the file.
    file : str
        File of the shard.
    n : int
        Number of rows.
    read : callable
        Reads the column as an array of Arrow.
    first : int
        Number in the file of the shard's first row.
    """

    column: str | None
    file: str
    n: int
    read: Callable[[], Any] = lambda: None
    first: int = 0


@dataclass(frozen=True)
class Dataset:
    """Features of several files.

    Attributes
    ----------
    shards : list of LazyRows
        The rows.
    ids : list of RowIds
        The names of the rows of each shard.
    identity : callable
        Gives JSON values that change when the content changes.
    """

    shards: list[LazyRows]
    ids: list[RowIds]
    identity: Callable[[], list[str]]

    def paths(self) -> tuple[str, ...] | None:
        """The path of every row; None if the dataset has no column of paths."""
        if any(ids.column not in PATH_COLUMNS for ids in self.ids):
            return None
        return tuple(_text(name, ids) for ids in self.ids for name in ids.read().to_pylist())


def is_dataset(path: str | os.PathLike[str]) -> bool:
    """Whether a path stands for a dataset, and not for one file or a folder of features here."""
    if url_of(path) is not None or _is_lance(path):
        return True
    path = local_path(path)
    if path.is_dir():
        return not (path / "manifest.json").exists() and (
            any(any(path.rglob(f"*{suffix}")) for suffix in PARQUET)
        )
    return not path.exists() and is_pattern(path)


def open_dataset(path: str | os.PathLike[str], *, needs_paths: bool) -> Dataset:
    """Open a dataset; read the sizes of its files, and no rows.

    Parameters
    ----------
    path : path
        What `is_dataset` accepts.
    needs_paths : bool
        Refuse a dataset that does not name the path of every row.

    Returns
    -------
    dataset : Dataset
        The rows.

    Raises
    ------
    DataError
        A package is missing, or a file is missing, damaged or has other columns.
    """
    if _is_lance(path):
        return _lance(url_of(path) or os.fspath(local_path(path)), needs_paths)
    files = stored_files(path, PARQUET)
    kinds = {os.path.splitext(file.name)[1].lower() for file in files}
    if kinds <= set(PARQUET):
        return _parquet(files, needs_paths)
    if kinds != {".npy"} or needs_paths:
        needed = "Parquet files with a column path" if needs_paths else "Parquet or .npy files"
        raise DataError(
            f"{shown(url_of(path) or path)} names files that end in {', '.join(sorted(kinds))}, "
            f"but {needed} are needed; convert the files"
        )
    shards: list[LazyRows] = [NpyRows(file) for file in files]
    ids = [RowIds(None, file.name, len(rows)) for file, rows in zip(files, shards, strict=True)]
    return Dataset(shards, ids, _identity_of(files))


def _identity_of(files: Sequence[StoredFile]) -> Callable[[], list[str]]:
    def identity() -> list[str]:
        with ThreadPoolExecutor(_THREADS) as pool:
            return list(pool.map(lambda file: file.identity, files))

    return identity


def _is_lance(path: str | os.PathLike[str]) -> bool:
    """Whether a path names a Lance dataset, by its name or by its folder of versions."""
    here = url_of(path) is None and os.path.isdir(os.path.join(path, "_versions"))
    return here or os.fspath(path).rstrip("/").endswith(".lance")


def _lance(place: str, needs_paths: bool) -> Dataset:
    if (problem := problem_of("lance")) is not None:
        reason = f"cannot be loaded ({problem})" if problem else "is not installed"
        raise DataError(
            f"{shown(place)}: reading a Lance dataset needs the package pylance, which {reason}; "
            "pip install pylance"
        )
    import lance

    from ktfast.features.lance_rows import WRITE_LANCE, LanceRows

    with reading(place, "a Lance dataset", WRITE_LANCE):
        source = lance.dataset(place)
        columns, key = feature_columns(place, source.schema, needs_paths, ID_COLUMNS)
        if not source.count_rows():
            raise DataError(f"{shown(place)} holds no rows; give a dataset with rows")
        rows = LanceRows(place, source, columns)
        files = [file.path for part in source.get_fragments() for file in part.data_files()]

    def read_ids() -> Any:
        with reading(place, "a Lance dataset", WRITE_LANCE):
            chosen = [] if key is None else [key]
            table = source.to_table(columns=chosen, with_row_id=key is None)
            return table[key or "_rowid"].combine_chunks()

    ids = RowIds(key or "_rowid", place, len(rows), read_ids)
    return Dataset([rows], [ids], lambda: [str(source.version), *files])


# --- Parquet --------------------------------------------------------------------------------------
def ids_of_file(path: str | os.PathLike[str]) -> list[RowIds]:
    """Names of the rows of one Parquet file."""
    return _parquet(stored_files(path, PARQUET), needs_paths=False).ids


def _parquet(files: list[StoredFile], needs_paths: bool) -> Dataset:
    """Open Parquet files with the same columns."""
    if problem_of("pyarrow.parquet") is not None:
        raise DataError(
            f"{shown(files[0].name)}: reading Parquet needs pyarrow, which is not installed; "
            "pip install pyarrow"
        )
    schema = _footer(files[0]).schema.to_arrow_schema()
    columns, key = feature_columns(files[0].name, schema, needs_paths, ID_COLUMNS)
    first = _first_rows(files[0], columns)
    groups = RowGroups()
    with ThreadPoolExecutor(_THREADS) as pool:
        shards = list(pool.map(lambda file: ParquetRows(file, columns, first, groups), files))

    def ids(rows: ParquetRows) -> RowIds:
        if key is None:
            return RowIds(None, rows.file.name, len(rows))
        return RowIds(key, rows.file.name, len(rows), lambda: rows.column(key))

    return Dataset(list(shards), [ids(rows) for rows in shards], _identity_of(files))


def _footer(file: StoredFile) -> Any:
    from pyarrow import parquet

    with reading(file.name, "a Parquet file", WRITE_AGAIN), file.open() as stream:
        return parquet.read_metadata(stream)


def _first_rows(file: StoredFile, columns: list[str]) -> Array:
    """A row of a file, whose length and type are those of all rows."""
    from pyarrow import Table, parquet

    with reading(file.name, "a Parquet file", WRITE_AGAIN), file.open() as stream:
        batch = next(parquet.ParquetFile(stream).iter_batches(1, columns=columns), None)
        if batch is None:
            raise DataError(f"{shown(file.name)} holds no rows; leave the file out")
        found = table_matrix(file.name, Table.from_batches([batch]), columns)
    return checked(Path(file.name), found, None, None)


class ParquetRows(LazyRows):
    """The rows of a Parquet file.

    Parameters
    ----------
    file : StoredFile
        The file.
    columns : list of str
        A column of lists, or columns of numbers.
    like : array [1, d]
        A row of the dataset, whose length and type all rows have.
    groups : RowGroups
        Row groups that are kept in memory.
    """

    def __init__(
        self, file: StoredFile, columns: list[str], like: Array, groups: RowGroups
    ) -> None:
        self.file = file
        self._columns, self._stored, self._groups = columns, like.dtype, groups
        self._metadata = _footer(file)
        sizes = [self._metadata.row_group(i).num_rows for i in range(self._metadata.num_row_groups)]
        self._starts = np.cumsum([0, *sizes])
        names = self._metadata.schema.to_arrow_schema().names
        if lacking := [name for name in columns if name not in names]:
            raise DataError(
                f"{shown(file.name)} lacks the column {lacking[0]} of the dataset's first file; "
                "give files with the same columns"
            )
        # Numbers that the kernels do not read become float64, as those of an array do.
        dtype = like.dtype if like.dtype.name in DTYPES else np.dtype(np.float64)
        super().__init__(int(self._starts[-1]), like.shape[1], dtype)

    def column(self, name: str) -> Any:
        """Read a column as an array of Arrow."""
        with reading(self.file.name, "a Parquet file", WRITE_AGAIN):
            return self._open(lambda file: file.read(columns=[name]))[name].combine_chunks()

    def read(self, first: int, end: int) -> Array:
        """Read consecutive rows; see `LazyRows.read`."""
        parts = [np.empty((0, self.shape[1]), self.dtype)]
        for group in range(*self._groups_of(first, end)):
            start = int(self._starts[group])
            parts.append(self._group(group)[max(0, first - start) : end - start])
        return parts[1] if len(parts) == 2 else np.concatenate(parts)

    def take(self, rows: npt.NDArray[np.int64]) -> Array:
        """Read rows by number; see `LazyRows.take`."""
        found = np.empty((len(rows), self.shape[1]), self.dtype)
        group_of = np.searchsorted(self._starts, rows, side="right") - 1
        for group in np.unique(group_of):
            here = np.flatnonzero(group_of == group)
            found[here] = self._group(int(group))[rows[here] - self._starts[group]]
        return found

    def _groups_of(self, first: int, end: int) -> tuple[int, int]:
        if first >= end:
            return 0, 0
        found = np.searchsorted(self._starts, [first, end - 1], side="right") - 1
        return int(found[0]), int(found[1]) + 1

    def _group(self, number: int) -> Array:
        found: Array = self._groups.get((self.file.name, number), lambda: self._read_group(number))
        return found

    def _read_group(self, number: int) -> Array:
        with reading(self.file.name, "a Parquet file", WRITE_AGAIN):
            table = self._open(lambda file: file.read_row_group(number, columns=self._columns))
            found = table_matrix(self.file.name, table, self._columns)
            if (found.dtype, found.shape[1]) != (self._stored, self.shape[1]):
                raise DataError(
                    f"{shown(self.file.name)} holds rows {found.dtype} [{found.shape[1]}], but the "
                    f"dataset begins with rows {self._stored} [{self.shape[1]}]; give files with "
                    "rows of one length and type"
                )
            return found.astype(self.dtype, copy=False)

    def _open(self, read: Callable[[Any], Any]) -> Any:
        from pyarrow import parquet

        with self.file.open() as stream:
            return read(parquet.ParquetFile(stream, metadata=self._metadata))


# --- NumPy ----------------------------------------------------------------------------------------
class NpyRows(LazyRows):
    """The rows of a `.npy` file of object storage.

    Parameters
    ----------
    file : StoredFile
        The file.
    """

    def __init__(self, file: StoredFile) -> None:
        with reading(file.name, "a .npy file", "write it with numpy.save"), file.open() as stream:
            shape, fortran, dtype = readers.npy_header(stream, file.size)
            self._offset = stream.tell()
        is_read = dtype.name in DTYPES and dtype.isnative and not fortran
        if len(shape) != 2 or 0 in shape or not is_read:
            raise DataError(
                f"{shown(file.name)} must hold numbers [n, d] of the types {', '.join(DTYPES)} in "
                f"rows, got {dtype} {list(shape)}{' in columns' if fortran else ''}; write it with "
                "numpy.save(file, numpy.ascontiguousarray(array, 'float32'))"
            )
        self.file = file
        super().__init__(*shape, dtype)

    def read(self, first: int, end: int) -> Array:
        """Read consecutive rows; see `LazyRows.read`."""
        row = self.shape[1] * self.itemsize
        data = self.file.read(self._offset + first * row, (end - first) * row)
        return np.frombuffer(data, self.dtype).reshape(end - first, self.shape[1])

    def take(self, rows: npt.NDArray[np.int64]) -> Array:
        """Read rows by number; see `LazyRows.take`."""
        found = np.empty((len(rows), self.shape[1]), self.dtype)
        order = np.argsort(rows, kind="stable")
        runs = np.split(order, np.flatnonzero(np.diff(rows[order]) > 1) + 1) if len(rows) else []

        def fill(run: npt.NDArray[np.int64]) -> None:
            first, end = int(rows[run[0]]), int(rows[run[-1]]) + 1
            found[run] = self.read(first, end)[rows[run] - first]

        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(fill, runs))
        return found


def _text(name: Any, ids: RowIds) -> str:
    if not isinstance(name, str | bytes):
        raise DataError(
            f"{shown(ids.file)}: a row of the column {ids.column} holds no text; give every row "
            "the path of its image"
        )
    return os.fsdecode(name)
