"""Where a feed takes its images from: the files of a folder, or a prepared set."""

import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ktfast import durable
from ktfast.durable import is_whole
from ktfast.errors import DataError
from ktfast.images.decode import decode_rgb, square
from ktfast.images.index import ImageIndex, SkippedImage

SCHEMA = 1
INDEX = "index.json"
TABLE = "shard-{:05d}.json"


class ImageSource(ABC):
    """Encoded images by row.

    Attributes
    ----------
    n : number of images.
    sample_ids, labels : int64 [n]; label -1 means none.
    classes : class names.
    paths : relative path of each image, length n.
    skipped : images that are listed but not used.
    short_side : shorter side of every image in pixels, or None where sizes differ.
    """

    n: int
    sample_ids: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    paths: Sequence[str]
    skipped: tuple[SkippedImage, ...]
    short_side: int | None

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 that changes when the images do."""

    @abstractmethod
    def name(self, row: int) -> str:
        """What error messages call the image."""

    @abstractmethod
    def read(self, row: int) -> bytes | memoryview:
        """The image as it is stored; `DataError` names it if it cannot be read."""

    def image(self, row: int) -> Image.Image:
        """The image decoded, upright, mode RGB; `DataError` names it if that fails."""
        return decode_rgb(self.read(row), self.name(row))

    def square(self, row: int, *, short_side: int, size: int) -> npt.NDArray[np.uint8]:
        """Decoded, resized and cut from the centre: uint8 [size, size, 3].

        Raises
        ------
        DataError : the image cannot be read or decoded; the message names it.
        """
        return square(self.image(row), short_side=short_side, size=size)


class FolderSource(ImageSource):
    """The original files of an `ImageIndex`."""

    def __init__(self, index: ImageIndex) -> None:
        self.index = index
        self.n = index.n
        self.sample_ids = index.sample_ids
        self.labels = index.labels
        self.classes = index.classes
        self.paths = index.paths
        self.skipped = index.skipped
        self.short_side = None

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the index."""
        return self.index.fingerprint

    def name(self, row: int) -> str:
        """Path of the image."""
        return str(self.index.root / self.paths[row])

    def read(self, row: int) -> bytes:
        """The file's content; `DataError` if it has vanished or cannot be read."""
        try:
            with open(self.name(row), "rb") as file:
                return file.read()
        except OSError as error:
            raise DataError(f"{self.name(row)} cannot be read: {error.strerror}") from error


class PreparedSet(ImageSource):
    """Images that `prepare` made small; see there for the layout of the folder.

    Attributes
    ----------
    folder : where the set lies.
    format : "jpeg" or "raw".
    heights, widths : int64 [n], pixels.
    lengths : int64 [n], stored bytes.
    """

    short_side: int

    def __init__(self, folder: Path, index: dict[str, Any], tables: list[dict[str, Any]]) -> None:
        self.folder = folder
        self.format: str = index["format"]
        self.short_side = index["short_side"]
        self.classes = tuple(index["classes"])
        self.paths = tuple(path for table in tables for path in table["paths"])
        self.n = len(self.paths)
        self.sample_ids = _column(tables, "sample_ids")
        self.labels = _column(tables, "labels")
        self.heights = _column(tables, "heights")
        self.widths = _column(tables, "widths")
        self._offsets = _column(tables, "offsets")
        self.lengths = _column(tables, "lengths")
        self._shard = np.repeat(np.arange(len(tables)), [len(table["paths"]) for table in tables])
        skipped = [*index["skipped"], *(pair for table in tables for pair in table["skipped"])]
        self.skipped = tuple(SkippedImage(path, reason) for path, reason in sorted(skipped))
        self._fingerprint = durable.sha256_json(
            [index["classes"], [(s["sha256"], s["table"]["sha256"]) for s in index["shards"]]]
        )
        # Read with pread: a file that is cut off under a memory map kills the process.
        self._descriptors: list[int] = []
        weakref.finalize(self, _close, self._descriptors)
        self._names = [str(folder / shard["file"]) for shard in index["shards"]]
        for name in self._names:
            self._descriptors.append(os.open(name, os.O_RDONLY))

    @classmethod
    def open(cls, folder: str | os.PathLike[str], *, verify: bool = False) -> "PreparedSet":
        """Open a prepared set.

        Parameters
        ----------
        folder : written by `prepare`.
        verify : also compare the SHA-256 of every shard (reads all of it); sizes always are.

        Raises
        ------
        DataError : missing, unfinished or damaged; the message names the file.
        """
        folder = Path(folder)
        if not (folder / INDEX).is_file():
            raise DataError(
                f"no finished prepared set in {folder} ({INDEX} is missing); run ktfast prepare"
            )
        index = durable.read_json(folder / INDEX)
        if not isinstance(index, dict) or index.get("schema") != SCHEMA:
            raise DataError(
                f"{folder / INDEX} is not of schema {SCHEMA}; remove the folder and run"
                " ktfast prepare"
            )
        if index.pop("sha256", None) != durable.sha256_json(index):
            raise DataError(f"{folder / INDEX} is damaged; run ktfast prepare again")
        for shard in index["shards"]:
            for part, hashed in ((shard, verify), (shard["table"], True)):
                if not is_whole(folder, part, hashed=hashed):
                    raise DataError(
                        f"{folder / part['file']} is damaged; run ktfast prepare again, which"
                        " makes only that part anew"
                    )
        tables = [durable.read_json(folder / shard["table"]["file"]) for shard in index["shards"]]
        return cls(folder, index, tables)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the hashes of all parts."""
        return self._fingerprint

    def name(self, row: int) -> str:
        """Original path, and the prepared set."""
        return f"{self.paths[row]} (row {row} of {self.folder})"

    def read(self, row: int) -> bytes:
        """The stored file: JPEG, or .npy where the format is "raw"."""
        return self._bytes(row, 0, int(self.lengths[row]))

    def image(self, row: int) -> Image.Image:
        """The image decoded, mode RGB; `DataError` names it if that fails."""
        if self.format != "raw":
            return super().image(row)
        width, height = int(self.widths[row]), int(self.heights[row])
        return Image.fromarray(self._rows_of_pixels(row, 0, height, width))

    def square(self, row: int, *, short_side: int, size: int) -> npt.NDArray[np.uint8]:
        """Decoded, resized and cut; of raw images of the right size only the cut's rows are read.

        Raises
        ------
        DataError : the image cannot be read or decoded; the message names it.
        """
        if self.format != "raw" or short_side != self.short_side:
            return super().square(row, short_side=short_side, size=size)
        height, width = int(self.heights[row]), int(self.widths[row])
        top, left = (height - size) // 2, (width - size) // 2
        return self._rows_of_pixels(row, top, size, width)[:, left : left + size]

    def _rows_of_pixels(self, row: int, first: int, n: int, width: int) -> npt.NDArray[np.uint8]:
        """Some rows of a raw image, uint8 [n, width, 3]; its pixels end the stored file."""
        below = int(self.heights[row]) - first
        data = self._bytes(row, int(self.lengths[row]) - 3 * width * below, 3 * width * n)
        return np.frombuffer(data, np.uint8).reshape(n, width, 3)

    def _bytes(self, row: int, start: int, length: int) -> bytes:
        """A part of the stored file."""
        shard = int(self._shard[row])
        data = os.pread(self._descriptors[shard], length, int(self._offsets[row]) + start)
        if len(data) != length:
            raise DataError(f"{self._names[shard]} has been cut off; run ktfast prepare again")
        return data


def _column(tables: list[dict[str, Any]], name: str) -> npt.NDArray[np.int64]:
    return np.array([value for table in tables for value in table[name]], np.int64)


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
