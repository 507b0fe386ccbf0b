"""Write the shards of a prepared set and its `index.json`. Internal; `prepare` uses this file."""

import hashlib
import io
import logging
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ktfast import durable
from ktfast.durable import is_whole, part
from ktfast.errors import DataError
from ktfast.images.arrays import ArrayFormat, resized_array
from ktfast.images.decode_memory import DECODING
from ktfast.images.file_records import (
    UNREAD,
    FileRecord,
    read_records,
    write_records,
)
from ktfast.images.in_order import in_order
from ktfast.images.index import UNREADABLE, ImageIndex
from ktfast.images.jpeg import is_upright_colour_jpeg
from ktfast.images.opening import PIXEL_LIMIT, DecodeError
from ktfast.images.resize import DecodedImage
from ktfast.images.shard_table import COLUMNS, PathList, ShardTable
from ktfast.images.source import INDEX, JOURNAL, SCHEMA, SOURCES, TABLE, FolderSource

logger = logging.getLogger(__name__)


class ShardWriter:
    """Writes the shards that are missing or damaged, and then `index.json`.

    Parameters
    ----------
    index : ImageIndex
        Images to store.
    out : Path
        Folder of the prepared set.
    options : dict
        Options of `prepare`. `max_pixels` and `decoding` may be missing. A set without `decoding`
        was decoded fully. `channels` and `range` describe arrays.
    progress : callable or None
        Called with (images done, images in all).
    """

    def __init__(
        self,
        index: ImageIndex,
        out: Path,
        options: dict[str, Any],
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.index = index
        self.source = FolderSource(
            index,
            pixel_limit=options.get("max_pixels", PIXEL_LIMIT),
            decoding=options.get("decoding", "full"),
        )
        self.arrays = None
        if "channels" in options:
            self.arrays = ArrayFormat(options["channels"], *options["range"])
        self.out = out
        self.options = options
        # All versions of ktfast put this number into the key, so that a shard whose table an
        # earlier version wrote is kept.
        self.key = durable.sha256_json([index.fingerprint, {"schema": 1, **options}])
        self.progress = progress
        self.done: list[dict[str, Any]] = []
        self.known = self._known_shards()

    def write_all(self, n_threads: int | None) -> None:
        """Write everything that is missing, and delete shards that do not belong to the set."""
        row = 0
        n = self.index.n
        with in_order(self._encode, n, n_threads) as encoded:
            while row < n:
                row = self._keep(row) or self._write(row, encoded)
                if self.progress is not None:
                    self.progress(row, n)
        self._remove_other_shards()
        content = {
            "schema": SCHEMA,
            **self.options,
            "root": str(self.index.root),
            "source_fingerprint": self.index.fingerprint,
            "classes": list(self.index.classes),
            "skipped": [[image.path, image.reason] for image in self.index.skipped],
            "others": self.index.others.to_json(),
            "shards": self.done,
        }
        self.known = []
        self._write_journal()
        durable.write_sealed(self.out / INDEX, content)

    def _remove_other_shards(self) -> None:
        """Delete shards beyond the last one, and tables that another version of ktfast wrote."""
        tables = {shard["table"]["file"] for shard in self.done}
        for kind in ("shard-*", "sources-*"):
            for path in self.out.glob(kind):
                number = path.stem.rpartition("-")[2]
                is_table = path.match("shard-*.json") or path.match("shard-*.npz")
                replaced = is_table and path.name not in tables
                if number.isdigit() and (replaced or int(number) >= len(self.done)):
                    path.unlink()

    def _known_shards(self) -> list[dict[str, Any]]:
        """The shards of an earlier call, from the journal if it is whole, else from `index.json`.

        A table that neither file lists by its hash is not trusted, because a changed label in a
        table cannot be told from the right label.
        """
        for name in (JOURNAL, INDEX):
            try:
                found = durable.read_sealed(self.out / name, "the shards are written again")
                return list(found["shards"])
            except (DataError, KeyError, TypeError) as error:
                if (self.out / name).exists():
                    logger.warning("%s", error)
        return []

    def _write_journal(self) -> None:
        """List the finished shards, so that a later call trusts them, and only them."""
        later = self.known[len(self.done) :]
        durable.write_sealed(self.out / JOURNAL, {"shards": [*self.done, *later]})

    def _keep(self, first: int) -> int | None:
        """Keep the next shard if an earlier call wrote that shard from row `first` on.

        Returns
        -------
        int or None
            The row after the shard, or None if the shard has to be written.
        """
        if len(self.done) >= len(self.known):
            return None
        shard = self.known[len(self.done)]
        for whole in (shard["table"], shard):
            if not is_whole(self.out, whole, hashed=True):
                logger.warning("%s is damaged; writing it again", self.out / whole["file"])
                return None
        table = ShardTable.read(self.out / shard["table"]["file"]).head
        if table["key"] != self.key or table["first"] != first:
            return None
        if not self._same_sources(first, int(table["next"])):
            return None
        self.done.append(shard)
        return int(table["next"])

    def _same_sources(self, first: int, next_row: int) -> bool:
        """Say whether the files of some rows are those from which the next shard was made."""
        path = self.out / SOURCES.format(len(self.done))
        records = read_records(path, key=self.key, first=first)
        if list(records) != list(self.index.paths[first:next_row]):
            return False
        touched: list[tuple[str, FileRecord]] = []
        for row, (name, record) in enumerate(records.items(), first):
            if record.sha256 == UNREAD:
                return False
            if not record.is_of(int(self.index.sizes[row]), int(self.index.mtimes_ns[row])):
                touched.append((str(self.index.root / name), record))
        now = self.index.hashes().sha256(name for name, _ in touched)
        return now == [record.sha256 for _, record in touched]

    def _write(
        self, first: int, encoded: Callable[[int], Iterator[tuple[int, "EncodedRow"]]]
    ) -> int:
        """Write the next shard from row `first` of the index on; return the row after the shard."""
        number = len(self.done)
        table = Table(first_key=sum(shard["rows"] for shard in self.done))
        path = self.out / f"shard-{number:05d}.tar"
        sources: dict[str, FileRecord] = {}
        with durable.replacing(path) as file:
            tar = TarFile(file)
            for row, (image, record) in encoded(first):
                next_row = row + 1
                sources[self.index.paths[row]] = record
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
        sha256 = tar.digest.hexdigest()
        durable.remember(path, sha256)
        stored = {"file": path.name, "bytes": tar.position, "sha256": sha256}
        head = {"key": self.key, "first": first, "next": next_row, "tar": stored}
        table_path = self.out / TABLE.format(number)
        table.finished(head).write(table_path)
        place = self.out / SOURCES.format(number)
        write_records(place, sources, key=self.key, first=first)
        self.done.append({**stored, "rows": len(table.paths), "table": part(table_path)})
        self._write_journal()
        return next_row

    def _encode(self, row: int) -> "EncodedRow":
        """The stored form of an image or the reason why it is skipped, and the file's record."""
        try:
            data, record = self.index.read_recorded(row)
        except OSError as error:
            return f"{UNREADABLE}: {error.strerror}", FileRecord(0, 0, UNREAD)
        except DecodeError as error:  # a row of a table without an item
            nothing = hashlib.sha256(b"").hexdigest()
            return error.reason, FileRecord(0, int(self.index.mtimes_ns[row]), nothing)
        try:
            if self.arrays is not None:
                return self._stored_array(data, self.source.name(row), self.arrays), record
            with DECODING.block():
                original = self.source.decoded(data, row, self.options["short_side"])
                return self._stored(data, original), record
        except DataError as error:
            return skip_reason(error), record

    def _stored_array(self, data: bytes, name: str, arrays: ArrayFormat) -> "Encoded":
        pixels = arrays.read(data, name, self.source.pixel_limit)
        pixels = resized_array(pixels, self.options["short_side"])
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, np.ascontiguousarray(pixels), allow_pickle=False)
        return Encoded(buffer.getvalue(), pixels.shape[0], pixels.shape[1])

    def _stored(self, data: bytes, original: DecodedImage) -> "Encoded":
        """The stored form of an image, whose file holds `data`."""
        image = original.resized(self.options["short_side"])
        buffer = io.BytesIO()
        if self.options["format"] == "raw":
            np.lib.format.write_array(buffer, np.asarray(image), allow_pickle=False)
        elif image is original.image and is_upright_colour_jpeg(data, self.source.pixel_limit):
            buffer.write(data)
        else:
            image.info.clear()  # store neither EXIF data nor a colour profile
            image.save(
                buffer,
                "JPEG",
                quality=self.options["quality"],
                subsampling=self.options["subsampling"],
            )
        return Encoded(buffer.getvalue(), image.height, image.width)


EncodedRow = tuple["Encoded | str", FileRecord]


@dataclass(frozen=True)
class Encoded:
    """The stored bytes of an image, and its size in pixels."""

    data: bytes
    height: int
    width: int


class Table:
    """Collects the table of a shard.

    Parameters
    ----------
    first_key : int
        Row of the prepared set that the shard begins with.

    Attributes
    ----------
    next_key : int
        Row of the prepared set that the next image gets.
    paths : list of str
        Path of each image.
    skipped : list of list of str
        Path and reason of each skipped image.
    """

    def __init__(self, first_key: int) -> None:
        self.next_key = first_key
        self.paths: list[str] = []
        self.skipped: list[list[str]] = []
        self._numbers: list[tuple[int, ...]] = []

    def add(self, index: ImageIndex, row: int, offset: int, image: Encoded) -> None:
        """Append the image of a row, whose data begin at `offset` in the shard."""
        self.paths.append(index.paths[row])
        identity = int(index.sample_ids[row]), int(index.labels[row])
        self._numbers.append((*identity, offset, len(image.data), image.height, image.width))
        self.next_key += 1

    def finished(self, head: dict[str, Any]) -> ShardTable:
        """Make the table with these facts about the shard, and the skipped images."""
        numbers = np.array(self._numbers, np.int64).reshape(-1, len(COLUMNS))
        columns = np.ascontiguousarray(numbers.T)
        return ShardTable({**head, "skipped": self.skipped}, columns, PathList.of(self.paths))


class TarFile:
    """A tar file in ustar format whose bytes depend only on names and contents.

    Parameters
    ----------
    file : binary file
        File to write to.

    Attributes
    ----------
    position : int
        Number of bytes written.
    digest : hash
        SHA-256 of these bytes.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.position = 0
        self.digest = hashlib.sha256()

    def add(self, name: str, data: bytes) -> int:
        """Append a member; return the offset of its data in the file."""
        member = tarfile.TarInfo(name)
        member.size = len(data)
        self._write(member.tobuf(tarfile.USTAR_FORMAT))
        offset = self.position
        self._write(data)
        self._write(bytes(-len(data) % tarfile.BLOCKSIZE))
        return offset

    def finish(self) -> None:
        """Append the end mark of a tar file."""
        end = 2 * tarfile.BLOCKSIZE
        self._write(bytes(end + -(self.position + end) % tarfile.RECORDSIZE))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self.digest.update(data)
        self.position += len(data)


def skip_reason(error: DataError) -> str:
    """The reason why an image is skipped, without the name of the image."""
    if isinstance(error, DecodeError):
        return error.reason
    return f"cannot be read: {getattr(error.__cause__, 'strerror', None) or error}"
