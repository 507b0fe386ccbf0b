"""Overlap of boxes, given by their edges: left, top, right, bottom."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Real = TypeVar("Real", np.float32, np.float64)


def overlaps(a: NDArray[Real], b: NDArray[Real]) -> NDArray[Real]:
    """Intersection over union of every pair, [m, n] of edges [m, 4] and [n, 4]; 0 without area."""
    left_top = np.maximum(a[:, None, :2], b[None, :, :2])
    right_bottom = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.maximum(right_bottom - left_top, 0), axis=2)
    areas = [np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1) for boxes in (a, b)]
    union = areas[0][:, None] + areas[1][None] - shared
    result: NDArray[Real] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return result
