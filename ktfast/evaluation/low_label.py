"""Low-label regimes: a linear probe that sees only some of the training labels.

A share is a fraction of the images of each class, or a number of images per class. The images are
drawn class by class. With one seed, the images of a smaller share are among those of a larger one,
and all models see the same images, so that results can be compared.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ktfast.errors import InputError
from ktfast.evaluation.accuracy import label_vector
from ktfast.evaluation.linear import BATCH_SIZE, WEIGHT_DECAYS, LinearProbeResult, linear_probe

# A class needs 3 images before a fifth of its images, rounded, is at least one held-out image.
_MIN_CLASS_TO_HOLD_OUT = 3


@dataclass(frozen=True)
class Share:
    """Some of the labels of each class: a fraction of its images, or a number of images.

    Attributes
    ----------
    fraction : float, optional
        Fraction of each class, in (0, 1]. The number of images is rounded, and is at least one.
    count : int, optional
        Images per class, at least one. A class with fewer images gives all of them. Give either
        `fraction` or `count`.

    Raises
    ------
    InputError
        A value lies outside its range, or not exactly one value is given.
    """

    fraction: float | None = None
    count: int | None = None

    def __post_init__(self) -> None:
        if (self.fraction is None) == (self.count is None):
            raise InputError(
                f"a share is a fraction or a count, got fraction {self.fraction!r} and count "
                f"{self.count!r}; give one of them"
            )
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise InputError(f"fraction must lie in (0, 1], got {self.fraction!r}")
        if self.count is not None and self.count < 1:
            raise InputError(f"count must be at least 1, got {self.count!r}")

    def of(self, n: int) -> int:
        """Number of images that a class of n images gives."""
        return min(self.count, n) if self.count else max(1, round((self.fraction or 0) * n))


def draw_seed(seed: int, draw: int) -> int:
    """Give the seed of one of several draws. The seed of draw 0 is `seed` itself."""
    return seed if draw == 0 else int(np.random.SeedSequence((seed, draw)).generate_state(1)[0])


def labelled_share(
    labels: NDArray[np.int64] | Sequence[int], share: Share | float, *, seed: int = 0
) -> NDArray[np.int64]:
    """Draw some rows of each class, at least one row.

    Parameters
    ----------
    labels : array or sequence, int [n]
        Class of each row.
    share : Share or float
        Share of each class. A float is a fraction.
    seed : int
        Seed of the draw. With one seed, the rows of a smaller share are among the rows of a larger
        one. The global random state does not change.

    Returns
    -------
    array, int64
        Sorted row numbers.

    Raises
    ------
    InputError
        The fraction lies outside (0, 1].
    """
    share = share if isinstance(share, Share) else Share(share)
    vector = np.asarray(labels)
    generator = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(vector):
        members = generator.permutation(np.flatnonzero(vector == label))
        chosen.append(members[: share.of(len(members))])
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)


def low_label_probe(
    train_x: NDArray[Any],
    train_y: NDArray[np.int64] | Sequence[int],
    test_x: NDArray[Any],
    test_y: NDArray[np.int64] | Sequence[int],
    *,
    n_classes: int,
    fraction: float | None = None,
    count: int | None = None,
    epochs: int = 20,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> LinearProbeResult:
    """Train a linear probe on a share of the labels and test it on the whole test set.

    SGD takes as many steps as `epochs` passes over all rows would take; otherwise a small share
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
    fraction, count : float or int, optional
        Share of the labels of each class, see `Share`. Give one of the two.
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
    rows = labelled_share(labels, Share(fraction, count), seed=seed)
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
