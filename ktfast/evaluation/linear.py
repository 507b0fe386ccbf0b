"""Linear probe: how well a softmax regression on frozen features tells the classes apart.

The published protocols differ in details that move the figure by points, so the result names
every one of them: feature normalisation, optimiser, schedule, crops, and which epoch counts.
Only training labels choose the weight decay; the test set is looked at once, at the end.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ktfast.errors import InputError
from ktfast.evaluation.accuracy import label_vector, mean_per_class_accuracy, top1_accuracy
from ktfast.evaluation.softmax import fit_lbfgs, fit_sgd, mean_square_norm, predict

Normalisation = Literal["standardise", "none"]
Optimiser = Literal["sgd", "lbfgs"]

# The candidates that training labels choose from.
WEIGHT_DECAYS = (1e-2, 1e-1)
_ROWS_PER_BLOCK = 1024
# The published recipe takes lr 0.01 on about 9,600 standardised values; softmax regression is
# equivariant to the scale of its input, so the step scales with the inverse mean squared norm.
_STEP_TIMES_SQUARE_NORM = 0.01 * 9600


@dataclass(frozen=True)
class LinearProbeResult:
    """Accuracy of one linear probe and everything that is needed to compare it with another."""

    top1: float
    mean_per_class: float
    train_top1: float
    normalisation: str
    optimiser: str
    epochs: int
    epoch_reported: str
    batch_size: int | None
    learning_rate: float | None
    weight_decay: float
    holdout_mean_per_class: dict[str, float]
    crops: int
    n_train: int
    n_test: int
    n_classes: int
    dim: int
    seed: int

    @property
    def protocol(self) -> dict[str, Any]:
        """The choices that make two figures comparable or not; `weight_decay` may still differ."""
        names = ("normalisation", "optimiser", "epochs", "epoch_reported", "batch_size", "crops")
        return {name: getattr(self, name) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary ready for JSON."""
        return asdict(self)


def linear_probe(
    train_x: NDArray[Any] | Tensor,
    train_y: NDArray[np.int64] | Sequence[int],
    test_x: NDArray[Any] | Tensor,
    test_y: NDArray[np.int64] | Sequence[int],
    *,
    n_classes: int,
    normalisation: Normalisation = "standardise",
    optimiser: Optimiser = "sgd",
    weight_decays: Sequence[float] = WEIGHT_DECAYS,
    holdout: float = 0.2,
    epochs: int | None = None,
    batch_size: int = 256,
    learning_rate: float | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> LinearProbeResult:
    """Train a softmax regression on frozen features and test it once.

    Protocol of "Colorful Image Colorization" (Zhang et al., ECCV 2016) as used by Noroozi et al.
    (CVPR 2018): SGD with momentum 0.9 and three drops by 10 at 2/7, 4/7 and 6/7 of training.

    Parameters
    ----------
    train_x : float32 or float16 [n, d].
    train_y : int [n] in 0 .. n_classes - 1.
    test_x : float [m, d], or [m, crops, d]; the softmax scores of the crops are averaged.
    test_y : int [m].
    n_classes : number of classes.
    normalisation : "standardise" subtracts the training mean and divides by the training standard
        deviation of each dimension (a batch norm without affine parameters); or "none".
    optimiser : "sgd", or "lbfgs" (full batch, converges to the optimum of the convex problem).
    weight_decays : candidates; the loss is mean cross-entropy + decay / 2 * |W|^2, the bias is
        not decayed. With more than one, a stratified part of the training set chooses (highest
        mean per-class accuracy, ties to the larger decay), then all of it is used.
    holdout : fraction of the training rows of each class kept for that choice.
    epochs : passes for SGD (default 20), maximal iterations for L-BFGS (default 200).
    batch_size : rows in an SGD step.
    learning_rate : SGD's first rate; None: 96 / mean squared norm of a row, which is the
        published 0.01 for 9,600 standardised values.
    seed : drives the hold-out split and the order of rows.
    device : where to compute; None: where `train_x` is.

    Returns
    -------
    LinearProbeResult

    Raises
    ------
    InputError : shapes, labels, options or values (NaN, infinity) that cannot be used.

    Notes
    -----
    Memory: one copy of both feature arrays on `device` in their own dtype.
    """
    train, test = _feature_arrays(train_x, test_x, device)
    labels = label_vector(train_y, len(train), "train_y", n_classes=n_classes)
    test_labels = label_vector(test_y, len(test), "test_y", n_classes=n_classes)
    _check_options(normalisation, optimiser, weight_decays, holdout)
    _normalise(train, test, standardise=normalisation == "standardise")
    if optimiser == "lbfgs":
        epochs = 200 if epochs is None else epochs
        learning_rate = None
    else:
        epochs = 20 if epochs is None else epochs
        learning_rate = learning_rate or _STEP_TIMES_SQUARE_NORM / mean_square_norm(train)

    def fit(rows: NDArray[np.int64], decays: Sequence[float]) -> tuple[Tensor, Tensor, int]:
        index = torch.from_numpy(rows).to(train.device)
        y = torch.from_numpy(labels).to(train.device)
        if learning_rate is None:
            return fit_lbfgs(train, y, index, n_classes, decays, max_iterations=epochs)
        return fit_sgd(
            train, y, index, n_classes, decays,
            learning_rate=learning_rate, epochs=epochs, batch_size=batch_size, seed=seed,
        )  # fmt: skip

    decay, scores = float(weight_decays[0]), {}
    if len(weight_decays) > 1:
        fit_rows, held = stratified_holdout(labels, holdout, seed)
        weights, bias, _ = fit(fit_rows, weight_decays)
        for w, b, candidate in zip(weights, bias, weight_decays, strict=True):
            guess = predict(train[torch.from_numpy(held).to(train.device)], w, b)
            scores[f"{candidate:g}"] = mean_per_class_accuracy(labels[held], guess)
        decay = float(max(weight_decays, key=lambda c: (scores[f"{c:g}"], c)))
    weights, bias, passes = fit(np.arange(len(labels)), [decay])
    guess = predict(test, weights[0], bias[0])
    return LinearProbeResult(
        top1=top1_accuracy(test_labels, guess),
        mean_per_class=mean_per_class_accuracy(test_labels, guess),
        train_top1=top1_accuracy(labels, predict(train, weights[0], bias[0])),
        normalisation=normalisation,
        optimiser=optimiser,
        epochs=passes,
        epoch_reported="last",
        batch_size=None if learning_rate is None else batch_size,
        learning_rate=learning_rate,
        weight_decay=decay,
        holdout_mean_per_class=scores,
        crops=1 if test.ndim == 2 else test.shape[1],
        n_train=len(train),
        n_test=len(test),
        n_classes=n_classes,
        dim=train.shape[1],
        seed=seed,
    )


def stratified_holdout(
    labels: NDArray[np.int64], fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split rows into a part to fit and a part to choose by, class by class.

    Parameters
    ----------
    labels : int64 [n].
    fraction : share of each class to hold out, rounded; at least one row of a class stays to fit.
    seed : of the draw; the global random state is untouched.

    Returns
    -------
    two sorted int64 vectors of row numbers, together all rows.

    Raises
    ------
    InputError : nothing could be held out.
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
    """Copy both arrays to the device, so that they can be normalised in place."""
    copies = []
    for name, x in (("train_x", train_x), ("test_x", test_x)):
        tensor = x if isinstance(x, Tensor) else torch.from_numpy(np.array(x))
        if not tensor.is_floating_point():
            raise InputError(f"{name} must hold float32 or float16 features, got {tensor.dtype}")
        target = device if device is not None else getattr(train_x, "device", "cpu")
        # torch.from_numpy(np.array(...)) is a copy already; a tensor belongs to the caller.
        copies.append(tensor.detach().to(target, copy=isinstance(x, Tensor)))
    train, test = copies
    if train.ndim != 2 or not train.shape[0]:
        raise InputError(f"train_x must be [n, d] with n > 0, got shape {tuple(train.shape)}")
    if test.ndim not in (2, 3) or test.shape[-1] != train.shape[1] or not test.shape[0]:
        raise InputError(
            f"test_x must be [m, {train.shape[1]}] or [m, crops, {train.shape[1]}] with m > 0, "
            f"got shape {tuple(test.shape)}"
        )
    return train, test


def _check_options(
    normalisation: str, optimiser: str, weight_decays: Sequence[float], holdout: float
) -> None:
    if normalisation not in ("standardise", "none"):
        raise InputError(f'normalisation must be "standardise" or "none", got {normalisation!r}')
    if optimiser not in ("sgd", "lbfgs"):
        raise InputError(f'optimiser must be "sgd" or "lbfgs", got {optimiser!r}')
    if not weight_decays or min(weight_decays) < 0:
        raise InputError(f"weight_decays must be non-negative numbers, got {weight_decays!r}")
    if not 0 < holdout < 1:
        raise InputError(f"holdout must lie between 0 and 1, got {holdout!r}")


def _normalise(train: Tensor, test: Tensor, *, standardise: bool) -> None:
    """Standardise both arrays in place by the statistics of `train`; refuse NaN and infinity."""
    blocks = torch.split(train, _ROWS_PER_BLOCK)
    mean = torch.stack([block.sum(0, dtype=torch.float64) for block in blocks]).sum(0) / len(train)
    if not bool(torch.isfinite(mean).all() & torch.isfinite(test).all()):
        raise InputError("the features hold NaN or infinity; look at the network that made them")
    if not standardise:
        return
    centre = mean.float()
    squares = torch.stack(
        [(block - centre).square_().sum(0, dtype=torch.float64) for block in blocks]
    )
    variance = squares.sum(0) / len(train)
    # A constant dimension carries nothing: its deviation 0 becomes 1, rounding error included.
    constant = variance <= 1e-12 * mean.square()
    scale = torch.where(constant, 1.0, variance).rsqrt().float()
    for block in (*blocks, *torch.split(test, _ROWS_PER_BLOCK)):
        block.copy_((block - centre).mul_(scale))
