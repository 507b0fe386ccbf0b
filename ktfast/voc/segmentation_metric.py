"""Mean intersection over union of segmentations, as in PASCAL VOC: over all pixels of a set."""

import numpy as np
from numpy.typing import NDArray

from ktfast.errors import InputError
from ktfast.voc.data import IGNORED


class Confusion:
    """Counts pixels by true and predicted class.

    Parameters
    ----------
    n_classes : with the background.

    Attributes
    ----------
    counts : int64 [n_classes, n_classes], true by predicted class.
    """

    def __init__(self, n_classes: int) -> None:
        self.counts = np.zeros((n_classes, n_classes), np.int64)

    def add(self, truth: NDArray[np.uint8], predicted: NDArray[np.integer]) -> None:
        """Count the pixels of an image but for the ignored ones; both [h, w].

        Raises
        ------
        InputError : the two differ in shape, or a class is out of range.
        """
        n = len(self.counts)
        if truth.shape != predicted.shape:
            raise InputError(f"truth is of shape {truth.shape}, predicted of {predicted.shape}")
        counted = truth != IGNORED
        rows, columns = truth[counted].astype(np.int64), predicted[counted].astype(np.int64)
        for name, classes in (("truth", rows), ("predicted", columns)):
            if len(classes) and not (classes.min() >= 0 and classes.max() < n):
                raise InputError(f"{name} must hold classes 0 .. {n - 1}, got {classes.max()}")
        self.counts += np.bincount(n * rows + columns, minlength=n * n).reshape(n, n)

    def intersection_over_union(self) -> NDArray[np.float64]:
        """Of each class, float64 [n_classes]; NaN for one that is neither there nor predicted."""
        shared = np.diag(self.counts).astype(np.float64)
        union = self.counts.sum(0) + self.counts.sum(1) - shared
        undefined = np.full(len(shared), np.nan)
        values: NDArray[np.float64] = np.divide(shared, union, out=undefined, where=union > 0)
        return values

    def mean(self) -> float:
        """Mean over the classes that are there or predicted; NaN without a pixel."""
        values = self.intersection_over_union()
        known = values[np.isfinite(values)]
        return float(known.mean()) if len(known) else float("nan")

    def pixel_accuracy(self) -> float:
        """Share of pixels whose class is right; NaN without a pixel."""
        total = int(self.counts.sum())
        return float(np.diag(self.counts).sum() / total) if total else float("nan")
