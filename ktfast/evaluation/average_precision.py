"""Average precision of PASCAL VOC, in two versions.

The published figures on VOC2007 average the precision at 11 recalls (Everingham et al. 2010). The
newer version is the area under the whole precision-recall curve, as scikit-learn computes it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ktfast.errors import InputError


@dataclass(frozen=True)
class AveragePrecisions:
    """Average precisions in [0, 1] of every class; NaN for a class without a positive.

    Attributes
    ----------
    eleven_points : array, float64 [n_classes]
        Mean precision at 11 recalls.
    area : array, float64 [n_classes]
        Area under the precision-recall curve.
    """

    eleven_points: NDArray[np.float64]
    area: NDArray[np.float64]

    @property
    def mean(self) -> float:
        """Mean of `eleven_points` over the classes with a positive; NaN if no class has one."""
        return mean_of_defined(self.eleven_points)

    @property
    def mean_area(self) -> float:
        """Mean of `area` over the classes with a positive; NaN if no class has one."""
        return mean_of_defined(self.area)


def mean_of_defined(values: NDArray[np.float64]) -> float:
    """Mean of the values that are finite; NaN if none is."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def classification_precisions(
    scores: NDArray[np.floating], presence: NDArray[np.integer]
) -> AveragePrecisions:
    """Average precision of every class of a multi-label classification.

    Parameters
    ----------
    scores : array, float [n, n_classes]
        Scores of the classes; a higher score means that the image more likely shows the class.
    presence : array, int [n, n_classes]
        1: the image shows the class. -1: it does not. 0: the image does not count for the class.

    Returns
    -------
    AveragePrecisions
        One value per class.

    Raises
    ------
    InputError
        The shapes differ, or a score is NaN.
    """
    from sklearn.metrics import average_precision_score  # slow to import

    scores, presence = np.asarray(scores), np.asarray(presence)
    if scores.ndim != 2 or scores.shape != presence.shape:
        raise InputError(
            "scores and presence must be of one shape, images by classes; got scores "
            f"{scores.shape} and presence {presence.shape}"
        )
    if np.isnan(scores).any():
        raise InputError("scores must be numbers, got NaN; check the network's outputs")
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
    """Mean over the recalls 0, 0.1, ..., 1 of the best precision at that recall or a higher one.

    Parameters
    ----------
    hits : bool array [m]
        Whether each answer is right, in descending order of scores.
    n_positives : int
        Number of positives, found or not; at least 1.

    Returns
    -------
    float
        Average precision in [0, 1].
    """
    recall, precision = _curve(hits, n_positives)
    best = [precision[recall >= level].max(initial=0.0) for level in np.arange(11) / 10]
    return float(np.mean(best))


def curve_area(hits: NDArray[np.bool_], n_positives: int) -> float:
    """Area under the curve: sum of the precisions at right answers, divided by the positives.

    Parameters
    ----------
    hits : bool array [m]
        Whether each answer is right, in descending order of scores.
    n_positives : int
        Number of positives, found or not; at least 1.

    Returns
    -------
    float
        Average precision in [0, 1].
    """
    _, precision = _curve(hits, n_positives)
    return float(precision[hits].sum() / n_positives)


def _curve(
    hits: NDArray[np.bool_], n_positives: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Recall and precision after each answer, float64 [m]."""
    found = np.cumsum(hits, dtype=np.float64)
    return found / n_positives, found / np.arange(1, len(hits) + 1)
