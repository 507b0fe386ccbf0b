"""Linear support vector machines on frozen features, one for each class, as on PASCAL VOC 2007.

The protocol is that of Goyal et al. ("Scaling and Benchmarking Self-Supervised Visual
Representation Learning", ICCV 2019): rows of length 1, squared hinge loss, positives of twice the
weight, and a cost that cross-validation with three folds chooses for each class. The low-shot
protocol trains on k positives and 19 k negatives of each class. It reports the cost with the best
mean over the samples on the test images, as the authors' code does.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import cross_val_score
from sklearn.svm import LinearSVC

from ktfast.errors import InputError
from ktfast.evaluation.average_precision import AveragePrecisions, classification_precisions

COSTS = (*(0.5**number for number in range(19, 3, -1)), 0.1, 0.01)
"""The costs of the authors' code: 2^-19 to 2^-4, 0.1 and 0.01."""
FOLDS = 3
SHOTS = (1, 2, 4, 8, 16, 32, 64, 96)
"""Positives of each class in the authors' low-shot protocol."""
_LARGEST_SEED = 1 << 32


@dataclass(frozen=True)
class ShotResult:
    """Average precisions of machines that saw k positives of each class.

    Attributes
    ----------
    shots : int
        k, the number of positives of each class.
    cost : float
        The cost with the highest mean over the samples on the test images.
    samples : tuple of float
        Mean average precision over the classes, of each sample of the training images.
    """

    shots: int
    cost: float
    samples: tuple[float, ...]


def svm_precisions(
    train_x: NDArray[np.floating],
    train_presence: NDArray[np.integer],
    test_x: NDArray[np.floating],
    test_presence: NDArray[np.integer],
    *,
    costs: Sequence[float] = COSTS,
    seed: int = 0,
) -> AveragePrecisions:
    """Train one linear support vector machine for each class, and test it once.

    Parameters
    ----------
    train_x : array, float [n, d]
        Training features.
    train_presence : array, int [n, n_classes]
        1: the image shows the class. -1: it does not. 0: the image does not count for the class.
    test_x : array, float [m, d]
        Test features.
    test_presence : array, int [m, n_classes]
        Which classes each test image shows.
    costs : sequence of float
        Candidates for the cost. Cross-validation with three folds chooses one for each class. If a
        class has fewer than three positives or negatives, the smallest cost is used.
    seed : int
        Seed of the solver's order of the rows.

    Returns
    -------
    AveragePrecisions
        One value per class; NaN for a class without a positive among the training or test images.

    Raises
    ------
    InputError
        The numbers of rows or classes differ, or a feature is NaN or infinite.
    """
    train, test = _unit_rows(train_x, "train_x"), _unit_rows(test_x, "test_x")
    train_presence, test_presence = np.asarray(train_presence), np.asarray(test_presence)
    _check(train, train_presence, test, test_presence)
    scores = np.zeros(test_presence.shape)
    for k in range(test_presence.shape[1]):
        counted = train_presence[:, k] != 0
        x, y = train[counted], train_presence[counted, k]
        if len(np.unique(y)) == 2:
            cost = _chosen_cost(x, y, costs, seed)
            scores[:, k] = _machine(cost, seed, x, y).decision_function(test)
    return _of_trained(classification_precisions(scores, test_presence), train_presence)


def low_shot_svm(
    train_x: NDArray[np.floating],
    train_presence: NDArray[np.integer],
    test_x: NDArray[np.floating],
    test_presence: NDArray[np.integer],
    *,
    shots: Sequence[int] = SHOTS,
    samples: int = 5,
    costs: Sequence[float] = COSTS,
    seed: int = 0,
) -> list[ShotResult]:
    """Train machines on k positives of each class, for several k and several samples.

    A machine also sees (number of classes - 1) * k negatives. The positives of a smaller k are
    among those of a larger k of the same sample. The cost of each k is the one with the highest
    average precision on the test images, as in the authors' code, so the values are somewhat too
    high. The authors draw the samples of each k independently.

    Parameters
    ----------
    train_x, train_presence, test_x, test_presence : array
        As in `svm_precisions`.
    shots : sequence of int
        Values of k.
    samples : int
        Number of samples of the training images for each k.
    costs : sequence of float
        Candidates for the cost.
    seed : int
        Seed of the samples.

    Returns
    -------
    list of ShotResult
        One entry for each k for which every class has as many positives.

    Raises
    ------
    InputError
        As in `svm_precisions`.
    """
    train, test = _unit_rows(train_x, "train_x"), _unit_rows(test_x, "test_x")
    train_presence, test_presence = np.asarray(train_presence), np.asarray(test_presence)
    _check(train, train_presence, test, test_presence)
    present = (train_presence > 0).sum(0)
    fewest = int(present[present > 0].min()) if present.any() else 0
    results = []
    for k in (k for k in shots if k <= fewest):
        found = np.empty((samples, len(costs)))
        for sample in range(samples):
            for number, each in enumerate(
                _scores_of_few(train, train_presence, test, k, costs, (seed, sample))
            ):
                precisions = classification_precisions(each, test_presence)
                found[sample, number] = _of_trained(precisions, train_presence).mean
        best = int(np.argmax(np.nan_to_num(found.mean(0), nan=-1)))
        results.append(ShotResult(k, float(costs[best]), tuple(found[:, best].tolist())))
    return results


def _scores_of_few(
    train: NDArray[np.float64],
    presence: NDArray[np.integer],
    test: NDArray[np.float64],
    k: int,
    costs: Sequence[float],
    seeds: tuple[int, int],
) -> NDArray[np.float64]:
    """Scores [costs, m, n_classes] of machines that saw k positives of each class."""
    n_classes = presence.shape[1]
    scores = np.zeros((len(costs), len(test), n_classes))
    for cls in range(n_classes):
        rows = _sample(presence[:, cls], k, (n_classes - 1) * k, (*seeds, cls))
        x, y = train[rows], presence[rows, cls]
        if len(np.unique(y)) == 2:
            for number, cost in enumerate(costs):
                machine = _machine(cost, seeds[0], x, y)
                scores[number, :, cls] = machine.decision_function(test)
    return scores


def _sample(
    presence: NDArray[np.integer], k: int, negatives: int, seed: tuple[int, ...]
) -> NDArray[np.intp]:
    """Rows of k positives and of up to `negatives` negatives, drawn anew for each class."""
    generator = np.random.default_rng(seed)
    positive = generator.permutation(np.flatnonzero(presence > 0))[:k]
    negative = generator.permutation(np.flatnonzero(presence < 0))[:negatives]
    return np.concatenate([positive, negative])


def _chosen_cost(
    x: NDArray[np.floating], y: NDArray[np.integer], costs: Sequence[float], seed: int
) -> float:
    """The cost with the highest average precision in cross-validation; of equal ones, the least."""
    ordered = sorted(costs)
    if len(ordered) == 1 or min((y > 0).sum(), (y < 0).sum()) < FOLDS:
        return ordered[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = [
            cross_val_score(
                _unfitted(cost, seed), x, y, cv=FOLDS, scoring="average_precision"
            ).mean()
            for cost in ordered
        ]
    return ordered[int(np.argmax(found))]


def _unfitted(cost: float, seed: int) -> LinearSVC:
    return LinearSVC(
        C=cost,
        class_weight={1: 2, -1: 1},
        loss="squared_hinge",
        dual=True,
        tol=1e-4,
        max_iter=2000,
        random_state=seed % _LARGEST_SEED,
    )


def _machine(cost: float, seed: int, x: NDArray[np.floating], y: NDArray[np.integer]) -> LinearSVC:
    """Fit a machine. Like the authors' code, it may stop at 2,000 iterations before the optimum."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return _unfitted(cost, seed).fit(x, y)


def _unit_rows(x: NDArray[np.floating], name: str) -> NDArray[np.float64]:
    """Divide each row by its length plus 1e-5, as the authors' code does."""
    rows: NDArray[np.float64] = np.asarray(x, np.float64)
    if rows.ndim != 2 or not len(rows):
        raise InputError(f"{name} must be [n, d] with n > 0, got shape {rows.shape}")
    if not np.isfinite(rows).all():
        raise InputError(f"{name} holds NaN or infinity; look at the network that made it")
    scaled: NDArray[np.float64] = rows / (np.linalg.norm(rows, axis=1) + 1e-5)[:, None]
    return scaled


def _check(
    train: NDArray[np.float64],
    train_presence: NDArray[np.integer],
    test: NDArray[np.float64],
    test_presence: NDArray[np.integer],
) -> None:
    shapes = (train_presence.shape, test_presence.shape)
    expected = (
        (len(train), *train_presence.shape[1:]),
        (len(test), *train_presence.shape[1:]),
    )
    if train_presence.ndim != 2 or shapes != expected or train.shape[1] != test.shape[1]:
        raise InputError(
            "expected features of one width and presence [rows, classes] with as many rows; got "
            f"features {train.shape} and {test.shape}, presence {shapes[0]} and {shapes[1]}"
        )


def _of_trained(found: AveragePrecisions, train_presence: NDArray[np.integer]) -> AveragePrecisions:
    """Leave out classes that no machine could learn."""
    known = (train_presence > 0).any(0) & (train_presence < 0).any(0)
    return AveragePrecisions(
        np.where(known, found.eleven_points, np.nan), np.where(known, found.area, np.nan)
    )
