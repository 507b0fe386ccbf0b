"""Inspect every file of a PASCAL VOC split before a training, and tell all faults at once."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from ktfast.errors import DataError, shown
from ktfast.images.in_order import in_order
from ktfast.images.opening import FORMATS, exif_orientation, opened
from ktfast.voc.data import VocSet
from ktfast.voc.views import check_mask_size

NAMED = 10
"""Number of faults that an error names; further faults are counted."""


def faults_of(
    images: VocSet, *, uses: Literal["classes", "boxes", "masks"], n_threads: int | None = None
) -> list[str]:
    """Decode every photograph and mask of a split, and compare them with each other.

    Every photograph must open. If boxes or masks are used, the photograph must not be turned by
    its EXIF orientation, because boxes and masks belong to the pixels as they are stored. Boxes
    must lie inside the photograph. A mask must have the photograph's size and hold classes.

    Parameters
    ----------
    images : VocSet
        The split.
    uses : {"classes", "boxes", "masks"}
        What a protocol uses of the annotations.
    n_threads : int, optional
        Number of threads that decode. None: one per core of this process.

    Returns
    -------
    faults : list of str
        One sentence per fault, which names the file.
    """
    checks: list[Callable[[VocSet, int], None]] = [_check_photograph]
    checks += {
        "classes": [],
        "boxes": [_check_orientation, _check_boxes],
        "masks": [_check_orientation, _check_mask],
    }[uses]

    def faults(row: int) -> list[str]:
        found: list[str] = []
        for check in checks:
            try:
                check(images, row)
            except DataError as error:
                found.append(str(error))
                if check is _check_photograph:
                    break  # the other checks need the photograph
        return found

    with in_order(faults, images.n, n_threads) as results:
        return [fault for _, found in results(0) for fault in found]


def refuse(faults: Sequence[str]) -> None:
    """Raise `DataError` if there are faults. The message names the first 10 faults."""
    if faults:
        rest = len(faults) - NAMED
        more = f"; and {rest} more" if rest > 0 else ""
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise DataError(
            f"the files of PASCAL VOC have {count}: {'; '.join(faults[:NAMED])}{more}; correct "
            "these files, or take their ids out of the list of images"
        )


def _check_photograph(images: VocSet, row: int) -> None:
    images.image(row)


def _check_orientation(images: VocSet, row: int) -> None:
    path = images.name(row)
    with opened(path, FORMATS, images.pixel_limit) as image:
        orientation = exif_orientation(image)
    if orientation != 1:
        raise DataError(
            f"{shown(path)} is turned by its EXIF orientation {orientation}, so that boxes and "
            "masks may not fit (store the photograph upright and without EXIF data)"
        )


def _check_boxes(images: VocSet, row: int) -> None:
    height, width = images.shape(row)
    boxes = images.objects[row].boxes
    outside = (boxes[:, :2] < 0).any(1) | (boxes[:, 2:] > [width, height]).any(1)
    if outside.any():
        left, top, right, bottom = boxes[np.flatnonzero(outside)[0]].tolist()
        raise DataError(
            f"the annotation of {shown(images.name(row))} has a box x {left + 1:g} to {right:g}, "
            f"y {top + 1:g} to {bottom:g}, outside of the photograph of {width} x {height} pixels "
            "(coordinates count from 1)"
        )


def _check_mask(images: VocSet, row: int) -> None:
    check_mask_size(images, row)
    images.mask(row)
