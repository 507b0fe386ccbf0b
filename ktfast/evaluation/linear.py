"""Linear probe: how well a softmax regression on frozen features separates the classes.

Published protocols differ in details that change the accuracy by several points. The result
therefore names these details in its `protocol`. The weight decay is chosen with training labels
only. The test set is used once, at the end.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ktfast.errors import InputError
from ktfast.evaluation.accuracy import (
    class_accuracies,
    label_vector,
    mean_per_class_accuracy,
    top1_accuracy,
)
from ktfast.evaluation.results import ProtocolDetails
from ktfast.evaluation.softmax import fit_sgd, mean_square_norm, predict

WEIGHT_DECAYS = (1e-2, 1e-1)
"""Candidates; the accuracy on held-out training rows decides."""
BATCH_SIZE = 256
"""Rows in a step of SGD."""
HOLDOUT = 0.2
"""Fraction of the training rows of each class that is held out to choose the weight decay."""
_ROWS_PER_BLOCK = 1024
# A feature whose largest magnitude lies between 2^-40 and 2^40 is not scaled.
_ORDINARY = 40
# The published learning rate is 0.01 for about 9,600 standardised values. Features of another scale
# need a rate that is inversely proportional to the mean squared norm of a row.
_RATE_TIMES_SQUARE_NORM = 0.01 * 9600


@dataclass(frozen=True)
class LinearProbeResult:
    """Accuracies of one linear probe, in [0, 1], and how the probe was trained.

    Attributes
    ----------
    top1 : float
        Fraction of test images that are classified right.
    mean_per_class : float
        Mean of this fraction over classes.
    weight_decay : float
        The chosen weight decay.
    holdout_mean_per_class : dict of str to float
        Mean per-class accuracy of each candidate on held-out training rows; empty if there was
        only one candidate.
    n_train : int
        Number of training images.
    protocol : dict of str to value
        The details that make two accuracies comparable or not.
    predictions : array, int64 [m]
        Predicted class of each test image.
    per_class : tuple of float
        Fraction of right test images of each class, in the order of the classes.
    """

    top1: float
    mean_per_class: float
    weight_decay: float
    holdout_mean_per_class: dict[str, float]
    n_train: int
    protocol: ProtocolDetails
    predictions: NDArray[np.int64] = field(repr=False, compare=False)
    per_class: tuple[float, ...] = ()

    @property
    def held_out(self) -> float | None:
        """Accuracy of the chosen weight decay on held-out rows; None for a single candidate."""
        return self.holdout_mean_per_class.get(f"{self.weight_decay:g}")


def linear_probe(
    train_x: NDArray[Any] | Tensor,
    train_y: NDArray[np.int64] | Sequence[int],
    test_x: NDArray[Any] | Tensor,
    test_y: NDArray[np.int64] | Sequence[int],
    *,
    n_classes: int,
    weight_decays: Sequence[float] = WEIGHT_DECAYS,
    epochs: int = 20,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> LinearProbeResult:
    """Train a softmax regression on frozen features and test it once.

    The protocol comes from "Colorful Image Colorization" (Zhang et al., ECCV 2016). Noroozi et al.
    (CVPR 2018) use the same protocol: features are standardised by the training mean and standard
    deviation of each dimension, and SGD has momentum 0.9 and three drops of the learning rate.

    Parameters
    ----------
    train_x : array or Tensor, float32 or float16 [n, d]
        Training features.
    train_y : array or sequence, int [n]
        Training labels in 0 .. n_classes - 1.
    test_x : array or Tensor, float32 or float16 [m, d]
        Test features.
    test_y : array or sequence, int [m]
        Test labels in 0 .. n_classes - 1.
    n_classes : int
        Number of classes.
    weight_decays : sequence of float
        Candidates. If there are several, each is trained on 80 % of the training rows of each
        class. The candidate with the highest mean per-class accuracy on the other 20 % is then
        trained on all rows. Of equal accuracies, the largest decay is chosen.
    epochs : int
        Passes over the training rows.
    seed : int
        Seed of the held-out rows and of the row order.
    device : torch.device or str, optional
        Where to compute. Default: the device of `train_x`.

    Returns
    -------
    LinearProbeResult
        Accuracies and protocol.

    Raises
    ------
    InputError
        A shape, a label or an option is invalid, or a feature is NaN or infinite.

    Notes
    -----
    The function copies both feature arrays to `device` in their own dtype.
    """
    train, test = _feature_arrays(train_x, test_x, device)
    labels = label_vector(train_y, len(train), "train_y", n_classes=n_classes)
    test_labels = label_vector(test_y, len(test), "test_y", n_classes=n_classes)
    if not weight_decays or min(weight_decays) < 0:
        raise InputError(f"weight_decays must be non-negative numbers, got {weight_decays!r}")
    _standardise(train, test)
    sgd = partial(
        fit_sgd,
        train,
        torch.from_numpy(labels).to(train.device),
        n_classes=n_classes,
        learning_rate=_RATE_TIMES_SQUARE_NORM / mean_square_norm(train),
        epochs=epochs,
        batch_size=BATCH_SIZE,
        seed=seed,
    )
    decay, scores = _choose_decay(sgd, train, labels, weight_decays, seed)
    every_row = torch.arange(len(train), device=train.device)
    weights, bias = sgd(every_row, weight_decays=[decay])
    guess = predict(test, weights[0], bias[0])
    return LinearProbeResult(
        top1=top1_accuracy(test_labels, guess),
        mean_per_class=mean_per_class_accuracy(test_labels, guess),
        weight_decay=decay,
        holdout_mean_per_class=scores,
        n_train=len(train),
        protocol={
            "normalisation": "standardise",
            "optimiser": "sgd",
            "epochs": epochs,
            "epoch_reported": "last",
            "batch_size": BATCH_SIZE,
            "crops": 1,
        },
        per_class=tuple(class_accuracies(test_labels, guess).tolist()),
        predictions=guess,
    )


def _choose_decay(
    sgd: Callable[..., tuple[Tensor, Tensor]],
    train: Tensor,
    labels: NDArray[np.int64],
    candidates: Sequence[float],
    seed: int,
) -> tuple[float, dict[str, float]]:
    """The candidate with the highest accuracy on held-out rows, and the accuracy of each one."""
    if len(candidates) == 1:
        return float(candidates[0]), {}
    fit_rows, held = stratified_holdout(labels, HOLDOUT, seed)
    weights, bias = sgd(torch.from_numpy(fit_rows).to(train.device), weight_decays=candidates)
    held_out = train[torch.from_numpy(held).to(train.device)]
    scores = {
        f"{candidate:g}": mean_per_class_accuracy(labels[held], predict(held_out, w, b))
        for w, b, candidate in zip(weights, bias, candidates, strict=True)
    }
    return float(max(candidates, key=lambda c: (scores[f"{c:g}"], c))), scores


def stratified_holdout(
    labels: NDArray[np.int64], fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split rows into rows to fit and held-out rows, class by class.

    Parameters
    ----------
    labels : array, int64 [n]
        Class of each row.
    fraction : float
        Fraction of each class to hold out. The number of rows is rounded; at least one row of each
        class stays to fit.
    seed : int
        Seed of the draw. The global random state does not change.

    Returns
    -------
    fit : array, int64
        Sorted row numbers to fit.
    held : array, int64
        Sorted row numbers that are held out.

    Raises
    ------
    InputError
        No class has enough rows to hold one out.
    """
    generator = np.random.default_rng(seed)
    held = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(round(fraction * len(members)), len(members) - 1)
        held[generator.permutation(members)[:count]] = True
    if not held.any():
        raise InputError(
            f"the training set is too small to hold out {fraction:g} of each class for choosing "
            "among weight_decays; give exactly one weight decay"
        )
    return np.flatnonzero(~held), np.flatnonzero(held)


def _feature_arrays(
    train_x: NDArray[Any] | Tensor, test_x: NDArray[Any] | Tensor, device: Any
) -> tuple[Tensor, Tensor]:
    """Copy both arrays to the device, so that they can be standardised in place."""
    copies = []
    for name, x in (("train_x", train_x), ("test_x", test_x)):
        tensor = x if isinstance(x, Tensor) else torch.from_numpy(np.array(x))
        if not tensor.is_floating_point():
            raise InputError(f"{name} must hold float32 or float16 features, got {tensor.dtype}")
        target = device if device is not None else getattr(train_x, "device", "cpu")
        # np.array has copied a NumPy array already; a tensor belongs to the caller.
        copies.append(tensor.detach().to(target, copy=isinstance(x, Tensor)))
    train, test = copies
    if train.ndim != 2 or not train.shape[0]:
        raise InputError(f"train_x must be [n, d] with n > 0, got shape {tuple(train.shape)}")
    if test.ndim != 2 or test.shape[1] != train.shape[1] or not test.shape[0]:
        raise InputError(
            f"test_x must be [m, {train.shape[1]}] with m > 0, got shape {tuple(test.shape)}"
        )
    return train, test


def _standardise(train: Tensor, test: Tensor) -> None:
    """Standardise both arrays in place by the statistics of `train`; refuse NaN and infinity."""
    _tame_columns(train, test)
    blocks = torch.split(train, _ROWS_PER_BLOCK)
    mean = torch.stack([block.sum(0, dtype=torch.float64) for block in blocks]).sum(0) / len(train)
    if not bool(torch.isfinite(mean).all() & torch.isfinite(test).all()):
        raise InputError("the features hold NaN or infinity; look at the network that made them")
    center = mean.float()
    squares = torch.stack(
        [(block - center).square_().sum(0, dtype=torch.float64) for block in blocks]
    )
    variance = squares.sum(0) / len(train)
    # The variance of a constant dimension is 0 or a rounding error; such a dimension is not scaled.
    constant = variance <= 1e-12 * mean.square()
    scale = torch.where(constant, 1.0, variance).rsqrt().float()
    for block in (*blocks, *torch.split(test, _ROWS_PER_BLOCK)):
        block.copy_((block - center).mul_(scale))


def _tame_columns(train: Tensor, test: Tensor) -> None:
    """Multiply each feature of extreme magnitude by one power of two in both arrays, in place.

    The squares of values above 1e19 or below 1e-23 leave the range of float32. The variance of such
    a feature would be infinite or zero, and the feature would be lost.
    """
    if train.element_size() < 4:
        return  # the squares of all float16 and bfloat16 features of networks fit float32
    peak = train.abs().amax(0).double()
    wild = (peak > 0) & (peak.log2().abs() > _ORDINARY) & peak.isfinite()
    if bool(wild.any()):
        most = 120 if train.dtype == torch.float32 else 1000
        exponents = (-peak.frexp().exponent).clamp(-most, most) * wild
        factors = (2.0 ** exponents.double()).to(train.dtype)
        for block in (*torch.split(train, _ROWS_PER_BLOCK), *torch.split(test, _ROWS_PER_BLOCK)):
            block.mul_(factors)
