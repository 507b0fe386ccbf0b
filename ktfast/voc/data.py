"""One split of a PASCAL VOC year folder: photographs, boxes and masks.

Layout of the folder (Everingham et al. 2010): photographs `JPEGImages/ID.jpg`, boxes
`Annotations/ID.xml`, masks `SegmentationClass/ID.png`, and lists of ids
`ImageSets/Main/SPLIT.txt` and `ImageSets/Segmentation/SPLIT.txt`. A photograph may have another
suffix, such as .JPG or .png. Opening a split checks that the files exist and that the annotations
can be read.
"""

import functools
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from ktfast.durable import sha256_json
from ktfast.errors import ConfigError, DataError, reading, shown
from ktfast.images.decode import upright_shape
from ktfast.images.decode_memory import DECODING
from ktfast.images.file_records import UNREAD, FileHashes
from ktfast.images.index import ImageIndex
from ktfast.images.opening import check_size, opened
from ktfast.images.source import FolderSource
from ktfast.readers import read_bytes
from ktfast.voc.annotations import Objects, parse_objects
from ktfast.voc.lists import read_split

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip
IGNORED = 255
"""Mask value of pixels that do not count: borders of objects, and areas without annotation."""


class VocSet(FolderSource):
    """Photographs of one split, in the order of its list.

    Parameters
    ----------
    folder : str or path
        Year folder, such as `VOCdevkit/VOC2007`.
    split : str
        Name of the list of images, such as "trainval".
    kind : {"Main", "Segmentation"}
        "Main" reads boxes, "Segmentation" reads masks.
    classes : sequence of str
        Names of the classes; the mask value of the first one is 1. Empty: the 20 classes of VOC.
    hashes : FileHashes, optional
        Hashes of files that were read before. None: `fingerprint` reads every file.

    Attributes
    ----------
    ids : tuple of str
        Image ids, length n.
    objects : tuple of Objects
        Annotated objects of each image, length n. Empty for "Segmentation".
    fingerprint_by_size : str
        Hash of the list, the classes, the annotations, and the sizes of images and masks. Earlier
        versions of ktfast recorded this hash.

    Raises
    ------
    DataError
        A file is missing or damaged; the message names the file.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        split: str,
        kind: Literal["Main", "Segmentation"] = "Main",
        classes: Sequence[str] = (),
        hashes: FileHashes | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.ids, photographs = self._listed(split, kind)
        super().__init__(ImageIndex.of(self.folder, photographs), decoding="full")
        self.classes = tuple(classes) or CLASSES
        if len(set(self.classes)) < len(self.classes):
            raise ConfigError(
                f"voc.classes holds a name twice: {', '.join(self.classes)}; give each name once"
            )
        self._hashes = hashes or FileHashes()
        # What earlier versions of ktfast took for the fingerprint: sizes instead of content.
        digest = hashlib.sha256(repr((self.index.fingerprint, self.classes)).encode())
        annotations = hashlib.sha256(repr(self.classes).encode())
        self.objects: tuple[Objects, ...] = ()
        if kind == "Main":
            texts = [_read(self.folder / "Annotations" / f"{key}.xml") for key in self.ids]
            self.objects = tuple(
                parse_objects(text, self.folder / "Annotations" / f"{key}.xml", self.classes)
                for text, key in zip(texts, self.ids, strict=True)
            )
            for text in texts:
                digest.update(hashlib.sha256(text).digest())
                annotations.update(hashlib.sha256(text).digest())
        else:
            for row in range(self.n):
                digest.update(b"%d " % _size(self.mask_path(row)))
        self.fingerprint_by_size = digest.hexdigest()
        self._annotations = annotations.hexdigest()
        self._shapes: dict[int, tuple[int, int]] = {}

    def _listed(self, split: str, kind: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Give the ids of the split, and the paths of their photographs below the folder."""
        return read_split(self.folder, split, kind)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the list, the classes, and the content of annotations, photographs and masks.

        Raises
        ------
        DataError
            A file cannot be read. The message names the file.
        """
        paths = [Path(self.name(row)) for row in range(self.n)]
        if not self.objects:
            paths += [self.mask_path(row) for row in range(self.n)]
        hashes = self._hashes.sha256(paths)
        self._hashes.save()
        for path, found in zip(paths, hashes, strict=True):
            if found == UNREAD:
                raise DataError(f"{shown(path)} cannot be read; make the file readable")
        return sha256_json([list(self.ids), self._annotations, hashes])

    def shape(self, row: int) -> tuple[int, int]:
        """(height, width) of an image in pixels; raises `DataError` for an unreadable image."""
        if row not in self._shapes:
            self._shapes[row] = upright_shape(self.name(row), self.pixel_limit)
        return self._shapes[row]

    def mask_path(self, row: int) -> Path:
        """Path of the mask of an image."""
        return self.folder / "SegmentationClass" / f"{self.ids[row]}.png"

    def mask_shape(self, row: int) -> tuple[int, int]:
        """(height, width) of the mask of an image in pixels, read from the file's header."""
        path = self.mask_path(row)
        with (
            reading(path, "a mask in PNG format"),
            opened(path, ("PNG",), self.pixel_limit) as image,
        ):
            return image.height, image.width

    def mask(self, row: int) -> npt.NDArray[np.uint8]:
        """Read the class of every pixel of an image.

        VOC's own masks have a palette. Masks without one, in 8-bit gray, can be read too.

        Parameters
        ----------
        row : int
            The image.

        Returns
        -------
        array, uint8 [h, w]
            0: background. 1 .. n_classes: classes. 255: ignored.

        Raises
        ------
        DataError
            The file is missing, damaged, in another format, or holds other values.
        """
        path, mask = self.mask_path(row), self._mask(row)
        odd = mask[(mask > len(self.classes)) & (mask != IGNORED)]
        if odd.size:
            raise DataError(
                f"mask {path} holds the value {odd[0]}; values must be classes 0 .. "
                f"{len(self.classes)}, or {IGNORED} for ignored pixels"
            )
        return mask

    def _mask(self, row: int) -> npt.NDArray[np.uint8]:
        """Decode a mask, whose values are not checked yet."""
        path = self.mask_path(row)
        with (
            reading(path, "a mask in PNG format", "write the mask again"),
            opened(path, ("PNG",), self.pixel_limit) as image,
            DECODING.block(),
        ):
            check_size(image.width, image.height, f"mask {path}", self.pixel_limit)
            DECODING.take(2 * image.width * image.height)
            if image.mode not in ("P", "L"):
                raise DataError(
                    f"mask {shown(path)} is of mode {image.mode}; store class numbers as a palette "
                    "image or as 8-bit gray"
                )
            return np.array(image, np.uint8)

    def presence(self) -> npt.NDArray[np.int8]:
        """Which classes each image shows.

        Returns
        -------
        array, int8 [n, n_classes]
            1: the image has an object of the class that is not difficult. -1: it has no object of
            the class. 0: all its objects of the class are difficult; the image does not count.
        """
        shown = np.full((self.n, len(self.classes)), -1, np.int8)
        for row, objects in enumerate(self.objects):
            shown[row, objects.labels[objects.difficult]] = 0
            shown[row, objects.labels[~objects.difficult]] = 1
        return shown


def _read(path: Path) -> bytes:
    remedy = "write the annotation, or take the photograph's id out of the list"
    return read_bytes(path, "an annotation", remedy)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise DataError(f"mask {path} cannot be read: {error.strerror}") from error
