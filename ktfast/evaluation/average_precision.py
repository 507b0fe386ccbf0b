"""Average precision of PASCAL VOC: over 11 recalls, as until 2009, and under the whole curve.

Figures on VOC2007 are of the first kind (Everingham et al. 2010); the second is scikit-learn's.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from ktfast.errors import InputError


@dataclass(frozen=True)
class AveragePrecisions:
    """One value per class in [0, 1], NaN for classes without a positive.

    Attributes
    ----------
    eleven_points, area : float64 [n_classes].
    """

    eleven_points: NDArray[np.float64]
    area: NDArray[np.float64]

    @property
    def mean(self) -> float:
        """Mean of `eleven_points` over the classes that have a positive; NaN without one."""
        return _mean(self.eleven_points)

    @property
    def mean_area(self) -> float:
        """Mean of `area` over the same classes."""
        return _mean(self.area)


def _mean(values: NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def classification_precisions(
    scores: NDArray[np.floating], presence: NDArray[np.integer]
) -> AveragePrecisions:
    """Average precision of every class.

    Parameters
    ----------
    scores : [n, n_classes], higher for images that rather show the class.
    presence : [n, n_classes], 1 shown, -1 not; 0 does not count (difficult).

    Raises
    ------
    InputError : shapes differ, or a score is not a number.
    """
    scores, presence = np.asarray(scores), np.asarray(presence)
    if scores.ndim != 2 or scores.shape != presence.shape:
        raise InputError(
            f"scores {scores.shape} and presence {presence.shape} must be of one shape, "
            "images by classes"
        )
    if np.isnan(scores).any():
        raise InputError("scores must be numbers, got NaN")
    n_classes = scores.shape[1]
    eleven, area = np.full((2, n_classes), np.nan)
    for k in range(n_classes):
        counted = presence[:, k] != 0
        found, own = presence[counted, k] > 0, scores[counted, k]
        if found.any():
            order = np.argsort(-own, kind="stable")
            eleven[k] = eleven_points(found[order], int(found.sum()))
            area[k] = average_precision_score(found, own)
    return AveragePrecisions(eleven, area)


def eleven_points(hits: NDArray[np.bool_], n_positives: int) -> float:
    """Mean of the best precision at or beyond recalls 0, 0.1, ..., 1.

    Parameters
    ----------
    hits : bool [m], whether each answer is right, the surest first.
    n_positives : how many there are to find, found or not; at least 1.
    """
    recall, precision = _curve(hits, n_positives)
    best = [precision[recall >= level].max(initial=0.0) for level in np.arange(11) / 10]
    return float(np.mean(best))


def curve_area(hits: NDArray[np.bool_], n_positives: int) -> float:
    """Sum of the precisions at every right answer, over `n_positives`; see `eleven_points`."""
    _, precision = _curve(hits, n_positives)
    return float(precision[hits].sum() / n_positives)


def _curve(
    hits: NDArray[np.bool_], n_positives: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    found = np.cumsum(hits, dtype=np.float64)
    return found / n_positives, found / np.arange(1, len(hits) + 1)
