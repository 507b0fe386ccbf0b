"""Intervals of the difference of two accuracies that were measured on the same seeds or images.

Two networks that are tested on the same images make many of the same mistakes. The interval of
their paired difference is therefore narrower than the two separate intervals suggest.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from ktfast.errors import InputError

LEVEL = 0.95
"""Probability with which an interval holds the true difference."""


@dataclass(frozen=True)
class Interval:
    """The difference of two accuracies, with an interval of 95 %.

    Attributes
    ----------
    difference, low, high : float
        The difference and the ends of the interval, as fractions.
    basis : str
        What was paired: "seeds" or "images".
    n : int
        Number of pairs.
    """

    difference: float
    low: float
    high: float
    basis: str
    n: int

    @property
    def separates(self) -> bool:
        """Whether zero lies outside the interval."""
        return self.low > 0 or self.high < 0


def by_seeds(differences: Sequence[float]) -> Interval | None:
    """Student's interval of the mean of paired differences, one per seed.

    Parameters
    ----------
    differences : sequence of float
        Difference of the two accuracies for each seed that both networks have.

    Returns
    -------
    Interval or None
        None with fewer than two seeds. Also None if all differences are equal and not zero, because
        an interval cannot be computed without a spread.
    """
    values = np.asarray(differences, dtype=np.float64)
    if len(values) < 2:
        return None
    mean, spread = float(values.mean()), float(values.std(ddof=1))
    if spread <= 1e-12 < abs(mean):
        return None
    half = float(stdtrit(len(values) - 1, (1 + LEVEL) / 2)) * spread / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half, "seeds", len(values))


def by_images(
    labels: NDArray[np.integer],
    first: NDArray[np.integer],
    second: NDArray[np.integer],
    *,
    per_class: bool,
) -> Interval:
    """Interval of the difference of two accuracies on the same test images.

    Each image has the value 1 if only the first network is right, -1 if only the second network is
    right, and else 0. For top-1 accuracy, the interval follows from the mean and the standard error
    of the values, as in McNemar's comparison. For mean per-class accuracy, the mean and the
    standard error are those of a sample that is stratified by class. A class with one test image
    takes the variance of all images.

    Parameters
    ----------
    labels : array, int [n]
        True class of each test image, >= 0.
    first, second : array, int [n]
        Predicted classes of both networks.
    per_class : bool
        True: difference of the mean per-class accuracies. False: difference of the top-1
        accuracies.

    Returns
    -------
    Interval
        The difference of the first and the second accuracy.

    Raises
    ------
    InputError
        The lengths differ, or there are fewer than two images.
    """
    if not len(labels) == len(first) == len(second) or len(labels) < 2:
        raise InputError(
            "labels, first and second must hold one class for each of at least two test images, "
            f"got {len(labels)}, {len(first)} and {len(second)} classes"
        )
    gains = (first == labels).astype(np.float64) - (second == labels)
    strata = np.asarray(labels) if per_class else np.zeros(len(labels), np.int64)
    _, codes, counts = np.unique(strata, return_inverse=True, return_counts=True)
    means = np.bincount(codes, weights=gains) / counts
    squares = np.bincount(codes, weights=(gains - means[codes]) ** 2)
    single = counts == 1
    variances = np.where(single, float(gains.var(ddof=1)), squares / np.maximum(counts - 1, 1))
    mean = float(means.mean())
    error = math.sqrt(float((variances / counts).sum())) / len(counts)
    freedom = max(1, len(labels) - int(len(counts) - single.sum()) - 1)
    half = float(stdtrit(freedom, (1 + LEVEL) / 2)) * error
    return Interval(mean, mean - half, mean + half, "images", len(labels))
