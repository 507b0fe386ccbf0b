"""Low-label regimes: a linear probe that sees only a share of the training labels.

The share is drawn class by class, and a smaller share is part of a larger one, so that regimes and
models are compared on the same images.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ktfast.errors import InputError
from ktfast.evaluation.accuracy import label_vector
from ktfast.evaluation.linear import WEIGHT_DECAYS, LinearProbeResult, linear_probe

_LEAST_TO_CHOOSE = 3  # images of a class, of which a fifth, rounded, is held out


def labelled_share(
    labels: NDArray[np.int64] | Sequence[int], fraction: float, *, seed: int = 0
) -> NDArray[np.int64]:
    """Draw a share of the rows of each class, at least one.

    Parameters
    ----------
    labels : int [n].
    fraction : of each class, in (0, 1]; the number of rows is rounded.
    seed : of the draw; the global random state is untouched. With the same seed the rows of a
        smaller fraction are among those of a larger one.

    Returns
    -------
    sorted int64 vector of row numbers.

    Raises
    ------
    InputError : the fraction lies outside (0, 1].
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
    batch_size: int = 256,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> LinearProbeResult:
    """Train a linear probe on a share of the labels and test it on the whole test set.

    It takes as many steps of SGD as `epochs` passes over all rows would, because as many passes
    over a few rows are too few steps. Where no class has enough images to choose the weight decay
    by, it is the largest candidate. Other parameters, shapes and errors are those of
    `linear_probe`; `fraction` is as in `labelled_share`.
    """
    labels = label_vector(train_y, len(train_x), "train_y", n_classes=n_classes)
    rows = labelled_share(labels, fraction, seed=seed)
    can_choose = len(rows) and np.bincount(labels[rows]).max() >= _LEAST_TO_CHOOSE

    def steps(n: int) -> int:
        return math.ceil(n / batch_size)

    return linear_probe(
        train_x[rows],
        labels[rows],
        test_x,
        test_y,
        n_classes=n_classes,
        weight_decays=WEIGHT_DECAYS if can_choose else [max(WEIGHT_DECAYS)],
        epochs=round(epochs * steps(len(train_x)) / max(1, steps(len(rows)))),
        batch_size=batch_size,
        seed=seed,
        device=device,
    )
