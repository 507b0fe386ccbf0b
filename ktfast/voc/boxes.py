"""Arithmetic on boxes: overlap, and the box corrections that Fast R-CNN learns (Girshick 2015).

A box is four edges in pixels: left, top, right, bottom.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Boxes = npt.NDArray[np.float32]
"""Boxes of one photograph, float32 [m, 4]."""

CORRECTION_SCALE = (0.1, 0.1, 0.2, 0.2)
"""The network learns corrections divided by these numbers, which makes their variance about 1."""
MAX_LOG_GROWTH = 4.135
"""A correction enlarges a side at most exp(4.135) = 62 times, which keeps boxes finite."""


def overlaps(a: Boxes, b: Boxes) -> Boxes:
    """Intersection over union of every pair of boxes.

    Parameters
    ----------
    a : array, float32 [m, 4]
        Boxes.
    b : array, float32 [n, 4]
        Boxes with a positive area.

    Returns
    -------
    array, float32 [m, n]
        Overlap of each box of `a` with each box of `b`, in [0, 1].
    """
    from torchvision.ops import box_iou  # slow to import

    shared: Boxes = box_iou(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    return shared


def corrections(boxes: Boxes, objects: Boxes) -> Boxes:
    """Corrections that move boxes onto objects.

    Parameters
    ----------
    boxes : array, float32 [r, 4]
        Boxes to move.
    objects : array, float32 [r, 4]
        Where each box should go.

    Returns
    -------
    array, float32 [r, 4]
        Shift of the centre in units of the box's size, then the logarithm of the growth of the
        size; x before y, divided by `CORRECTION_SCALE`.
    """
    center, size = _center_size(boxes)
    goal, goal_size = _center_size(objects)
    moves = np.concatenate([(goal - center) / size, np.log(goal_size / size)], 1)
    scaled: Boxes = (moves / np.array(CORRECTION_SCALE)).astype(np.float32)
    return scaled


def corrected(boxes: Tensor, moves: Tensor) -> Tensor:
    """Apply corrections to boxes; the inverse of `corrections`.

    Parameters
    ----------
    boxes : Tensor, float [R, 1, 4]
        Boxes to move.
    moves : Tensor, float [R, C, 4]
        Corrections of each box for each class.

    Returns
    -------
    Tensor, float [R, C, 4]
        The moved boxes.
    """
    moves = moves * moves.new_tensor(CORRECTION_SCALE)
    size = boxes[..., 2:] - boxes[..., :2]
    center = boxes[..., :2] + size / 2 + moves[..., :2] * size
    half = size * moves[..., 2:].clamp(max=MAX_LOG_GROWTH).exp() / 2
    return torch.cat([center - half, center + half], -1)


def numbered(boxes: Sequence[Boxes]) -> npt.NDArray[np.float32]:
    """Join the boxes of several images, as region pooling expects them.

    Parameters
    ----------
    boxes : sequence of arrays, float32 [r, 4]
        Boxes of each image of a batch.

    Returns
    -------
    array, float32 [R, 5]
        The number of the image in the batch, then the four edges.
    """
    numbers = np.repeat(np.arange(len(boxes), dtype=np.float32), [len(b) for b in boxes])
    return np.concatenate([numbers[:, None], np.concatenate(boxes)], 1)


def _center_size(boxes: Boxes) -> tuple[Boxes, Boxes]:
    size: Boxes = boxes[:, 2:] - boxes[:, :2]
    center: Boxes = boxes[:, :2] + size * np.float32(0.5)
    return center, size
