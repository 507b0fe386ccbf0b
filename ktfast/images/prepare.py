"""Decode every image once, resize it, and pack it into shards that feeds read fast.

A prepared set is a folder of tar files in the WebDataset layout (`000000042.jpg`: row 42), beside
each the table of its images, and `index.json`, which is written last. Every image of the index
ends up in the set or in `skipped`. The bytes depend on the images and the options alone, not on
threads or interruptions: a run that was killed goes on after its last whole shard.
"""

import hashlib
import io
import json
import logging
import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from ktfast import durable
from ktfast.durable import is_whole, part, remove_leftovers
from ktfast.errors import ConfigError, DataError
from ktfast.images.decode import DecodeError, decode_rgb, is_upright_colour_jpeg, resize_short_side
from ktfast.images.in_order import in_order
from ktfast.images.index import ImageIndex, SkippedImage
from ktfast.images.source import INDEX, SCHEMA, TABLE, FolderSource, PreparedSet

logger = logging.getLogger(__name__)

SHARD_BYTES = 256 << 20
"""Default size of a shard: what is lost when a run is killed, and one open file."""


def prepare(
    index: ImageIndex,
    out: str | os.PathLike[str],
    *,
    short_side: int,
    quality: int = 95,
    subsampling: Literal["4:2:0", "4:2:2", "4:4:4"] = "4:2:0",
    format: Literal["jpeg", "raw"] = "jpeg",
    shard_bytes: int = SHARD_BYTES,
    n_threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PreparedSet:
    """Prepare the images of an index, or finish what an earlier call with these options began.

    Parameters
    ----------
    index : images to prepare.
    out : destination folder; created.
    short_side : shorter side of the stored images, pixels.
    quality, subsampling : of the JPEG files. A JPEG file that has the right size already is
        stored as it is.
    format : "jpeg", or "raw" for uint8 [H, W, 3] arrays in .npy format: about 20 times the size,
        and nothing to decode.
    shard_bytes : a shard is closed once it holds this many bytes.
    n_threads : decoding threads; None: every core this process may use.
    progress : called with (images done, images in all).

    Raises
    ------
    ConfigError : an option is impossible.
    OSError : the disk is full or cannot be written; a later call goes on from there.
    """
    if short_side < 1 or shard_bytes < 1 or not 1 <= quality <= 100:
        raise ConfigError(
            "short_side and shard_bytes must be at least 1 and quality 1 .. 100,"
            f" got {short_side}, {shard_bytes} and {quality}"
        )
    if format not in ("jpeg", "raw"):
        raise ConfigError(f"format must be jpeg or raw, got {format!r}")
    options = {
        "schema": SCHEMA, "short_side": short_side, "quality": quality,
        "subsampling": subsampling, "format": format, "shard_bytes": shard_bytes,
    }  # fmt: skip
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    remove_leftovers(out)
    _Shards(index, out, options, progress).write_all(n_threads)
    return PreparedSet.open(out)


def verified(
    index: ImageIndex,
    *,
    n_threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ImageIndex:
    """Decode every image once and move what cannot be decoded to `skipped`.

    For feeds that read the original files; a prepared set is verified already.
    """
    source = FolderSource(index)

    def reason(row: int) -> str | None:
        try:
            decode_rgb(source.read(row), source.name(row))
        except DataError as error:
            return _reason(error)
        return None

    good, skipped = [], []
    with in_order(reason, index.n, n_threads) as reasons:
        for row, problem in reasons(0):
            if problem is None:
                good.append(row)
            else:
                skipped.append(SkippedImage(index.paths[row], problem))
            if progress is not None:
                progress(row + 1, index.n)
    return index.take(np.array(good, np.int64), skipped)


class _Shards:
    """Writes the shards that are missing or damaged, and then the index."""

    def __init__(
        self,
        index: ImageIndex,
        out: Path,
        options: dict[str, Any],
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.index = index
        self.source = FolderSource(index)
        self.out = out
        self.options = options
        self.key = durable.sha256_json([index.fingerprint, options])
        self.progress = progress
        self.done: list[dict[str, Any]] = []

    def write_all(self, n_threads: int | None) -> None:
        row = 0
        n = self.index.n
        with in_order(self._encode, n, n_threads) as encoded:
            while row < n:
                row = self._keep(row) or self._write(row, encoded)
                if self.progress is not None:
                    self.progress(row, n)
        for path in self.out.glob("shard-*"):
            number = path.stem.rpartition("-")[2]
            if number.isdigit() and int(number) >= len(self.done):
                path.unlink()
        content = {
            **self.options,
            "root": str(self.index.root),
            "source_fingerprint": self.index.fingerprint,
            "classes": list(self.index.classes),
            "skipped": [[image.path, image.reason] for image in self.index.skipped],
            "shards": self.done,
        }
        durable.write_json(self.out / INDEX, {**content, "sha256": durable.sha256_json(content)})

    def _keep(self, first: int) -> int | None:
        """The row after the next shard, if an earlier run wrote it from row `first` on."""
        path = self.out / TABLE.format(len(self.done))
        try:
            table = durable.read_json(path)
            if table["key"] != self.key or table["first"] != first:
                return None
            tar, next_row, rows = table["tar"], int(table["next"]), len(table["paths"])
        except (FileNotFoundError, DataError, KeyError, TypeError):
            return None
        if not is_whole(self.out, tar, hashed=True):
            logger.warning("%s is damaged and made again", self.out / tar["file"])
            return None
        self.done.append({**tar, "rows": rows, "table": part(path)})
        return next_row

    def _write(
        self, first: int, encoded: Callable[[int], Iterator[tuple[int, "_Encoded | str"]]]
    ) -> int:
        """Write the next shard from row `first` of the index on; the row after its last."""
        number = len(self.done)
        table = _Table(first_key=sum(shard["rows"] for shard in self.done))
        path = self.out / f"shard-{number:05d}.tar"
        with durable.replacing(path) as file:
            tar = _TarFile(file)
            for row, image in encoded(first):
                next_row = row + 1
                if isinstance(image, str):
                    table.skipped.append([self.index.paths[row], image])
                else:
                    suffix = "jpg" if self.options["format"] == "jpeg" else "npy"
                    offset = tar.add(f"{table.next_key:09d}.{suffix}", image.data)
                    table.add(self.index, row, offset, image)
                if self.progress is not None:
                    self.progress(next_row, self.index.n)
                if tar.position >= self.options["shard_bytes"]:
                    break
            tar.finish()
        stored = {"file": path.name, "bytes": tar.position, "sha256": tar.digest.hexdigest()}
        head = {"key": self.key, "first": first, "next": next_row, "tar": stored}
        table_path = self.out / TABLE.format(number)
        durable.write_bytes(
            table_path, json.dumps({**head, "skipped": table.skipped, **table.columns}).encode()
        )
        self.done.append({**stored, "rows": len(table.columns["paths"]), "table": part(table_path)})
        return next_row

    def _encode(self, row: int) -> "_Encoded | str":
        """The image as it is stored, or the reason why it is skipped."""
        try:
            data = self.source.read(row)
            original = decode_rgb(data, self.source.name(row))
        except DataError as error:
            return _reason(error)
        image = resize_short_side(original, self.options["short_side"])
        buffer = io.BytesIO()
        if self.options["format"] == "raw":
            np.lib.format.write_array(buffer, np.asarray(image), allow_pickle=False)
        elif image is original and is_upright_colour_jpeg(data):
            buffer.write(data)
        else:
            image.info.clear()  # neither EXIF nor a colour profile of the original
            image.save(
                buffer,
                "JPEG",
                quality=self.options["quality"],
                subsampling=self.options["subsampling"],
            )
        return _Encoded(buffer.getvalue(), image.height, image.width)


@dataclass(frozen=True)
class _Encoded:
    data: bytes
    height: int
    width: int


class _Table:
    """One row per image of a shard, as columns."""

    def __init__(self, first_key: int) -> None:
        self.next_key = first_key
        self.skipped: list[list[str]] = []
        names = ("paths", "sample_ids", "labels", "offsets", "lengths", "heights", "widths")
        self.columns: dict[str, list[Any]] = {name: [] for name in names}

    def add(self, index: ImageIndex, row: int, offset: int, image: _Encoded) -> None:
        identity = index.paths[row], int(index.sample_ids[row]), int(index.labels[row])
        values = (*identity, offset, len(image.data), image.height, image.width)
        for column, value in zip(self.columns.values(), values, strict=True):
            column.append(value)
        self.next_key += 1


class _TarFile:
    """A tar file in ustar format whose bytes depend on names and contents only."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.position = 0
        self.digest = hashlib.sha256()

    def add(self, name: str, data: bytes) -> int:
        """Append a member; where its data begins."""
        member = tarfile.TarInfo(name)
        member.size = len(data)
        self._write(member.tobuf(tarfile.USTAR_FORMAT))
        offset = self.position
        self._write(data)
        self._write(bytes(-len(data) % tarfile.BLOCKSIZE))
        return offset

    def finish(self) -> None:
        """Append the end mark."""
        end = 2 * tarfile.BLOCKSIZE
        self._write(bytes(end + -(self.position + end) % tarfile.RECORDSIZE))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self.digest.update(data)
        self.position += len(data)


def _reason(error: DataError) -> str:
    if isinstance(error, DecodeError):
        return error.reason
    return f"cannot be read: {getattr(error.__cause__, 'strerror', None) or error}"
