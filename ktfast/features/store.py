"""Features on disk: one row per image, in shards that are memory-mapped, never all in memory.

A folder holds `features-00000.npy` ..., `sample_ids-00000.npy` ... and `manifest.json`, which is
rewritten after every shard and says at last "complete"; until then `FeatureWriter.resume` goes on
after the last whole shard.
"""

import functools
import hashlib
import io
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ktfast import durable
from ktfast.durable import is_whole, remove_leftovers
from ktfast.errors import ConfigError, DataError, InputError

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
SCHEMA = 1
SHARD_BYTES = 64 << 20
"""Default size of a shard, which is also what the writer holds in memory."""

Array = npt.NDArray[Any]


class FeatureWriter:
    """Write features block by block; every finished shard survives a crash.

    Parameters
    ----------
    folder : destination; created. What an earlier writer left in it is removed.
    dim : features per image.
    dtype : how they are stored.
    meta : JSON values that are kept beside the features (layer, model, data fingerprint ...).
    shard_rows : images per shard; None: about 64 MiB.

    Attributes
    ----------
    rows_done : rows that are safe on disk.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        dim: int,
        dtype: Literal["float16", "float32"] = "float16",
        meta: Mapping[str, Any] | None = None,
        shard_rows: int | None = None,
    ) -> None:
        self._prepare(folder, dim, dtype, meta, shard_rows)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / MANIFEST).unlink(missing_ok=True)
        self._remove_shards_from(0)

    @classmethod
    def resume(
        cls,
        folder: str | os.PathLike[str],
        *,
        dim: int,
        dtype: Literal["float16", "float32"] = "float16",
        meta: Mapping[str, Any] | None = None,
        shard_rows: int | None = None,
    ) -> "FeatureWriter":
        """Go on where an earlier writer with the same arguments stopped.

        Shards are kept up to the first that is missing or damaged. Rows below `rows_done` that
        are appended again are ignored, so the caller may start at the batch that holds it.

        Raises
        ------
        ConfigError : the folder was written with other arguments.
        """
        if not (Path(folder) / MANIFEST).exists():
            return cls(folder, dim=dim, dtype=dtype, meta=meta, shard_rows=shard_rows)
        writer = cls.__new__(cls)
        writer._prepare(folder, dim, dtype, meta, shard_rows)
        manifest = _read_manifest(writer.folder)
        config = {key: manifest[key] for key in writer._config}
        if changed := [key for key in config if config[key] != writer._config[key]]:
            pairs = (f"{key} {config[key]} is now {writer._config[key]}" for key in changed)
            raise ConfigError(
                f"{folder} was begun with other arguments ({', '.join(pairs)}); remove the folder"
                " to start again"
            )
        for shard in manifest["shards"]:
            if not all(is_whole(writer.folder, record, hashed=True) for record in _files(shard)):
                logger.warning("%s: %s is damaged and made again", folder, shard["file"])
                break
            writer._shards.append(shard)
            writer.rows_done += shard["rows"]
        writer._complete = manifest["complete"] and len(writer._shards) == len(manifest["shards"])
        if not writer._complete:
            writer._write_manifest()
        writer._remove_shards_from(len(writer._shards))
        return writer

    def _prepare(
        self,
        folder: str | os.PathLike[str],
        dim: int,
        dtype: str,
        meta: Mapping[str, Any] | None,
        shard_rows: int | None,
    ) -> None:
        if dtype not in ("float16", "float32"):
            raise ConfigError(f"feature dtype must be float16 or float32, got {dtype!r}")
        row_bytes = dim * np.dtype(dtype).itemsize
        shard_rows = max(1, SHARD_BYTES // row_bytes) if shard_rows is None else shard_rows
        self.folder = Path(folder)
        self.dim = dim
        self.rows_done = 0
        meta = json.loads(json.dumps(meta or {}))  # as it will be read back
        self._config = {"dim": dim, "dtype": dtype, "shard_rows": shard_rows, "meta": meta}
        self._shards: list[dict[str, Any]] = []
        remove_leftovers(self.folder)
        self._features = np.empty((shard_rows, dim), dtype)
        self._ids = np.empty(shard_rows, np.int64)
        self._filled = 0
        self._closed = False
        self._complete = False

    def append(
        self,
        features: npt.ArrayLike,
        sample_ids: npt.ArrayLike,
        rows: npt.ArrayLike | None = None,
    ) -> None:
        """Add a block.

        Parameters
        ----------
        features : float [b, dim].
        sample_ids : int64 [b].
        rows : int64 [b], consecutive row numbers; None: they follow the last block. Rows that
            are already there are ignored; a gap is an error.

        Raises
        ------
        InputError : a shape is wrong, rows are missing, or a value is not finite (in float16
            everything above 65504 is infinite); nothing of the block is kept.
        """
        if self._closed:
            raise InputError(f"the feature writer of {self.folder} is closed")
        block, ids = np.asarray(features), np.asarray(sample_ids, np.int64)
        if block.ndim != 2 or block.shape[1] != self.dim or ids.shape != block.shape[:1]:
            raise InputError(
                f"features must be [b, {self.dim}] with sample_ids [b],"
                f" got {list(block.shape)} and {list(ids.shape)}"
            )
        known = 0 if rows is None else self._already_there(np.asarray(rows, np.int64))
        block, ids = self._stored(block[known:], ids[known:]), ids[known:]
        if self._complete and len(ids):
            raise InputError(f"{self.folder} is complete with {self.rows_done} rows")
        done = 0
        while done < len(ids):
            take = min(len(ids) - done, len(self._ids) - self._filled)
            target = slice(self._filled, self._filled + take)
            self._features[target] = block[done : done + take]
            self._ids[target] = ids[done : done + take]
            self._filled += take
            done += take
            if self._filled == len(self._ids):
                self._flush()

    def close(self) -> None:
        """Write the last shard, the sample ids and the manifest; the folder is then complete.

        Raises
        ------
        InputError : a sample id came twice, or nothing was appended.
        """
        if self._closed:
            return
        if self._filled:
            self._flush()
        if not self._shards:
            raise InputError(f"no features were appended to {self.folder}")
        unique, counts = np.unique(_load_ids(self.folder, self._shards), return_counts=True)
        if np.any(counts > 1):
            raise InputError(f"sample {unique[counts > 1][0]} was appended to {self.folder} twice")
        self._complete = self._closed = True
        self._write_manifest()

    def _already_there(self, rows: npt.NDArray[np.int64]) -> int:
        """How many leading rows of a block are stored already; refuse a gap."""
        next_row = self.rows_done + self._filled
        if not rows.size:
            return 0
        if np.any(np.diff(rows) != 1) or rows[0] > next_row:
            raise InputError(
                f"rows must follow each other from {next_row}, got {rows[0]} .. {rows[-1]}"
                f" ({rows.size} rows); read the images in their order, without shuffling"
            )
        return int(np.clip(next_row - rows[0], 0, rows.size))

    def _stored(self, block: Array, ids: npt.NDArray[np.int64]) -> Array:
        with np.errstate(over="ignore"):
            stored = block.astype(self._features.dtype, copy=False)
        finite = np.isfinite(stored).all(axis=1)
        if not finite.all():
            bad = int(np.argmin(finite))
            largest = np.abs(block[bad].astype(np.float64)).max()
            remedy = (
                "store float32 (features.dtype)"
                if np.isfinite(block[bad]).all()
                else "check the model"
            )
            raise InputError(
                f"features of sample {ids[bad]} are not finite in {stored.dtype}"
                f" (largest magnitude {largest:g}); {remedy}"
            )
        return stored

    def _flush(self) -> None:
        number = len(self._shards)
        features, ids = self._features[: self._filled], self._ids[: self._filled]
        stored = _write_npy(self.folder / f"features-{number:05d}.npy", features)
        stored_ids = _write_npy(self.folder / f"sample_ids-{number:05d}.npy", ids)
        self._shards.append({**stored, "rows": self._filled, "sample_ids": stored_ids})
        self.rows_done += self._filled
        self._filled = 0
        self._write_manifest()

    def _write_manifest(self) -> None:
        manifest = {
            "schema": SCHEMA,
            "complete": self._complete,
            "rows": self.rows_done,
            **self._config,
            "shards": self._shards,
        }
        manifest["sha256"] = durable.sha256_json(manifest)
        durable.write_json(self.folder / MANIFEST, manifest)

    def _remove_shards_from(self, first: int) -> None:
        for pattern in ("features-*.npy", "sample_ids-*.npy"):
            for path in self.folder.glob(pattern):
                number = path.stem.rpartition("-")[2]
                if number.isdigit() and int(number) >= first:
                    path.unlink()


class FeatureStore:
    """Read features: a folder of a `FeatureWriter`, or one `.npy` file.

    Attributes
    ----------
    path : folder or file.
    shards : memory-mapped arrays [n_i, dim], in order; K-means reads them one after the other.
    sample_ids : int64 [n]; the row numbers for a bare file.
    meta : what was written beside the features.
    """

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
        self._starts = np.cumsum([0, *(len(shard) for shard in shards)])

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, verify: bool = False) -> "FeatureStore":
        """Open a feature folder or a `.npy` file.

        Parameters
        ----------
        path : folder with a `manifest.json`, or a file with a float array [n, d].
        verify : also compare the SHA-256 of every shard (reads all of it); sizes always are.

        Raises
        ------
        DataError : missing, unfinished or damaged; the message names the file.
        """
        path = Path(path)
        if path.is_file():
            array = _map(path)
            return cls(path, [array], np.arange(len(array), dtype=np.int64), {}, None)
        manifest = _read_manifest(path)
        if not manifest["complete"]:
            raise DataError(
                f"features in {path} are unfinished after {manifest['rows']} rows; run the"
                " features stage again, it goes on from there"
            )
        shards = manifest["shards"]
        for record in (record for shard in shards for record in _files(shard)):
            if not is_whole(path, record, hashed=verify):
                raise DataError(f"{path / record['file']} is damaged; {_REMEDY}")
        arrays = [_map(path / shard["file"]) for shard in shards]
        for array, shard in zip(arrays, shards, strict=True):
            if array.shape != (shard["rows"], manifest["dim"]) or array.dtype != manifest["dtype"]:
                raise DataError(f"{path / shard['file']} does not fit its manifest; {_REMEDY}")
        ids = _load_ids(path, shards)
        return cls(
            path, arrays, ids, manifest["meta"], [r["sha256"] for s in shards for r in _files(s)]
        )

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
        """SHA-256 of the content (a bare file is read for it)."""
        hashes = self._hashes or [durable.sha256_file(self.path)]
        return durable.sha256_json([self.n, self.dim, str(self.dtype), *hashes])

    def read(self, rows: slice | npt.ArrayLike) -> Array:
        """Copy of the given rows, in the given order, [len(rows), dim] in the stored type.

        Raises
        ------
        InputError : a row lies outside 0 .. n - 1.
        """
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(self.n))
        wanted = np.asarray(rows, np.int64)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= self.n):
            raise InputError(
                f"rows must lie in 0 .. {self.n - 1}, got {wanted.min()} .. {wanted.max()}"
            )
        out = np.empty((len(wanted), self.dim), self.dtype)
        shard_of = np.searchsorted(self._starts, wanted, side="right") - 1
        for number in np.unique(shard_of):
            here = np.flatnonzero(shard_of == number)
            out[here] = self.shards[number][wanted[here] - self._starts[number]]
        return out


_REMEDY = "remove it and run the features stage again"


def _read_manifest(folder: Path) -> dict[str, Any]:
    if not (folder / MANIFEST).is_file():
        raise DataError(f"no features in {folder} ({MANIFEST} is missing); run the features stage")
    manifest = durable.read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise DataError(
            f"{folder / MANIFEST} is not a feature manifest of schema {SCHEMA}; remove the folder"
            " and run the features stage again"
        )
    if manifest.pop("sha256", None) != durable.sha256_json(manifest):
        raise DataError(f"{folder / MANIFEST} is damaged; {_REMEDY}")
    return manifest


def _files(shard: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    return shard, shard["sample_ids"]


def _write_npy(path: Path, array: Array) -> dict[str, Any]:
    """Write a C-contiguous array; its file name, size and hash."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(array))
    header, content = head.getvalue(), array.data.cast("B")
    digest = hashlib.sha256(header)
    digest.update(content)
    with durable.replacing(path) as file:
        file.write(header)
        file.write(content)
    size = len(header) + content.nbytes
    return {"file": path.name, "bytes": size, "sha256": digest.hexdigest()}


def _load_ids(folder: Path, shards: list[dict[str, Any]]) -> npt.NDArray[np.int64]:
    parts = [np.load(folder / shard["sample_ids"]["file"], allow_pickle=False) for shard in shards]
    return np.concatenate(parts)


def _map(path: Path) -> Array:
    """Memory map of a 2-D numeric `.npy` file."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError, SyntaxError) as error:
        raise DataError(f"{path} is not a readable .npy array: {error}") from error
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind not in "fiu":
        what = (
            f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else "an archive"
        )
        raise DataError(f"{path} must hold numbers [n, d], got {what}")
    if 0 in array.shape:
        raise DataError(f"{path} is empty: {list(array.shape)}")
    return array
