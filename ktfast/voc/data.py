"""A split of a PASCAL VOC year folder: photographs, boxes and masks, checked when it is opened.

Layout: `JPEGImages/ID.jpg`, `Annotations/ID.xml`, `SegmentationClass/ID.png`, and the lists of ids
`ImageSets/Main/SPLIT.txt` and `ImageSets/Segmentation/SPLIT.txt` (Everingham et al. 2010).
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
from PIL import Image, UnidentifiedImageError

from ktfast.errors import DataError
from ktfast.images.decode import upright_shape
from ktfast.images.index import ImageIndex
from ktfast.images.source import FolderSource

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip
IGNORED = 255
"""Value of mask pixels that do not count: borders of objects, and what was not annotated."""


@dataclass(frozen=True, eq=False)
class Objects:
    """The annotated objects of one image.

    Attributes
    ----------
    boxes : float32 [m, 4], left, top, right, bottom edge in pixels from 0; VOC's inclusive
        coordinates from 1 become edges, so that areas are products of differences.
    labels : int64 [m], index into the classes.
    difficult : bool [m], objects that neither count as found nor as missed.
    """

    boxes: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    difficult: npt.NDArray[np.bool_]


class VocSet(FolderSource):
    """Photographs of one split, in the order of its list.

    Parameters
    ----------
    folder : of a year, such as `VOCdevkit/VOC2007`.
    split : name of the list, such as "trainval".
    kind : "Main" (boxes are read) or "Segmentation" (masks are).
    classes : names of the objects, in the order of the masks' values from 1; empty: VOC's 20.

    Attributes
    ----------
    ids : image ids, length n.
    objects : of each image, length n; empty for "Segmentation".

    Raises
    ------
    DataError : a file is missing or wrong; names it.
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
        """Changes with the list, the classes, an annotation, or the size of an image or mask."""
        return self._fingerprint

    def shape(self, row: int) -> tuple[int, int]:
        """(height, width) of an image in pixels; `DataError` names one that cannot be opened."""
        if row not in self._shapes:
            self._shapes[row] = upright_shape(self.name(row))
        return self._shapes[row]

    def mask_path(self, row: int) -> Path:
        """Where the mask of an image lies."""
        return self.folder / "SegmentationClass" / f"{self.ids[row]}.png"

    def mask(self, row: int) -> npt.NDArray[np.uint8]:
        """Class of every pixel, uint8 [h, w]: 0 background, 1 .. n_classes, 255 ignored.

        Masks with a palette (VOC's own) and gray ones are read alike.

        Raises
        ------
        DataError : the file is missing, damaged, of another kind, or holds other values.
        """
        path = self.mask_path(row)
        try:
            with Image.open(path, formats=("PNG",)) as image:
                if image.mode not in ("P", "L"):
                    raise DataError(
                        f"mask {path} is of mode {image.mode}; class numbers must be stored as a "
                        "palette image or as 8-bit gray"
                    )
                mask = np.array(image, np.uint8)
        except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
            raise DataError(f"mask {path} cannot be read: {error}") from error
        odd = mask[(mask > len(self.classes)) & (mask != IGNORED)]
        if odd.size:
            raise DataError(
                f"mask {path} holds the value {odd[0]}; there are classes 0 .. "
                f"{len(self.classes)}, and {IGNORED} for ignored pixels"
            )
        return mask

    def presence(self) -> npt.NDArray[np.int8]:
        """Which classes each image shows, int8 [n, n_classes].

        1: an object that is not difficult; -1: none; 0: difficult ones only, which do not count.
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
        # Lists such as cat_train.txt flag each image for one class.
        known = sorted(p.stem for p in lists.glob("*.txt") if "_" not in p.stem)
        there = f"it has {', '.join(known)}" if known else "it has no such list at all"
        raise DataError(
            f"{path} does not exist: {folder} must be a PASCAL VOC year folder with that list of "
            f"images; {there}"
        )
    try:
        ids = tuple(
            line.split()[0] for line in path.read_text("utf-8").splitlines() if line.split()
        )
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no list of image ids: {error}") from error
    if not ids:
        raise DataError(f"{path} lists no image")
    return ids


def _parse_objects(text: bytes, path: Path, classes: Sequence[str]) -> Objects:
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise DataError(f"annotation {path} is no XML: {error}") from error
    found: list[tuple[list[float], int, bool]] = []
    for item in root.findall("object"):
        name = (item.findtext("name") or "").strip()
        if name not in classes:
            raise DataError(
                f"annotation {path} has an object of class {name!r}; voc.classes are "
                f"{', '.join(classes)}"
            )
        difficult = (item.findtext("difficult") or "0").strip() == "1"
        found.append((_box(item, path), classes.index(name), difficult))
    return Objects(
        boxes=np.array([box for box, _, _ in found], np.float32).reshape(-1, 4),
        labels=np.array([label for _, label, _ in found], np.int64),
        difficult=np.array([difficult for _, _, difficult in found], np.bool_),
    )


def _box(item: ElementTree.Element, path: Path) -> list[float]:
    """Edges of an object's own box, not of its parts."""
    sides = ("xmin", "ymin", "xmax", "ymax")
    values = [item.findtext(f"bndbox/{side}") for side in sides]
    try:
        left, top, right, bottom = (float(value or "") for value in values)
    except ValueError as error:
        said = ", ".join(f"{a} {b!r}" for a, b in zip(sides, values, strict=True))
        raise DataError(
            f"annotation {path} has a box of {said}; four numbers are needed"
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
