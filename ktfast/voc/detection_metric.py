"""Average precision of detections, by the rules of PASCAL VOC (Everingham et al. 2010)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ktfast.errors import InputError
from ktfast.evaluation.average_precision import AveragePrecisions, curve_area, eleven_points
from ktfast.voc.boxes import overlaps
from ktfast.voc.data import Objects

OVERLAP = 0.5
"""A detection is right if its intersection with an object is at least this share of their union."""


@dataclass(frozen=True, eq=False)
class Detections:
    """What was found in one image.

    Attributes
    ----------
    boxes : float32 [m, 4], edges left, top, right, bottom in pixels.
    labels : int64 [m].
    scores : float32 [m].
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]


def detection_precisions(
    found: Sequence[Detections], truth: Sequence[Objects], n_classes: int
) -> AveragePrecisions:
    """Average precision of every class.

    The surest detection of an object counts as right, further ones as wrong; those of a difficult
    object do not count at all.

    Parameters
    ----------
    found, truth : of each image, in the same order.
    n_classes : labels lie in 0 .. n_classes - 1.

    Raises
    ------
    InputError : the two are of different length.
    """
    if len(found) != len(truth):
        raise InputError(f"there are detections of {len(found)} images, objects of {len(truth)}")
    eleven, area = np.full((2, n_classes), np.nan)
    for k in range(n_classes):
        n_objects = sum(int(((o.labels == k) & ~o.difficult).sum()) for o in truth)
        if n_objects:
            hits = _hits(found, truth, k)
            eleven[k], area[k] = eleven_points(hits, n_objects), curve_area(hits, n_objects)
    return AveragePrecisions(eleven, area)


def _hits(found: Sequence[Detections], truth: Sequence[Objects], label: int) -> NDArray[np.bool_]:
    """Whether each detection of a class that counts is right, the surest first."""
    scores: list[NDArray[np.float32]] = []
    outcomes: list[NDArray[np.int8]] = []
    for detections, objects in zip(found, truth, strict=True):
        mine = detections.labels == label
        own = np.argsort(-detections.scores[mine], kind="stable")
        scores.append(detections.scores[mine][own])
        outcomes.append(_outcomes(detections.boxes[mine][own], objects, label))
    order = np.argsort(-np.concatenate(scores), kind="stable")
    outcome = np.concatenate(outcomes)[order]
    hits: NDArray[np.bool_] = outcome[outcome >= 0] == 1
    return hits


def _outcomes(boxes: NDArray[np.float32], objects: Objects, label: int) -> NDArray[np.int8]:
    """1 right, 0 wrong, -1 does not count; of detections of one image, the surest first."""
    outcome = np.zeros(len(boxes), np.int8)
    there = np.flatnonzero(objects.labels == label)
    if not len(there):
        return outcome
    shared = overlaps(boxes, objects.boxes[there])
    taken = np.zeros(len(there), np.bool_)
    for i, row in enumerate(shared):
        best = int(row.argmax())
        if row[best] < OVERLAP:
            continue
        if objects.difficult[there[best]]:
            outcome[i] = -1
        elif not taken[best]:
            taken[best] = True
            outcome[i] = 1
    return outcome
