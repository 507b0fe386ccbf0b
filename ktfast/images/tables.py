"""Images or arrays in the rows of Parquet files, as data sets of Hugging Face's hub are stored.

A row holds one item: the bytes of an image or of a `.npy` file, or an array as nested lists of
numbers. A reader keeps the two row groups in memory that were read last.
"""

import hashlib
import io
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ktfast.errors import DataError, reading, shown
from ktfast.images.file_records import ContentHashes, FileHashes, FileRecord
from ktfast.images.index import ImageIndex, SkippedImage, by_number
from ktfast.images.opening import DecodeError
from ktfast.images.tar_members import time_of
from ktfast.native.lazy_rows import RowGroups
from ktfast.optional import problem_of
from ktfast.remote import StoredFile, stored_files
from ktfast.sample_ids import sample_ids_of

SUFFIXES = (".parquet", ".pq")
_ITEM_COLUMNS = ("array", "image", "img")
_LABEL_COLUMNS = ("label", "class")
_PATH_COLUMNS = ("path", "paths")
_WRITE_AGAIN = "write it again with pyarrow, pandas or polars"


@dataclass(frozen=True, eq=False)
class TableIndex(ImageIndex):
    """The items of Parquet files, in the order of the files and of their rows.

    The path of an item stands in the column `path`. Without this column, the path is the name of
    the file, followed by the number of the row. The size of an item is not known before it is read,
    so all `sizes` are 0.

    Attributes
    ----------
    tables : tuple of Table
        The Parquet files.
    table_of : array, int64 [n]
        Number of the file of each item.
    rows : array, int64 [n]
        Row of each item in its file.
    """

    tables: "tuple[Table, ...]" = ()
    table_of: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    rows: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    @classmethod
    def scan(
        cls,
        folder: str | os.PathLike[str],
        *,
        labels: Literal["folder", "none"] = "folder",
        arrays: bool = False,
    ) -> "TableIndex":
        """List the items of Parquet files; see `ktfast.images.tars.scan_images`."""
        if problem_of("pyarrow.parquet") is not None:
            raise DataError(
                f"{shown(folder)}: reading Parquet needs pyarrow, which is not installed; "
                "pip install pyarrow"
            )
        groups = RowGroups()
        files = stored_files(folder, SUFFIXES)
        tables = [Table(file, groups, arrays=arrays) for file in files]
        paths = tuple(path for table in tables for path in table.paths())
        if not paths:
            raise DataError(f"the Parquet files of {shown(folder)} hold no rows; give other files")
        given = [name for table in tables for name in table.labels()]
        if labels == "none":
            given = [""] * len(paths)
        classes = tuple(sorted(set(given) - {""}, key=by_number))
        number = {name: label for label, name in enumerate(classes)}
        sizes = [table.n for table in tables]
        return cls(
            root=Path(folder),
            paths=paths,
            labels=np.array([number.get(name, -1) for name in given], np.int64),
            classes=classes,
            sample_ids=sample_ids_of(paths),
            sizes=np.zeros(len(paths), np.int64),
            mtimes_ns=np.repeat(np.array([time_of(table.file) for table in tables]), sizes),
            tables=tuple(tables),
            table_of=np.repeat(np.arange(len(tables)), sizes),
            rows=np.concatenate([np.arange(n) for n in sizes]),
        )

    def name(self, row: int) -> str:
        """File of an item, and its row in the file."""
        return f"{self.tables[self.table_of[row]].file.name}: row {self.rows[row]}"

    def read(self, row: int) -> bytes:
        """The bytes of an item; an array has the format of a `.npy` file.

        Raises
        ------
        DecodeError
            The row holds no item.
        DataError
            The Parquet file cannot be read. The message names it.
        """
        return self.tables[int(self.table_of[row])].read(int(self.rows[row]), self.name(row))

    def read_recorded(self, row: int) -> tuple[bytes, FileRecord]:
        """The bytes of an item, and their record."""
        content = self.read(row)
        sha256 = hashlib.sha256(content).hexdigest()
        return content, FileRecord(0, int(self.mtimes_ns[row]), sha256)

    def hashes(self, store: Path | None = None) -> FileHashes:
        """Hashes of items by path; nothing is kept in the store."""
        rows = {os.fspath(self.root / path): row for row, path in enumerate(self.paths)}

        def content(path: str) -> bytes:
            try:
                return self.read(rows[path])
            except DecodeError:
                return b""

        return ContentHashes(content)

    @property
    def shard_sizes(self) -> npt.NDArray[np.int64]:
        """Number of items of each file, int64."""
        return np.bincount(self.table_of, minlength=len(self.tables)).astype(np.int64)

    def take(
        self, rows: npt.NDArray[np.int64], skipped: Iterable[SkippedImage] = ()
    ) -> "TableIndex":
        """The index of some rows; `skipped` is added to the skipped images."""
        plain = super().take(rows, skipped)
        return TableIndex(
            **vars(plain), tables=self.tables, table_of=self.table_of[rows], rows=self.rows[rows]
        )


class Table:
    """A Parquet file whose rows are items.

    Parameters
    ----------
    file : StoredFile
        The file.
    groups : RowGroups
        Row groups that are kept in memory.
    arrays : bool
        Whether the items are arrays. False: the items are images.

    Raises
    ------
    DataError
        The file is damaged, or has no column of items.
    """

    def __init__(self, file: StoredFile, groups: RowGroups, *, arrays: bool) -> None:
        from pyarrow import parquet

        self.file = file
        with reading(file.name, "a Parquet file", _WRITE_AGAIN), file.open() as stream:
            self._metadata = parquet.read_metadata(stream)
            schema = self._metadata.schema.to_arrow_schema()
        numbers = range(self._metadata.num_row_groups)
        self._starts = np.cumsum([0, *(self._metadata.row_group(i).num_rows for i in numbers)])
        self.n = int(self._starts[-1])
        self._column = _item_column(file.name, schema, arrays=arrays)
        self._names: list[str] = schema.names
        self._kept = groups

    def paths(self) -> list[str]:
        """The path of each item."""
        stem = os.path.basename(self.file.name)
        names = self._texts(_PATH_COLUMNS)
        return names or [f"{stem}/{row:08d}" for row in range(self.n)]

    def labels(self) -> list[str]:
        """The name of each item's class, which is empty if the item has none.

        The class stands in the column `label` or `class`. Without this column, the class is the
        first folder of the path.
        """
        if names := self._texts(_LABEL_COLUMNS):
            return names
        paths = self._texts(_PATH_COLUMNS) or [""] * self.n
        return [path.partition("/")[0] if "/" in path else "" for path in paths]

    def read(self, row: int, name: str) -> bytes:
        """The bytes of the item of a row; `name` stands in error messages."""
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        group = self._kept.get((self.file.name, number), lambda: self._group(number))
        return _bytes_of(group[row - int(self._starts[number])], name)

    def _group(self, number: int) -> Any:
        n = int(self._starts[number + 1] - self._starts[number])
        return self._read(
            lambda file: file.read_row_group(number, columns=[self._column]), self._column, n
        )

    def _texts(self, columns: tuple[str, ...]) -> list[str]:
        """The texts of the first of some columns that exists; empty if none does."""
        column = next((name for name in columns if name in self._names), None)
        if column is None:
            return []
        values = self._read(lambda file: file.read(columns=[column]), column, self.n)
        with reading(self.file.name, "a Parquet file", _WRITE_AGAIN):
            texts = values.to_pylist()
        return ["" if value is None else _text(value) for value in texts]

    def _read(self, read: Callable[[Any], Any], column: str, n: int) -> Any:
        """Read n rows of a column."""
        from pyarrow import parquet

        with reading(self.file.name, "a Parquet file", _WRITE_AGAIN), self.file.open() as stream:
            values = read(parquet.ParquetFile(stream, metadata=self._metadata))[column]
            if len(values) != n:
                raise ValueError(f"{len(values)} instead of {n} rows")
        return values


def _item_column(file: str, schema: Any, *, arrays: bool) -> str:
    """Choose the column of the items: `array`, `image` or `img`, or the only one that fits."""
    from pyarrow import types

    def fits(kind: Any) -> bool:
        kind = getattr(kind, "storage_type", kind)  # a tensor is stored as a list
        if types.is_struct(kind):  # as Hugging Face's hub stores an image
            index = kind.get_field_index("bytes")
            return index >= 0 and fits(kind.field(index).type)
        is_binary = types.is_binary(kind) or types.is_large_binary(kind)
        return is_binary or (arrays and _is_list(kind))

    found = [each.name for each in schema if fits(each.type)]
    named = [name for name in _ITEM_COLUMNS if name in found]
    if named or len(found) == 1:
        return (named or found)[0]
    what = "arrays: nested lists of numbers, or the bytes" if arrays else "images: the bytes"
    raise DataError(
        f"{shown(file)} must have a column {'array' if arrays else 'image'} of {what} of files; "
        f"it has the columns {', '.join(schema.names)}; rename a column"
    )


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _bytes_of(value: Any, name: str) -> bytes:
    """Turn a scalar of Arrow into the bytes of a file."""
    if hasattr(value.type, "get_field_index") and value.is_valid:
        value = value["bytes"]
    if not value.is_valid:
        raise DecodeError(name, "the row is empty")
    if hasattr(value, "to_numpy"):  # a tensor
        array = value.to_numpy()
    elif _is_list(value.type):
        array = _nested(value.values, name)
    else:
        return bytes(value.as_buffer())
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def _nested(values: Any, name: str) -> npt.NDArray[Any]:
    """Turn nested lists of Arrow, all of one length, into an array."""
    from pyarrow import compute, types

    shape = [len(values)]
    while _is_list(values.type):
        lengths = compute.list_value_length(values)
        bounds = compute.min_max(lengths).as_py()
        if values.null_count or bounds["min"] != bounds["max"]:
            raise DecodeError(name, "its lists have different lengths")
        shape.append(bounds["min"] or 0)
        values = values.flatten()
    if values.null_count or not (types.is_integer(values.type) or types.is_floating(values.type)):
        raise DecodeError(name, f"its lists hold {values.type} or nothing; expected numbers")
    numbers: npt.NDArray[Any] = values.to_numpy(zero_copy_only=False)
    return numbers.reshape(shape)


def _text(value: Any) -> str:
    return os.fsdecode(value) if isinstance(value, bytes) else str(value)
