"""Low-label regimes: a linear probe that sees only a fraction of the training labels.

The fraction is drawn class by class. A smaller fraction is a subset of a larger one, and all models
see the same images, so that results can be compared.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ktfast.errors import InputError
from ktfast.evaluation.accuracy import label_vector
from ktfast.evaluation.linear import BATCH_SIZE, WEIGHT_DECAYS, LinearProbeResult, linear_probe

# A class needs 3 images before a fifth of its images, rounded, is at least one held-out image.
_MIN_CLASS_TO_HOLD_OUT = 3


def labelled_share(
    labels: NDArray[np.int64] | Sequence[int], fraction: float, *, seed: int = 0
) -> NDArray[np.int64]:
    """Draw a fraction of the rows of each class, at least one row.

    Parameters
    ----------
    labels : array or sequence, int [n]
        Class of each row.
    fraction : float
        Fraction of each class, in (0, 1]. The number of rows is rounded.
    seed : int
        Seed of the draw. With one seed, the rows of a smaller fraction are among the rows of a
        larger one. The global random state does not change.

    Returns
    -------
    array, int64
        Sorted row numbers.

    Raises
    ------
    InputError
        The fraction lies outside (0, 1].
    """
    if not 0 < fraction <= 1:
        raise InputError(f"fraction must lie in (0, 1], got {fraction!r}")
    vector = np.asarray(labels)
    generator = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(vector):
        members = generator.permutation(np.flatnonzero(vector == label))
        chosen.append(members[: max(1, round(fraction * len(members)))])
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)


def low_label_probe(
    train_x: NDArray[Any],
    train_y: NDArray[np.int64] | Sequence[int],
    test_x: NDArray[Any],
    test_y: NDArray[np.int64] | Sequence[int],
    *,
    n_classes: int,
    fraction: float,
    epochs: int = 20,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> LinearProbeResult:
    """Train a linear probe on a fraction of the labels and test it on the whole test set.

    SGD takes as many steps as `epochs` passes over all rows would take; otherwise a small fraction
    would be trained for too few steps. If no class has enough images to choose the weight decay,
    the largest candidate is used.

    Parameters
    ----------
    train_x : array, float32 or float16 [n, d]
        Features of all training images.
    train_y : array or sequence, int [n]
        Training labels in 0 .. n_classes - 1.
    test_x : array, float32 or float16 [m, d]
        Test features.
    test_y : array or sequence, int [m]
        Test labels in 0 .. n_classes - 1.
    n_classes : int
        Number of classes.
    fraction : float
        Fraction of the labels of each class, in (0, 1].
    epochs : int
        SGD takes as many steps as this number of passes over all rows would take.
    seed : int
        Seed of the draw and of the probe.
    device : torch.device or str, optional
        Where to compute. Default: the CPU.

    Returns
    -------
    LinearProbeResult
        Accuracies and protocol.

    Raises
    ------
    InputError
        See `linear_probe` and `labelled_share`.
    """
    labels = label_vector(train_y, len(train_x), "train_y", n_classes=n_classes)
    rows = labelled_share(labels, fraction, seed=seed)
    can_choose = len(rows) and np.bincount(labels[rows]).max() >= _MIN_CLASS_TO_HOLD_OUT

    def steps(n: int) -> int:
        return math.ceil(n / BATCH_SIZE)

    return linear_probe(
        train_x[rows],
        labels[rows],
        test_x,
        test_y,
        n_classes=n_classes,
        weight_decays=WEIGHT_DECAYS if can_choose else [max(WEIGHT_DECAYS)],
        epochs=round(epochs * steps(len(train_x)) / max(1, steps(len(rows)))),
        seed=seed,
        device=device,
    )
