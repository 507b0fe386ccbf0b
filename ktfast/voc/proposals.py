"""Proposals: regions of photographs that may show an object. Fast R-CNN classifies them.

Published proposals (selective search) are read from a file. Without a file, windows of many sizes
and shapes that cover the photograph serve as proposals.
"""

import hashlib
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ktfast.errors import DataError
from ktfast.voc.boxes import Boxes
from ktfast.voc.data import VocSet

WINDOW_SIDES = (0.08, 0.14, 0.24, 0.4, 0.65, 1.0)
"""Sides of windows as fractions of the photograph's side, each about 1.6 times the one before."""
WINDOW_STEP = 0.45
"""Largest distance between neighbouring windows, as a fraction of the window's side."""
MAX_ASPECT_RATIO = 2.5
"""Largest ratio of a window's longer side to its shorter side.

These constants give about 2,400 windows per photograph. In 100 photographs of VOC2012, 93 % of the
objects overlap a window by 0.5 or more; in COCO, where many objects are small, 60 % do."""


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
            f"{path} is not a file of proposals ({error!r}); give a .mat file of a MATLAB format "
            "before 7.3 with the cells `images` and `boxes`"
        ) from error
    if len(ids) != len(cells):
        raise DataError(
            f"{path} has {len(ids)} cells in `images` and {len(cells)} in `boxes`; it must have "
            "one cell of boxes for each image"
        )
    # The file counts pixels from 1 and includes the last one; edges count from 0.
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
            f"{path} is not a file of proposals ({error}); give a .mat file, or a .npz file with "
            "ids, counts and boxes"
        ) from error
    if counts.shape != ids.shape or counts.sum() != len(boxes):
        raise DataError(
            f"{path} has {len(ids)} ids, {counts.size} counts that add up to {counts.sum()}, and "
            f"{len(boxes)} boxes; it must have one count for each id, and the counts must add up "
            "to the number of boxes"
        )
    ends = np.cumsum(counts)
    return {
        str(key): boxes[end - count : end]
        for key, count, end in zip(ids, counts, ends, strict=True)
    }
