"""Proposals: regions of photographs that may show an object. Fast R-CNN classifies them.

Published proposals (selective search) are read from a file. Without a file, windows of many sizes
and shapes that cover the photograph serve as proposals.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from ktfast.errors import DataError, reading, shown
from ktfast.readers import read_npz
from ktfast.voc.boxes import Boxes
from ktfast.voc.data import VocSet
from ktfast.voc.matlab import read_cells

WINDOW_SIDES = (0.08, 0.14, 0.24, 0.4, 0.65, 1.0)
"""Sides of windows as fractions of the photograph's side, each about 1.6 times the one before."""
WINDOW_STEP = 0.45
"""Largest distance between neighbouring windows, as a fraction of the window's side."""
MAX_ASPECT_RATIO = 2.5
"""Largest ratio of a window's longer side to its shorter side.

These constants give about 2,400 windows per photograph. In 100 photographs of VOC2012, 93 % of the
objects overlap a window by 0.5 or more; in COCO, where many objects are small, 60 % do."""

_REMEDY = (
    "give a .mat file of MATLAB before 7.3 (save -v7) with the cells `images` and `boxes`, or a "
    ".npz file with ids, counts and boxes"
)


class Proposals:
    """Proposals of every photograph of a set.

    Parameters
    ----------
    source : VocSet
        Photographs.
    boxes : mapping of str to array float [m, 4], optional
        Proposals by image id, edges in pixels. Parts outside the photograph are cut off. Default:
        windows, see `windows`.
    fingerprint : str
        Identifies the proposals; differs if the proposals differ.
    """

    def __init__(
        self, source: VocSet, boxes: Mapping[str, Boxes] | None = None, fingerprint: str = "windows"
    ) -> None:
        self.source = source
        self.fingerprint = fingerprint
        self._boxes = boxes

    @classmethod
    def read(cls, path: str | os.PathLike[str], source: VocSet) -> "Proposals":
        """Read proposals from a file.

        Parameters
        ----------
        path : str or path
            Either a .mat file in the format of Fast R-CNN: cells `images` (ids) and `boxes` (top,
            left, bottom, right; inclusive and counted from 1). Or a .npz file: `ids` [n], `counts`
            int [n], and `boxes` [sum of counts, 4] (edges left, top, right, bottom).
        source : VocSet
            Photographs; each must have proposals in the file.

        Returns
        -------
        Proposals
            The proposals of every photograph.

        Raises
        ------
        DataError
            The file is missing or has another format, or a photograph has no proposals.
        """
        path = Path(path)
        with reading(path, "a file of proposals", _REMEDY):
            content = path.read_bytes()
        matlab = path.suffix.lower() == ".mat"
        boxes = _read_mat(path, content) if matlab else _read_npz(path)
        lacking = [key for key in source.ids if not len(boxes.get(key, ()))]
        if lacking:
            raise DataError(
                f"{shown(path)} has no proposals for {len(lacking)} of the {source.n} images of "
                f"{source.folder}, the first is {lacking[0]}; add boxes for these images"
            )
        return cls(source, boxes, hashlib.sha256(content).hexdigest())

    def boxes(self, row: int) -> Boxes:
        """Proposals of a photograph, edges float32 [m, 4] in pixels; none is empty."""
        height, width = self.source.shape(row)
        if self._boxes is None:
            return windows(height, width)
        found = np.asarray(self._boxes[self.source.ids[row]], np.float32)
        cut = np.clip(found, 0, np.array([width, height] * 2, np.float32))
        cut = cut[(cut[:, 2] > cut[:, 0]) & (cut[:, 3] > cut[:, 1])]
        return cut if len(cut) else np.array([[0, 0, width, height]], np.float32)


def windows(height: int, width: int) -> Boxes:
    """Windows of every size and shape, spread evenly over an image.

    Parameters
    ----------
    height : int
        Height of the image in pixels.
    width : int
        Width of the image in pixels.

    Returns
    -------
    array, float32 [m, 4]
        Edges in pixels.
    """
    found = []
    for high in WINDOW_SIDES:
        for wide in WINDOW_SIDES:
            h, w = high * height, wide * width
            if max(h, w) > MAX_ASPECT_RATIO * min(h, w):
                continue
            top, left = (
                np.linspace(0, side - size, 1 + int(np.ceil((side - size) / (WINDOW_STEP * size))))
                for side, size in ((height, h), (width, w))
            )
            tops, lefts = (places.ravel() for places in np.meshgrid(top, left, indexing="ij"))
            found.append(np.stack([lefts, tops, lefts + w, tops + h], 1))
    return np.concatenate(found).astype(np.float32)


def _read_mat(path: Path, content: bytes) -> dict[str, Boxes]:
    with reading(path, "a file of proposals", _REMEDY):
        images, cells = read_cells(content, ("images", "boxes"))
        if len(images) != len(cells):
            raise ValueError(
                f"it has {len(images)} cells in `images` and {len(cells)} in `boxes`; it must have "
                "one cell of boxes for each image"
            )
        ids = [image if isinstance(image, str) else str(image.ravel()[0]) for image in images]
        # The file counts pixels from 1 and includes the last one; edges count from 0.
        return _by_id(
            (key, _as_boxes(key, cell)[:, [1, 0, 3, 2]] - np.array([1, 1, 0, 0], np.float32))
            for key, cell in zip(ids, cells, strict=True)
        )


def _read_npz(path: Path) -> dict[str, Boxes]:
    arrays = read_npz(path, ("ids", "counts", "boxes"), remedy=_REMEDY)
    ids, counts, boxes = arrays["ids"], arrays["counts"], arrays["boxes"]
    with reading(path, "a file of proposals", _REMEDY):
        if ids.ndim != 1 or counts.dtype.kind not in "iu" or (counts.size and counts.min() < 0):
            raise ValueError(
                "ids must be a list, and counts whole numbers of at least 0; ids are "
                f"{ids.dtype} {list(ids.shape)}, counts {counts.dtype}"
            )
        total = sum(counts.ravel().tolist())
        if counts.shape != ids.shape or total != len(boxes):
            raise ValueError(
                f"it has {len(ids)} ids, {counts.size} counts that add up to {total}, and "
                f"{len(boxes)} boxes; it must have one count for each id, and the counts must add "
                "up to the number of boxes"
            )
        parts = np.split(boxes, np.cumsum(counts)[:-1])
        return _by_id(
            (str(key), _as_boxes(str(key), part)) for key, part in zip(ids, parts, strict=True)
        )


def _as_boxes(key: str, values: object) -> Boxes:
    """Boxes of one image as float32 [m, 4]."""
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
        raise ValueError(f"the boxes of {key} are no numbers")
    if values.size == 0:
        return np.empty((0, 4), np.float32)
    if values.ndim != 2 or values.shape[1] != 4:
        raise ValueError(f"the boxes of {key} have the shape {list(values.shape)}, not [m, 4]")
    with np.errstate(over="ignore"):
        boxes = values.astype(np.float32)
    if not np.isfinite(boxes).all():
        raise ValueError(f"a box of {key} is not finite")
    return boxes


def _by_id(pairs: Iterable[tuple[str, Boxes]]) -> dict[str, Boxes]:
    """Boxes by image id; each id must be there once."""
    found: dict[str, Boxes] = {}
    for key, boxes in pairs:
        if key in found:
            raise ValueError(f"it has the image {key} twice")
        found[key] = boxes
    return found
