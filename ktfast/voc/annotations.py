"""Read the objects of a photograph from an annotation of PASCAL VOC, an XML file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from ktfast.errors import DataError, reading, shown

_REMEDY = "write the annotation again"
_FLAGS = dict.fromkeys(("1", "1.0", "true", "yes"), True)
_FLAGS |= dict.fromkeys(("", "0", "0.0", "false", "no"), False)


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


def parse_objects(text: bytes, path: Path, classes: Sequence[str]) -> Objects:
    """Read the objects of an annotation.

    Parameters
    ----------
    text : bytes
        Content of the XML file.
    path : Path
        The file, for messages.
    classes : sequence of str
        Names of the classes.

    Returns
    -------
    objects : Objects
        The objects, in the order of the file.

    Raises
    ------
    DataError
        The file is no annotation, or an object has another class, no box, or an unknown flag.
    """
    with reading(path, "an XML file", _REMEDY):
        root = ElementTree.fromstring(text)
    if root.tag.lower() != "annotation":
        raise DataError(
            f"{shown(path)} has the root element <{root.tag}>; an annotation of PASCAL VOC has "
            "<annotation>"
        )
    found: list[tuple[list[float], int, bool]] = []
    for item in root.findall("object"):
        name = (item.findtext("name") or "").strip()
        if name not in classes:
            raise DataError(
                f"annotation {shown(path)} has an object of class {name!r}; add {name!r} to "
                f"voc.classes, which are {', '.join(classes)}"
            )
        found.append((_box(item, path), classes.index(name), _difficult(item, path)))
    return Objects(
        boxes=np.array([box for box, _, _ in found], np.float32).reshape(-1, 4),
        labels=np.array([label for _, label, _ in found], np.int64),
        difficult=np.array([difficult for _, _, difficult in found], np.bool_),
    )


def _difficult(item: ElementTree.Element, path: Path) -> bool:
    text = (item.findtext("difficult") or "").strip()
    if text.lower() not in _FLAGS:
        raise DataError(
            f"annotation {shown(path)} has an object with difficult {text!r}; write 0 or 1"
        )
    return _FLAGS[text.lower()]


def _box(item: ElementTree.Element, path: Path) -> list[float]:
    """Edges of the object's own box; the boxes of its parts (head, hand) are not read."""
    sides = ("xmin", "ymin", "xmax", "ymax")
    values = [item.findtext(f"bndbox/{side}") for side in sides]
    try:
        left, top, right, bottom = (float(value or "") for value in values)
    except ValueError as error:
        said = ", ".join(f"{a} {b!r}" for a, b in zip(sides, values, strict=True))
        raise DataError(
            f"annotation {shown(path)} has a box of {said}; all four must be numbers"
        ) from error
    edges = np.array([left, top, right, bottom], np.float64)
    if not (right >= left and bottom >= top and (np.abs(edges) < 1e9).all()):
        raise DataError(
            f"annotation {shown(path)} has an empty box: x {left:g} to {right:g}, y {top:g} to "
            f"{bottom:g}; xmax must be at least xmin, and ymax at least ymin"
        )
    return [left - 1, top - 1, right, bottom]
