"""Write features to disk in shards, so that a crash loses no finished shard."""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ktfast import durable
from ktfast.durable import is_whole, remove_leftovers
from ktfast.errors import ConfigError, DataError, InputError, shown
from ktfast.features.manifest import MANIFEST, files_of, load_ids, read_manifest, write_manifest
from ktfast.features.shard_files import converted, write_shard

logger = logging.getLogger(__name__)

SHARD_BYTES = 64 << 20
"""Default size of a shard. The writer holds one shard in memory."""

Array = npt.NDArray[Any]


class FeatureWriter:
    """Write features block by block. Every finished shard survives a crash.

    Parameters
    ----------
    folder : path-like
        Destination; created if missing.
    dim : int
        Features per image.
    dtype : {"float16", "float32"}
        Type of the stored features.
    meta : mapping, optional
        JSON values that are stored with the features, such as layer, model and data fingerprint.
    shard_rows : int, optional
        Images per shard. The default makes shards of about 64 MiB.
    resume : bool
        Continue after the last whole shard of an earlier writer with the same arguments. Rows below
        `rows_done` that are appended again are ignored, so that the caller may start with the batch
        that holds row `rows_done`. Without `resume`, the shards of an earlier writer are removed.
    paths : sequence of str, optional
        Path of the image of each row, for messages. Without paths, messages name the row.

    Attributes
    ----------
    rows_done : int
        Rows that are safe on disk.

    Raises
    ------
    ConfigError
        The dtype is unknown, or an earlier writer of the folder had other arguments.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        dim: int,
        dtype: Literal["float16", "float32"] = "float16",
        meta: Mapping[str, Any] | None = None,
        shard_rows: int | None = None,
        resume: bool = False,
        paths: Sequence[str] | None = None,
    ) -> None:
        if dtype not in ("float16", "float32"):
            raise ConfigError(f"feature dtype must be float16 or float32, got {dtype!r}")
        row_bytes = dim * np.dtype(dtype).itemsize
        shard_rows = max(1, SHARD_BYTES // row_bytes) if shard_rows is None else shard_rows
        self.folder = Path(folder)
        self.dim = dim
        self.rows_done = 0
        self._paths = paths
        # The values as they will be when the manifest is read back from JSON.
        self.meta: dict[str, Any] = json.loads(json.dumps(meta or {}))
        self._config = {"dim": dim, "dtype": dtype, "shard_rows": shard_rows, "meta": self.meta}
        self._shards: list[dict[str, Any]] = []
        self._features = np.empty((shard_rows, dim), dtype)
        self._ids = np.empty(shard_rows, np.int64)
        self._filled = 0
        self._closed = False
        self._complete = False
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.folder)
        if resume and (self.folder / MANIFEST).exists():
            self._take_over()
        else:
            (self.folder / MANIFEST).unlink(missing_ok=True)
        self._remove_shards_from(len(self._shards))

    def append(
        self,
        features: npt.ArrayLike,
        sample_ids: npt.ArrayLike,
        rows: npt.ArrayLike | None = None,
    ) -> None:
        """Add a block.

        Parameters
        ----------
        features : array, float [b, dim]
            Features.
        sample_ids : array, int64 [b]
            Identity of each image.
        rows : array, int64 [b], optional
            Consecutive row numbers. By default they follow the last block. Rows that are already
            stored are ignored; a gap is an error.

        Raises
        ------
        InputError
            A shape is wrong, rows are missing, or a value is not finite. In float16, values above
            65504 are infinite. No row of the block is stored.
        """
        if self._closed:
            raise InputError(f"the feature writer of {self.folder} is closed; make a new writer")
        block, ids = np.asarray(features), np.asarray(sample_ids)
        if ids.size and ids.dtype.kind not in "iu":
            raise InputError(f"sample_ids must be integers, got {ids.dtype}")
        ids = ids.astype(np.int64)
        if block.ndim != 2 or block.shape[1] != self.dim or ids.shape != block.shape[:1]:
            raise InputError(
                f"features must be [b, {self.dim}] with sample_ids [b],"
                f" got {list(block.shape)} and {list(ids.shape)}"
            )
        known = 0 if rows is None else self._count_stored(np.asarray(rows, np.int64))
        row = self.rows_done + self._filled
        block = converted(block[known:], self._features.dtype, lambda i: self._name(row + i))
        ids = ids[known:]
        if self._complete and len(ids):
            raise InputError(f"{self.folder} is complete with {self.rows_done} rows; add no more")
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

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored features."""
        return self._features.dtype

    @property
    def shard_rows(self) -> int:
        """Rows of a shard; the last shard may have fewer."""
        return len(self._ids)

    def add_shards(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Add shards that `write_shard` has written to the manifest, in the order of their rows.

        Parameters
        ----------
        records : sequence of mapping
            What `write_shard` returned for the shards that follow the last one.
        """
        for record in records:
            self._shards.append(dict(record))
            self.rows_done += record["rows"]
        self._write_manifest()

    def close(self) -> None:
        """Write the last shard and mark the manifest as complete.

        Raises
        ------
        InputError
            An image was appended twice, or no features were appended.
        """
        if self._closed:
            return
        if self._filled:
            self._flush()
        if not self._shards:
            raise InputError(f"no features were appended to {self.folder}")
        ids = load_ids(self.folder, self._shards)
        order = np.argsort(ids, kind="stable")
        equal = np.flatnonzero(ids[order[1:]] == ids[order[:-1]])
        if len(equal):
            first, second = (int(order[equal[0] + k]) for k in (0, 1))
            raise InputError(
                f"{self._name(first)} and {self._name(second)} were appended to "
                f"{shown(self.folder)} with the same sample id; append each image once"
            )
        self._complete = self._closed = True
        self._write_manifest()

    def _take_over(self) -> None:
        """Keep the shards of an earlier writer, up to the first missing or damaged shard."""
        try:
            durable.read_sealed(self.folder / MANIFEST, "all features are made again")
        except DataError as error:
            logger.warning("%s", error)
            (self.folder / MANIFEST).unlink(missing_ok=True)
            return
        manifest = read_manifest(self.folder)
        before = {key: manifest[key] for key in self._config}
        # Earlier versions also stored the options layer and pool, where they had no effect.
        # They did not store the models of libraries. The caller has compared these models already.
        own = {"teachers": self.meta.get("teachers")}
        before["meta"] = {key: before["meta"].get(key, own.get(key)) for key in self.meta}
        if changed := [key for key in before if before[key] != self._config[key]]:
            pairs = (f"{key} {before[key]} is now {self._config[key]}" for key in changed)
            raise ConfigError(
                f"{self.folder} was begun with other arguments ({', '.join(pairs)}); remove the"
                " folder to start again"
            )
        for shard in manifest["shards"]:
            if not all(is_whole(self.folder, record, hashed=True) for record in files_of(shard)):
                logger.warning(
                    "%s: %s is damaged and will be made again", shown(self.folder), shard["file"]
                )
                break
            self._shards.append(shard)
            self.rows_done += shard["rows"]
        self._complete = manifest["complete"] and len(self._shards) == len(manifest["shards"])
        if not self._complete:
            self._write_manifest()

    def _count_stored(self, rows: npt.NDArray[np.int64]) -> int:
        """Number of leading rows of a block that are already stored; refuses a gap."""
        next_row = self.rows_done + self._filled
        if not rows.size:
            return 0
        if np.any(np.diff(rows) != 1) or rows[0] > next_row:
            raise InputError(
                f"rows must follow each other from {next_row}, got {rows[0]} .. {rows[-1]}"
                f" ({rows.size} rows); read the images in their order, without shuffling"
            )
        return int(np.clip(next_row - rows[0], 0, rows.size))

    def _name(self, row: int) -> str:
        """Name the image of a row in a message."""
        return f"row {row}" if self._paths is None else shown(self._paths[row])

    def _flush(self) -> None:
        """Write the rows in memory as a shard, then the manifest."""
        features, ids = self._features[: self._filled], self._ids[: self._filled]
        self._filled = 0
        self.add_shards([write_shard(self.folder, len(self._shards), features, ids)])

    def _write_manifest(self) -> None:
        """Write the manifest of the finished shards."""
        content = {"complete": self._complete, "rows": self.rows_done, **self._config}
        write_manifest(self.folder, {**content, "shards": self._shards})

    def _remove_shards_from(self, first: int) -> None:
        """Remove the files of shard number `first` and of later shards."""
        for pattern in ("features-*.npy", "sample_ids-*.npy"):
            for path in self.folder.glob(pattern):
                number = path.stem.rpartition("-")[2]
                if number.isdigit() and int(number) >= first:
                    path.unlink()
