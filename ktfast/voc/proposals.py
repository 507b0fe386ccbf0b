"""Regions of photographs that may show an object, which Fast R-CNN classifies.

Published ones (selective search) are read; where there are none, windows of many sizes and shapes
all over the photograph stand in for them.
"""

import hashlib
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ktfast.errors import DataError
from ktfast.voc.data import VocSet

Boxes = npt.NDArray[np.float32]

WINDOW_SIDES = (0.08, 0.14, 0.24, 0.4, 0.65, 1.0)
"""Sides of windows, as shares of the photograph's; each is about 1.6 times the one before."""
WINDOW_STEP = 0.45
"""From one window to the next at most, as a share of its side."""
GREATEST_RATIO = 2.5
"""Of a window's longer side to its shorter.

With these about 2,400 windows overlap 93 % of the objects of 100 photographs of VOC2012 by half or
more, and 60 % of those of COCO, many of which are small."""


class Proposals:
    """Regions by row of a set.

    Parameters
    ----------
    source : photographs.
    boxes : edges float [m, 4] in pixels by image id, cut off at the photograph's edges; None:
        windows.
    fingerprint : that changes when the regions do.
    """

    def __init__(
        self, source: VocSet, boxes: Mapping[str, Boxes] | None = None, fingerprint: str = "windows"
    ) -> None:
        self.source = source
        self.fingerprint = fingerprint
        self._boxes = boxes

    @classmethod
    def read(cls, path: str | os.PathLike[str], source: VocSet) -> "Proposals":
        """Read published regions.

        Parameters
        ----------
        path : .mat file with cells `images` (ids) and `boxes` (top, left, bottom, right,
            inclusive and counted from 1), as those of Fast R-CNN; or .npz file with `ids`
            [n], `counts` int [n] and `boxes` [sum of counts, 4] (edges left, top, right, bottom).
        source : photographs; each must have regions.

        Raises
        ------
        DataError : the file is missing or of another form, or an image has no regions.
        """
        path = Path(path)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(f"proposals {path} cannot be read: {error.strerror}") from error
        boxes = _read_mat(path) if path.suffix == ".mat" else _read_npz(path)
        lacking = [key for key in source.ids if not len(boxes.get(key, ()))]
        if lacking:
            raise DataError(
                f"{path} has no proposals for {len(lacking)} of the {source.n} images of "
                f"{source.folder}, the first {lacking[0]}"
            )
        return cls(source, boxes, hashlib.sha256(content).hexdigest())

    def boxes(self, row: int) -> Boxes:
        """Regions of a photograph, edges float32 [m, 4] in pixels, none of them empty."""
        height, width = self.source.shape(row)
        if self._boxes is None:
            return windows(height, width)
        found = np.asarray(self._boxes[self.source.ids[row]], np.float32)
        cut = np.clip(found, 0, np.array([width, height] * 2, np.float32))
        cut = cut[(cut[:, 2] > cut[:, 0]) & (cut[:, 3] > cut[:, 1])]
        return cut if len(cut) else np.array([[0, 0, width, height]], np.float32)


def windows(height: int, width: int) -> Boxes:
    """Windows of every size and shape, evenly over an image, edges float32 [m, 4]."""
    found = []
    for high in WINDOW_SIDES:
        for wide in WINDOW_SIDES:
            h, w = high * height, wide * width
            if max(h, w) > GREATEST_RATIO * min(h, w):
                continue
            top, left = (
                np.linspace(0, side - size, 1 + int(np.ceil((side - size) / (WINDOW_STEP * size))))
                for side, size in ((height, h), (width, w))
            )
            tops, lefts = (places.ravel() for places in np.meshgrid(top, left, indexing="ij"))
            found.append(np.stack([lefts, tops, lefts + w, tops + h], 1))
    return np.concatenate(found).astype(np.float32)


def _read_mat(path: Path) -> dict[str, Boxes]:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        content = loadmat(path)
        ids = [str(np.ravel(cell)[0]) for cell in content["images"].ravel()]
        cells = [np.asarray(cell, np.float32).reshape(-1, 4) for cell in content["boxes"].ravel()]
    except (
        MatReadError,
        NotImplementedError,
        KeyError,
        ValueError,
        TypeError,
        IndexError,
    ) as error:
        raise DataError(
            f"{path} is no file of proposals ({error!r}); it must hold cells `images` and `boxes`, "
            "in a MATLAB format before 7.3"
        ) from error
    if len(ids) != len(cells):
        raise DataError(f"{path} names {len(ids)} images, but has boxes of {len(cells)}")
    # Top, left, bottom, right from 1 become edges from 0.
    return {
        key: boxes[:, [1, 0, 3, 2]] - np.array([1, 1, 0, 0], np.float32)
        for key, boxes in zip(ids, cells, strict=True)
    }


def _read_npz(path: Path) -> dict[str, Boxes]:
    try:
        with np.load(path, allow_pickle=False) as file:
            ids, counts, boxes = (file[name] for name in ("ids", "counts", "boxes"))
        boxes = boxes.astype(np.float32).reshape(-1, 4)
    except (OSError, KeyError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path} is no file of proposals ({error}); it must be a .mat file, or a .npz file "
            "with ids, counts and boxes"
        ) from error
    if counts.shape != ids.shape or counts.sum() != len(boxes):
        raise DataError(
            f"{path} has {len(ids)} ids, {counts.size} counts that add up to {counts.sum()}, and "
            f"{len(boxes)} boxes; one count for each id, and one box for each count, are needed"
        )
    ends = np.cumsum(counts)
    return {
        str(key): boxes[end - count : end]
        for key, count, end in zip(ids, counts, ends, strict=True)
    }
