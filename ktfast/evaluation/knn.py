"""Nearest-neighbour accuracy: how well features separate the classes without any training."""

from collections.abc import Sequence
from dataclasses import dataclass, field
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
from ktfast.evaluation.linear import HOLDOUT, stratified_holdout
from ktfast.ops.unit_rows import unit_rows

MOST_HELD_OUT = 10_000
"""Largest number of held-out training rows that `knn_held_out` classifies."""
# The largest block of similarities: 1,024 queries against 8,192 rows, 32 MiB in float32.
_QUERIES_PER_BLOCK = 1024
_ROWS_PER_BLOCK = 8192


@dataclass(frozen=True)
class KnnResult:
    """Accuracies of a nearest-neighbour vote, in [0, 1].

    Attributes
    ----------
    top1 : float
        Fraction of rows that are classified right.
    mean_per_class : float
        Mean over classes of the fraction of rows of a class that are classified right.
    predictions : array, int64 [m]
        Predicted class of each test row.
    per_class : tuple of float
        Fraction of rows classified right, for each class of the test rows in the order of the
        classes.
    """

    top1: float
    mean_per_class: float
    predictions: NDArray[np.int64] = field(repr=False, compare=False)
    per_class: tuple[float, ...] = ()


def knn_accuracy(
    train_x: NDArray[Any] | Tensor,
    train_y: NDArray[np.int64] | Sequence[int],
    test_x: NDArray[Any] | Tensor,
    test_y: NDArray[np.int64] | Sequence[int],
    *,
    k: int = 20,
    temperature: float | None = 0.07,
    own_rows: NDArray[np.int64] | None = None,
    device: torch.device | str | None = None,
) -> KnnResult:
    """Classify each test row by a vote of its k most similar training rows (cosine similarity).

    A neighbour's vote has the weight exp(similarity / temperature), as in Wu et al. (CVPR 2018)
    and DINO. The class with the largest sum of weights wins. Of equal sums, the lowest class wins.
    A row of zeros has similarity 0 to every row.

    Parameters
    ----------
    train_x : array or Tensor, float32 or float16 [n, d]
        Training features.
    train_y : array or sequence, int [n]
        Training labels, >= 0.
    test_x : array or Tensor, float32 or float16 [m, d]
        Test features.
    test_y : array or sequence, int [m]
        Test labels, >= 0.
    k : int
        Number of neighbours, at most n.
    temperature : float, optional
        Temperature of the weights, > 0. None gives every vote the same weight.
    own_rows : array, int64 [m], optional
        Number of the training row that equals each test row. This training row does not vote for
        the test row, and `k` is at most n - 1. None: no test row is a training row.
    device : torch.device or str, optional
        Where to compute. Default: the device of `train_x`.

    Returns
    -------
    KnnResult
        The accuracies.

    Raises
    ------
    InputError
        A shape, a label or an option is invalid, or a feature is NaN or infinite.

    Notes
    -----
    The function never allocates a matrix of m x n. It needs memory for one block of 1,024 x 8,192
    similarities, and for normalised float32 copies of one block of test rows and of one block of
    training rows.
    """
    target = device if device is not None else getattr(train_x, "device", "cpu")
    train, test = torch.as_tensor(train_x), torch.as_tensor(test_x)
    voters = len(train) - (own_rows is not None)
    _check(train, test, k, temperature, voters)
    limit = int(np.iinfo(np.int64).max)
    labels = label_vector(train_y, len(train), "train_y", n_classes=limit)
    test_labels = label_vector(test_y, len(test), "test_y", n_classes=limit)
    classes, codes = np.unique(labels, return_inverse=True)
    class_of_row = torch.from_numpy(codes).to(target)
    own = None if own_rows is None else torch.split(torch.as_tensor(own_rows), _QUERIES_PER_BLOCK)
    predictions = []
    for block, queries in enumerate(torch.split(test, _QUERIES_PER_BLOCK)):
        left_out = None if own is None else own[block].to(target)
        similarity, neighbour = _nearest(_unit_rows(queries, target), train, k, left_out)
        votes = torch.zeros(len(queries), len(classes), device=similarity.device)
        votes.scatter_add_(1, class_of_row[neighbour], _weights(similarity, temperature))
        predictions.append(classes[votes.cpu().numpy().argmax(1)])
    guess = np.concatenate(predictions)
    return KnnResult(
        top1=top1_accuracy(test_labels, guess),
        mean_per_class=mean_per_class_accuracy(test_labels, guess),
        per_class=tuple(class_accuracies(test_labels, guess).tolist()),
        predictions=guess,
    )


def knn_held_out(x: NDArray[Any], labels: NDArray[np.int64], *, k: int, seed: int) -> float:
    """Mean per-class accuracy of nearest neighbours on held-out training rows.

    The held-out rows are those with which the linear probe chooses its weight decay, at most
    `MOST_HELD_OUT` of them. All training rows except the classified row can vote, so the features
    need not be copied.

    Parameters
    ----------
    x : array, float16 or float32 [n, d]
        Training features.
    labels : array, int64 [n]
        Training labels.
    k : int
        Number of neighbours. If there are fewer other rows, all of them vote.
    seed : int
        Seed of the draw of the held-out rows.

    Returns
    -------
    float
        Accuracy in [0, 1].
    """
    _, held = stratified_holdout(labels, HOLDOUT, seed)
    held = held[:: -(-len(held) // MOST_HELD_OUT)]
    k = min(k, len(x) - 1)
    return knn_accuracy(x, labels, x[held], labels[held], k=k, own_rows=held).mean_per_class


def _check(train: Tensor, test: Tensor, k: int, temperature: float | None, voters: int) -> None:
    if train.ndim != 2 or test.ndim != 2 or train.shape[1] != test.shape[1]:
        raise InputError(
            "train_x and test_x must be [n, d] and [m, d], got "
            f"{tuple(train.shape)} and {tuple(test.shape)}"
        )
    if not 1 <= k <= voters:
        raise InputError(f"k must lie in 1..{voters}, the number of training rows, got {k}")
    if not len(test):
        raise InputError("test_x is empty; give at least one test row")
    if temperature is not None and not temperature > 0:
        raise InputError(f"temperature must be positive or None, got {temperature}")


def _weights(similarity: Tensor, temperature: float | None) -> Tensor:
    """Weight of each neighbour's vote, float32 [b, k]."""
    if temperature is None:
        return torch.ones_like(similarity)
    # Subtracting the best similarity keeps the ratios and prevents overflow.
    return ((similarity - similarity.amax(1, keepdim=True)) / temperature).exp()


def _nearest(
    queries: Tensor, train: Tensor, k: int, left_out: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The k highest similarities float32 [b, k] of each query and their rows int64 [b, k].

    `left_out` int64 [b] names one training row per query, which is not a neighbour of the query.
    """
    best = torch.empty(len(queries), 0, device=queries.device)
    rows = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for start in range(0, len(train), _ROWS_PER_BLOCK):
        block = _unit_rows(train[start : start + _ROWS_PER_BLOCK], queries.device)
        products = queries @ block.T
        if left_out is not None:
            (inside,) = torch.nonzero((left_out >= start) & (left_out < start + len(block))).T
            products[inside, left_out[inside] - start] = -torch.inf
        similarity, index = products.topk(min(k, len(block)))
        best = torch.cat([best, similarity], 1)
        rows = torch.cat([rows, index + start], 1)
        if best.shape[1] > k:
            best, index = best.topk(k)
            rows = rows.gather(1, index)
    return best, rows


def _unit_rows(x: Tensor, device: torch.device | str) -> Tensor:
    rows: Tensor = unit_rows(x.to(device))
    if not bool(torch.isfinite(rows).all()):
        raise InputError("the features hold NaN or infinity; look at the network that made them")
    return rows
