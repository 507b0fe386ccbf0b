"""Where a feed takes its images from: the files of a folder, or a prepared set."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ktfast.data.decode import decode_rgb, square
from ktfast.data.index import ImageIndex, SkippedImage
from ktfast.errors import DataError


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

    def square(self, row: int, *, short_side: int, size: int) -> npt.NDArray[np.uint8]:
        """Decoded, resized and cut from the centre: uint8 [size, size, 3].

        Raises
        ------
        DataError : the image cannot be read or decoded; the message names it.
        """
        image = decode_rgb(self.read(row), self.name(row))
        return square(image, short_side=short_side, size=size)


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
