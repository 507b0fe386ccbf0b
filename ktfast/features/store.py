"""Read features from disk: one row per image, in shards that are memory-mapped.

A single file from elsewhere is read too: `ktfast.features.files` lists the formats. So are many
files, and files of object storage: see `ktfast.features.datasets`.

A feature folder holds the features `features-00000.npy` ..., the sample ids
`sample_ids-00000.npy` ... and the manifest `manifest.json`. A `FeatureWriter` writes the manifest
after every shard, and marks it as complete at the end.
"""

import contextlib
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ktfast import durable
from ktfast.errors import DataError, InputError, opens, shown
from ktfast.features.datasets import PARQUET, RowIds, ids_of_file, is_dataset, open_dataset
from ktfast.features.files import READERS, checked, list_beside, read_list
from ktfast.features.manifest import REMEDY, files_of, load_ids, read_manifest
from ktfast.manifest import problems
from ktfast.ops.mapped import is_mapped, take_mapped
from ktfast.readers import map_npy
from ktfast.remote import local_path
from ktfast.sample_ids import sample_ids_of

Array = npt.NDArray[Any]

LIST = "paths.csv"
"""The list of the images' paths that the stage features writes into its folder."""


class FeatureStore:
    """Features of a folder that a `FeatureWriter` wrote, or of one file.

    `FeatureStore.open` makes a store.

    Parameters
    ----------
    path : Path
        Folder or file.
    shards : list of array [n_i, dim]
        Memory-mapped shards, in the order of their rows.
    sample_ids : array, int64 [n]
        Identity of each image; the row numbers for a single file.
    meta : dict
        JSON values that the writer stored with the features.
    hashes : list of str or None
        SHA-256 of the files; None for a single file or a dataset.

    Attributes
    ----------
    paths : tuple of str or None
        Path of the image of each row, if a single file or a dataset names the paths; see
        `ktfast.features.matching.match_rows`.
    names : tuple of str or None
        Path of the image of each row, as results name the row.
    row_ids : list of RowIds
        Names of the rows of each shard, to write results beside them.
    """

    paths: tuple[str, ...] | None = None

    def __init__(
        self,
        path: Path,
        shards: list[Array],
        sample_ids: npt.NDArray[np.int64],
        meta: dict[str, Any],
        hashes: list[str] | None,
    ) -> None:
        self.path = path
        self.shards = shards
        self.sample_ids = sample_ids
        self.meta = meta
        self._hashes = hashes
        self._files = [path]
        self._identity: Callable[[], list[str]] = self._hashes_of_files
        self._starts = np.cumsum([0, *(len(shard) for shard in shards)])

    @classmethod
    @opens("features", REMEDY)
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        verify: bool = False,
        paths: Literal["needed", "optional", "ignored"] = "needed",
    ) -> "FeatureStore":
        """Open a feature folder or a file of features.

        Parameters
        ----------
        path : path-like
            Folder with a `manifest.json`; or a `.npy` file with numbers [n, d], beside which a list
            of paths may lie; or an `.npz` or Parquet file with features and paths. Or a dataset: a
            folder or a pattern of Parquet files, a Lance dataset, or a URL of one of them or of
            `.npy` files.
        verify : bool
            Compare the SHA-256 of the shards. The first call in a process reads all shards. Sizes,
            and the SHA-256 of the sample ids, are always compared.
        paths : {"needed", "optional", "ignored"}
            needed: refuse an `.npz` or Parquet file without paths. ignored: do not read a list
            beside a `.npy` file.

        Returns
        -------
        store : FeatureStore
            The features, memory-mapped. Those of a single `.npz` or Parquet file are in memory.
            Those of a dataset are lazy: each pass reads them from their files.

        Raises
        ------
        DataError
            A file is missing, unfinished or damaged. The message names the file.
        """
        path = local_path(path)
        if is_dataset(path):
            return cls._open_dataset(path, paths)
        if path.is_file():
            return cls._open_file(path, paths)
        manifest = read_manifest(path)
        if not manifest["complete"]:
            raise DataError(
                f"features in {path} are unfinished after {manifest['rows']} rows; run the"
                " features stage again, which continues from there"
            )
        shards = manifest["shards"]
        damaged = problems(((path / shard["file"], shard) for shard in shards), hashed=verify)
        ids = (shard["sample_ids"] for shard in shards)
        damaged += problems((path / record["file"], record) for record in ids)
        for file, problem in damaged:
            raise DataError(f"{shown(file)} is damaged: it {problem}; {REMEDY}")
        arrays = [_map(path / shard["file"]) for shard in shards]
        for array, shard in zip(arrays, shards, strict=True):
            if array.shape != (shard["rows"], manifest["dim"]) or array.dtype != manifest["dtype"]:
                raise DataError(f"{path / shard['file']} does not fit its manifest; {REMEDY}")
        hashes = [record["sha256"] for shard in shards for record in files_of(shard)]
        return cls(path, arrays, load_ids(path, shards), manifest["meta"], hashes)

    @classmethod
    def _open_dataset(cls, path: Path, use_paths: str) -> "FeatureStore":
        """Open many files, or files of object storage."""
        dataset = open_dataset(path, needs_paths=use_paths == "needed")
        n = sum(len(shard) for shard in dataset.shards)
        shards: list[Any] = [shard for shard in dataset.shards if len(shard)]
        store = cls(path, shards, np.arange(n, dtype=np.int64), {}, None)
        store.row_ids = [ids for ids in dataset.ids if ids.n]
        store._identity = dataset.identity
        if use_paths != "ignored":
            store.paths = dataset.paths()
        return store

    @classmethod
    def _open_file(cls, path: Path, use_paths: str) -> "FeatureStore":
        """Open a single file, with the paths of its rows if they are known."""
        reader, paths, listed = READERS.get(path.suffix.lower()), None, None
        if reader is not None:
            array, paths = reader(path, use_paths == "needed")
        else:
            array, listed = _map(path), list_beside(path) if use_paths != "ignored" else None
            if listed is not None:
                paths = read_list(listed)
        array = checked(path, array, paths, listed)
        store = cls(path, [array], np.arange(len(array), dtype=np.int64), {}, None)
        store.paths = paths
        if listed is not None:
            store._files.append(listed)
        return store

    @property
    def n(self) -> int:
        """Number of rows."""
        return int(self._starts[-1])

    @property
    def dim(self) -> int:
        """Features per row."""
        return int(self.shards[0].shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Stored type."""
        return self.shards[0].dtype

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the content. For a single file this reads the whole file.

        If a list of paths lies beside the file, the list is part of the content.
        """
        hashes = self._hashes or self._identity()
        return durable.sha256_json([self.n, self.dim, str(self.dtype), *hashes])

    def _hashes_of_files(self) -> list[str]:
        return [durable.sha256_file(path) for path in self._files]

    @functools.cached_property
    def names(self) -> tuple[str, ...] | None:
        """Path of the image of each row, as results name the row; None if the paths are unknown.

        The names are `paths`, or the list that the stage features wrote into its folder.
        """
        listed = self.path / LIST
        if self.paths is not None or self._hashes is None or not listed.is_file():
            return self.paths
        names = read_list(listed)
        if not np.array_equal(sample_ids_of(names), self.sample_ids):
            raise DataError(f"{shown(listed)} does not list the rows of its folder; {REMEDY}")
        return names

    @functools.cached_property
    def row_ids(self) -> list[RowIds]:
        """Names of the rows of each shard."""
        if (names := self.names) is not None:
            import pyarrow

            ids = pyarrow.array([os.fsencode(name) for name in names], pyarrow.binary())
            with contextlib.suppress(pyarrow.ArrowInvalid):  # a path that is not UTF-8
                ids = ids.cast(pyarrow.string())
            return [RowIds("path", str(self.path), self.n, lambda: ids)]
        if self.path.suffix.lower() in PARQUET and self.path.is_file():
            return ids_of_file(self.path)
        pairs = zip(self._starts.tolist(), self.shards, strict=False)
        return [RowIds(None, str(self.path), len(shard), first=first) for first, shard in pairs]

    def between(self, first: int, end: int) -> list[Array]:
        """List the shards, cut to the rows `first` to `end` - 1; one empty shard without rows."""
        cut = []
        for start, shard in zip(self._starts, self.shards, strict=False):
            part = shard[max(0, first - start) : max(0, end - start)]
            if len(part):
                cut.append(part)
        return cut or [self.shards[0][:0]]

    def read(self, rows: slice | npt.ArrayLike) -> Array:
        """Copy rows into memory.

        Parameters
        ----------
        rows : slice or array, int64 [m]
            Row numbers, in any order.

        Returns
        -------
        features : array [m, dim]
            The rows in the given order, in the stored type.

        Raises
        ------
        InputError
            A row lies outside 0 .. n - 1, or the rows are no integers.
        """
        wanted = row_numbers(rows, self.n)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= self.n):
            raise InputError(
                f"rows must lie in 0 .. {self.n - 1}, got {wanted.min()} .. {wanted.max()}"
            )
        out = np.empty((len(wanted), self.dim), self.dtype)
        shard_of = np.searchsorted(self._starts, wanted, side="right") - 1
        for number in np.unique(shard_of):
            here = np.flatnonzero(shard_of == number)
            shard, local = self.shards[number], wanted[here] - self._starts[number]
            out[here] = take_mapped(shard, local) if is_mapped(shard) else shard[local]
        return out


def row_numbers(rows: slice | npt.ArrayLike, n: int) -> npt.NDArray[np.int64]:
    """Convert an index of rows to row numbers, int64 [m]; masks and fractions are refused."""
    if isinstance(rows, slice):
        return np.arange(*rows.indices(n))
    numbers = np.asarray(rows)
    if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
        raise InputError(
            f"rows must be row numbers [m], got {numbers.dtype} {list(numbers.shape)}; for a mask, "
            "give np.flatnonzero(mask)"
        )
    return numbers.astype(np.int64)


def _map(path: Path) -> Array:
    """Memory map of a 2-D numeric `.npy` file."""
    array = map_npy(path, "write it with numpy.save")
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise DataError(
            f"{path} must hold numbers [n, d], got {array.dtype} {list(array.shape)}; write one "
            "row of numbers for each image"
        )
    if 0 in array.shape:
        raise DataError(f"{path} holds no numbers: its shape is {list(array.shape)}")
    return array
