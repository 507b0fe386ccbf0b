"""Where a feed gets its images: from the files of a folder, or from a prepared set."""

import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from ktfast import durable
from ktfast.errors import DataError, opens, shown
from ktfast.images.arrays import array_picture, array_square
from ktfast.images.decode import decode, decode_rgb
from ktfast.images.decode_memory import DECODING
from ktfast.images.index import ImageIndex, SkippedImage
from ktfast.images.kinds import OtherFiles
from ktfast.images.opening import PIXEL_LIMIT
from ktfast.images.resize import DecodedImage
from ktfast.images.shard_table import PathList, ShardTable
from ktfast.manifest import problems

Decoding = Literal["reduced", "full"]
"""Whether a JPEG file that is much larger than the target is decoded at a fraction of its size."""
SCHEMA = 2
"""The layout of the folder. Sets of schema 1, whose tables are JSON, are read, too."""
INDEX = "index.json"
TABLE = "shard-{:05d}.npz"
SOURCES = "sources-{:05d}.json"
"""Records of the files from which a shard was made (`ktfast.images.file_records`)."""
JOURNAL = "shards.json"
"""Lists the finished shards with their hashes; written after every shard.

In a finished set, this list is a copy of the list in `index.json`.
"""


class ImageSource(ABC):
    """Encoded images by row.

    Attributes
    ----------
    n : int
        Number of images.
    sample_ids : array, int64 [n]
        Sample id of each image.
    labels : array, int64 [n]
        Index into `classes`; -1 means that the image has no class.
    classes : tuple of str
        Names of the classes.
    paths : sequence of str
        Relative path of each image.
    skipped : tuple of SkippedImage
        Images that were found but are not used.
    others : OtherFiles
        Files of the folder that are no images.
    short_side : int or None
        Shorter side of every image in pixels; None if the sizes differ.
    pixel_limit : int
        Images with more pixels are refused.
    channels : int
        Number of channels: 3 for photographs.
    is_array : bool
        Whether the images are arrays instead of photographs.
    """

    n: int
    sample_ids: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    paths: Sequence[str]
    skipped: tuple[SkippedImage, ...]
    others: OtherFiles
    short_side: int | None
    pixel_limit: int = PIXEL_LIMIT
    channels: int = 3
    is_array: bool = False

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 that changes when the images change."""

    @property
    def shard_sizes(self) -> npt.NDArray[np.int64]:
        """Number of images of each shard, int64, in the order of the rows."""
        return np.array([self.n], np.int64)

    @abstractmethod
    def name(self, row: int) -> str:
        """Name of the image in error messages."""

    @abstractmethod
    def read(self, row: int) -> bytes | memoryview:
        """The stored bytes of the image.

        Raises
        ------
        DataError
            The image cannot be read. The message names the image.
        """

    def image(self, row: int) -> Image.Image:
        """The decoded image, upright and of mode RGB.

        Raises
        ------
        DataError
            The image cannot be read or decoded. The message names the image.
        """
        return decode_rgb(self.read(row), self.name(row), pixel_limit=self.pixel_limit)

    def image_for(self, row: int, short_side: int) -> DecodedImage:
        """The decoded image, perhaps at a fraction of its size, to be resized to a shorter side.

        Parameters
        ----------
        row : int
            Row of the image.
        short_side : int
            Shorter side of the resized image in pixels.

        Returns
        -------
        DecodedImage
            The image. Its methods resize it and cut a square.

        Raises
        ------
        DataError
            The image cannot be read or decoded. The message names the image.
        """
        return DecodedImage.of(self.image(row))

    def square(self, row: int, *, short_side: int, size: int) -> npt.NDArray[np.uint8]:
        """A square from the centre of the decoded and resized image.

        Parameters
        ----------
        row : int
            Row of the image.
        short_side : int
            Shorter side of the resized image in pixels.
        size : int
            Side of the square in pixels, at most `short_side`.

        Returns
        -------
        array, uint8 [size, size, 3]
            RGB pixels.

        Raises
        ------
        DataError
            The image cannot be read or decoded. The message names the image.
        """
        with DECODING.block():
            return self.image_for(row, short_side).square(short_side=short_side, size=size)


class FolderSource(ImageSource):
    """The original files of an `ImageIndex`, which may lie in tar files.

    Parameters
    ----------
    index : ImageIndex
        The files.
    pixel_limit : int, default 64000000
        Images with more pixels are refused.
    decoding : {"reduced", "full"}, default "reduced"
        "reduced" decodes a JPEG file that is much larger than the target at 1/2, 1/4 or 1/8 of its
        size, which is faster and changes pixels a little. "full" decodes every pixel of the file.
    """

    def __init__(
        self,
        index: ImageIndex,
        *,
        pixel_limit: int = PIXEL_LIMIT,
        decoding: Decoding = "reduced",
    ) -> None:
        self.index = index
        self.pixel_limit = pixel_limit
        self.decoding = decoding
        self.n = index.n
        self.sample_ids = index.sample_ids
        self.labels = index.labels
        self.classes = index.classes
        self.paths = index.paths
        self.skipped = index.skipped
        self.others = index.others
        self.short_side = None

    @property
    def fingerprint(self) -> str:
        """SHA-256 over path, size and modification time of every file.

        Reading the content of a large data set would take long. Touching a file therefore changes
        this fingerprint. A prepared set has the fingerprint of its content.
        """
        times = durable.sha256_json(self.index.mtimes_ns.tolist())
        return durable.sha256_json([self.index.fingerprint, times])

    @property
    def shard_sizes(self) -> npt.NDArray[np.int64]:
        """Number of images of each tar file, int64; one number for separate files."""
        return self.index.shard_sizes

    def name(self, row: int) -> str:
        """Full path of the image."""
        return self.index.name(row)

    def read(self, row: int) -> bytes:
        """The bytes of the file.

        Raises
        ------
        DataError
            The file does not exist any more or cannot be read.
        """
        return self.index.read(row)

    def image_for(self, row: int, short_side: int) -> DecodedImage:
        """The decoded image to be resized; see `ImageSource.image_for`."""
        return self.decoded(self.read(row), row, short_side)

    def decoded(self, data: bytes, row: int, short_side: int) -> DecodedImage:
        """Decode the bytes of a file that were read before; see `image_for`."""
        target = short_side if self.decoding == "reduced" else None
        return decode(data, self.name(row), target, pixel_limit=self.pixel_limit)


class PreparedSet(ImageSource):
    """Resized images that `ktfast.images.prepare` wrote; see there for the layout of the folder.

    Open a set with `PreparedSet.open`.

    Parameters
    ----------
    folder : Path
        Folder of the set.
    index : dict
        Content of the file `index.json`.
    tables : list of ShardTable
        Table of each shard.

    Attributes
    ----------
    folder : Path
        Folder of the set.
    format : {"jpeg", "raw"}
        How the images are stored.
    heights, widths : array, int64 [n]
        Size of each image in pixels.
    lengths : array, int64 [n]
        Number of stored bytes of each image.
    """

    short_side: int

    def __init__(self, folder: Path, index: dict[str, Any], tables: list[ShardTable]) -> None:
        self.folder = folder
        self.format: str = index["format"]
        self.short_side = index["short_side"]
        self.classes = tuple(index["classes"])
        self.paths = PathList.joined([table.paths for table in tables])
        self.n = len(self.paths)
        self.sample_ids = _column(tables, "sample_ids")
        self.labels = _column(tables, "labels")
        self.heights = _column(tables, "heights")
        self.widths = _column(tables, "widths")
        self._offsets = _column(tables, "offsets")
        self.lengths = _column(tables, "lengths")
        self._shard = np.repeat(np.arange(len(tables)), [len(table.paths) for table in tables])
        skipped = [*index["skipped"], *(pair for table in tables for pair in table.head["skipped"])]
        self.skipped = tuple(SkippedImage(path, reason) for path, reason in sorted(skipped))
        self.others = OtherFiles.from_json(index.get("others", {}))
        self.pixel_limit = max(PIXEL_LIMIT, index.get("max_pixels", 0))
        self.is_array = "channels" in index
        self.channels = index.get("channels", 3)
        self._fingerprint = durable.sha256_json(
            [index["classes"], [(s["sha256"], s["table"]["sha256"]) for s in index["shards"]]]
        )
        # Shards are read with pread. With a memory map, a file that shrinks would kill the process.
        self._descriptors: list[int] = []
        weakref.finalize(self, _close, self._descriptors)
        self._names = [str(folder / shard["file"]) for shard in index["shards"]]
        for name in self._names:
            self._descriptors.append(os.open(name, os.O_RDONLY))

    @classmethod
    @opens("a prepared set", "run ktfast prepare again")
    def open(cls, folder: str | os.PathLike[str], *, verify: bool = False) -> "PreparedSet":
        """Open a prepared set.

        Parameters
        ----------
        folder : str or Path
            Folder that `ktfast.images.prepare` wrote.
        verify : bool, default False
            Whether to compare the SHA-256 of every shard. The first call in a process reads all
            shards. The sizes of the shards, and the SHA-256 of their tables, are always compared.

        Returns
        -------
        PreparedSet
            The set.

        Raises
        ------
        DataError
            The set is missing, unfinished or damaged. The message names the file.
        """
        folder = Path(folder)
        if not (folder / INDEX).is_file():
            raise DataError(
                f"no finished prepared set in {folder} ({INDEX} is missing); run ktfast prepare"
            )
        index = durable.read_sealed(folder / INDEX, "run ktfast prepare again")
        if index.get("schema") not in (1, SCHEMA):
            raise DataError(
                f"{folder / INDEX} is not of schema 1 or {SCHEMA}, which this version of ktfast"
                " reads; remove the folder and run ktfast prepare"
            )
        shards = index["shards"]
        damaged = problems(((folder / s["file"], s) for s in shards), hashed=verify)
        damaged += problems((folder / s["table"]["file"], s["table"]) for s in shards)
        for path, problem in damaged:
            raise DataError(
                f"{shown(path)} is damaged: it {problem}; run ktfast prepare again, which makes "
                "only damaged files again"
            )
        tables = [ShardTable.read(folder / shard["table"]["file"]) for shard in shards]
        return cls(folder, index, tables)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the hashes of all files of the set."""
        return self._fingerprint

    @property
    def shard_sizes(self) -> npt.NDArray[np.int64]:
        """Number of images of each shard, int64."""
        return np.bincount(self._shard, minlength=len(self._names)).astype(np.int64)

    def name(self, row: int) -> str:
        """Original path of the image, its row and the folder of the set."""
        return f"{self.paths[row]} (row {row} of {self.folder})"

    def read(self, row: int) -> bytes:
        """The stored bytes: a JPEG file, or a .npy file if the format is "raw"."""
        return self._bytes(row, 0, int(self.lengths[row]))

    def image(self, row: int) -> Image.Image:
        """The decoded image of mode RGB, an array in gray; see `ImageSource.image`."""
        if self.format != "raw":
            return super().image(row)
        pixels = self._pixels(row)
        return array_picture(pixels) if self.is_array else Image.fromarray(pixels)

    def square(self, row: int, *, short_side: int, size: int) -> npt.NDArray[np.uint8]:
        """A square from the centre of the image; see `ImageSource.square`.

        If the images are raw and have this shorter side, only the rows of the square are read.
        """
        if self.is_array and short_side != self.short_side:
            return array_square(self._pixels(row), short_side=short_side, size=size)
        if self.format != "raw" or short_side != self.short_side:
            return super().square(row, short_side=short_side, size=size)
        height, width = int(self.heights[row]), int(self.widths[row])
        top, left = (height - size) // 2, (width - size) // 2
        return self._rows_of_pixels(row, top, size, width)[:, left : left + size]

    def _pixels(self, row: int) -> npt.NDArray[np.uint8]:
        """All pixels of a raw image, uint8 [H, W, C]."""
        height = int(self.heights[row])
        return self._rows_of_pixels(row, 0, height, int(self.widths[row]))

    def _rows_of_pixels(self, row: int, first: int, n: int, width: int) -> npt.NDArray[np.uint8]:
        """Rows of pixels of a raw image, uint8 [n, width, C], read from the file's end."""
        below, line = int(self.heights[row]) - first, self.channels * width
        data = self._bytes(row, int(self.lengths[row]) - line * below, line * n)
        return np.frombuffer(data, np.uint8).reshape(n, width, self.channels)

    def _bytes(self, row: int, start: int, length: int) -> bytes:
        """Some bytes of the stored file."""
        shard = int(self._shard[row])
        data = os.pread(self._descriptors[shard], length, int(self._offsets[row]) + start)
        if len(data) != length:
            raise DataError(f"{self._names[shard]} has been cut off; run ktfast prepare again")
        return data


def _column(tables: list[ShardTable], name: str) -> npt.NDArray[np.int64]:
    return np.concatenate([np.empty(0, np.int64), *(table.column(name) for table in tables)])


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
