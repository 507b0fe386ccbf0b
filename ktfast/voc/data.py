"""One split of a PASCAL VOC year folder: photographs, boxes and masks.

Layout of the folder (Everingham et al. 2010): photographs `JPEGImages/ID.jpg`, boxes
`Annotations/ID.xml`, masks `SegmentationClass/ID.png`, and lists of ids
`ImageSets/Main/SPLIT.txt` and `ImageSets/Segmentation/SPLIT.txt`. Opening a split checks that the
files exist and that the annotations can be read.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
from PIL import UnidentifiedImageError

from ktfast.errors import DataError, reading
from ktfast.images.decode import check_size, opened, upright_shape
from ktfast.images.decode_memory import DECODING
from ktfast.images.index import ImageIndex
from ktfast.images.source import FolderSource

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip
IGNORED = 255
"""Mask value of pixels that do not count: borders of objects, and areas without annotation."""


@dataclass(frozen=True, eq=False)
class Objects:
    """The annotated objects of one image.

    Attributes
    ----------
    boxes : array, float32 [m, 4]
        Edges left, top, right, bottom in pixels, counted from 0. VOC's own coordinates count from
        1 and include the last pixel. The area is (right - left) * (bottom - top).
    labels : array, int64 [m]
        Index into the classes.
    difficult : bool array [m]
        Marks objects that the metric ignores.
    """

    boxes: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    difficult: npt.NDArray[np.bool_]


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

    Attributes
    ----------
    ids : tuple of str
        Image ids, length n.
    objects : tuple of Objects
        Annotated objects of each image, length n. Empty for "Segmentation".

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
    ) -> None:
        self.folder = Path(folder)
        self.ids = _read_ids(self.folder, split, kind)
        super().__init__(ImageIndex.of(self.folder, [f"JPEGImages/{key}.jpg" for key in self.ids]))
        self.classes = tuple(classes) or CLASSES
        digest = hashlib.sha256(repr((self.index.fingerprint, self.classes)).encode())
        self.objects: tuple[Objects, ...] = ()
        if kind == "Main":
            texts = [_read(self.folder / "Annotations" / f"{key}.xml") for key in self.ids]
            self.objects = tuple(
                _parse_objects(text, self.folder / "Annotations" / f"{key}.xml", self.classes)
                for text, key in zip(texts, self.ids, strict=True)
            )
            for text in texts:
                digest.update(hashlib.sha256(text).digest())
        else:
            for row in range(self.n):
                digest.update(b"%d " % _size(self.mask_path(row)))
        self._fingerprint = digest.hexdigest()
        self._shapes: dict[int, tuple[int, int]] = {}

    @property
    def fingerprint(self) -> str:
        """Hash of the list, the classes, the annotations, and the sizes of images and masks."""
        return self._fingerprint

    def shape(self, row: int) -> tuple[int, int]:
        """(height, width) of an image in pixels; raises `DataError` for an unreadable image."""
        if row not in self._shapes:
            self._shapes[row] = upright_shape(self.name(row))
        return self._shapes[row]

    def mask_path(self, row: int) -> Path:
        """Path of the mask of an image."""
        return self.folder / "SegmentationClass" / f"{self.ids[row]}.png"

    def mask_shape(self, row: int) -> tuple[int, int]:
        """(height, width) of the mask of an image in pixels, read from the file's header."""
        path = self.mask_path(row)
        with reading(path, "a mask in PNG format"), opened(path, ("PNG",)) as image:
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
        path = self.mask_path(row)
        try:
            with opened(path, ("PNG",), self.pixel_limit) as image, DECODING.block():
                check_size(image.width, image.height, f"mask {path}", self.pixel_limit)
                DECODING.take(2 * image.width * image.height)
                if image.mode not in ("P", "L"):
                    raise DataError(
                        f"mask {path} is of mode {image.mode}; store class numbers as a palette "
                        "image or as 8-bit gray"
                    )
                mask = np.array(image, np.uint8)
        except DataError:
            raise
        except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
            raise DataError(f"mask {path} cannot be read: {error}") from error
        odd = mask[(mask > len(self.classes)) & (mask != IGNORED)]
        if odd.size:
            raise DataError(
                f"mask {path} holds the value {odd[0]}; values must be classes 0 .. "
                f"{len(self.classes)}, or {IGNORED} for ignored pixels"
            )
        return mask

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


def _read_ids(folder: Path, split: str, kind: str) -> tuple[str, ...]:
    lists = folder / "ImageSets" / kind
    path = lists / f"{split}.txt"
    if not path.is_file():
        # Files such as cat_train.txt flag the images of one class; they are not lists of a split.
        known = sorted(p.stem for p in lists.glob("*.txt") if "_" not in p.stem)
        there = f"it has {', '.join(known)}" if known else f"{lists} has no list"
        raise DataError(
            f"{path} does not exist: {folder} must be a PASCAL VOC year folder with that list of "
            f"images; {there}"
        )
    try:
        ids = tuple(
            line.split()[0] for line in path.read_text("utf-8").splitlines() if line.split()
        )
    except UnicodeDecodeError as error:
        raise DataError(f"{path} must be a text file of image ids: {error}") from error
    if not ids:
        raise DataError(f"{path} lists no image; give one image id per line")
    return ids


def _parse_objects(text: bytes, path: Path, classes: Sequence[str]) -> Objects:
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise DataError(f"annotation {path} is no XML file: {error}") from error
    found: list[tuple[list[float], int, bool]] = []
    for item in root.findall("object"):
        name = (item.findtext("name") or "").strip()
        if name not in classes:
            raise DataError(
                f"annotation {path} has an object of class {name!r}; add {name!r} to voc.classes, "
                f"which are {', '.join(classes)}"
            )
        difficult = (item.findtext("difficult") or "0").strip() == "1"
        found.append((_box(item, path), classes.index(name), difficult))
    return Objects(
        boxes=np.array([box for box, _, _ in found], np.float32).reshape(-1, 4),
        labels=np.array([label for _, label, _ in found], np.int64),
        difficult=np.array([difficult for _, _, difficult in found], np.bool_),
    )


def _box(item: ElementTree.Element, path: Path) -> list[float]:
    """Edges of the object's own box; the boxes of its parts (head, hand) are not read."""
    sides = ("xmin", "ymin", "xmax", "ymax")
    values = [item.findtext(f"bndbox/{side}") for side in sides]
    try:
        left, top, right, bottom = (float(value or "") for value in values)
    except ValueError as error:
        said = ", ".join(f"{a} {b!r}" for a, b in zip(sides, values, strict=True))
        raise DataError(
            f"annotation {path} has a box of {said}; all four must be numbers"
        ) from error
    if not (right >= left and bottom >= top and np.isfinite([left, top, right, bottom]).all()):
        raise DataError(
            f"annotation {path} has an empty box: x {left:g} to {right:g}, y {top:g} to {bottom:g}"
        )
    return [left - 1, top - 1, right, bottom]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise DataError(f"mask {path} cannot be read: {error.strerror}") from error
