"""k-nearest-neighbour accuracy: how well features alone, without any training, find the class."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ktfast.errors import InputError
from ktfast.evaluation.accuracy import label_vector, mean_per_class_accuracy, top1_accuracy

# The largest block of similarities: 1,024 queries against 8,192 rows, 32 MiB in float32.
_QUERIES_PER_BLOCK = 1024
_ROWS_PER_BLOCK = 8192


@dataclass(frozen=True)
class KnnResult:
    """Accuracy of a nearest-neighbour vote and the options that made it."""

    top1: float
    mean_per_class: float
    k: int
    temperature: float | None
    metric: str
    n_train: int
    n_test: int
    dim: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary ready for JSON."""
        return asdict(self)


def knn_accuracy(
    train_x: NDArray[Any] | Tensor,
    train_y: NDArray[np.int64] | Sequence[int],
    test_x: NDArray[Any] | Tensor,
    test_y: NDArray[np.int64] | Sequence[int],
    *,
    k: int = 20,
    temperature: float | None = 0.07,
    device: torch.device | str | None = None,
) -> KnnResult:
    """Classify each test row by a vote of its k most similar training rows (cosine).

    A neighbour's vote weighs exp(similarity / temperature), as in Wu et al. (CVPR 2018) and DINO;
    with temperature None every vote weighs the same.

    Parameters
    ----------
    train_x, test_x : float32 or float16 [n, d] and [m, d].
    train_y, test_y : int [n] and [m], >= 0.
    k : neighbours, at most n.
    temperature : of the weights, > 0, or None for a uniform vote.
    device : where to compute; None: where `train_x` is.

    Returns
    -------
    KnnResult; equal votes go to the lowest class. A row of zeros has similarity 0 to every row.

    Raises
    ------
    InputError : shapes, labels, values or options that cannot be used.

    Notes
    -----
    Memory: one block of 1,024 x 8,192 similarities and a normalised float32 copy of one block
    of rows of each side; never a matrix of m x n.
    """
    target = device if device is not None else getattr(train_x, "device", "cpu")
    train, test = torch.as_tensor(train_x), torch.as_tensor(test_x)
    if train.ndim != 2 or test.ndim != 2 or train.shape[1] != test.shape[1]:
        raise InputError(
            "train_x and test_x must be [n, d] and [m, d], got "
            f"{tuple(train.shape)} and {tuple(test.shape)}"
        )
    if not 1 <= k <= len(train) or not len(test):
        raise InputError(f"k must lie in 1..{len(train)} and test_x hold rows, got k = {k}")
    if temperature is not None and not temperature > 0:
        raise InputError(f"temperature must be positive or None, got {temperature}")
    limit = int(np.iinfo(np.int64).max)
    labels = label_vector(train_y, len(train), "train_y", n_classes=limit)
    test_labels = label_vector(test_y, len(test), "test_y", n_classes=limit)
    classes, codes = np.unique(labels, return_inverse=True)
    votes_of = torch.from_numpy(codes).to(target)
    predictions = []
    for queries in torch.split(test, _QUERIES_PER_BLOCK):
        similarity, neighbour = _nearest(_unit_rows(queries, target), train, k)
        if temperature is None:
            weight = torch.ones_like(similarity)
        else:
            # Less the best similarity: the same ratios, and no overflow at small temperatures.
            weight = ((similarity - similarity.amax(1, keepdim=True)) / temperature).exp()
        votes = torch.zeros(len(queries), len(classes), device=weight.device)
        votes.scatter_add_(1, votes_of[neighbour], weight)
        predictions.append(classes[votes.cpu().numpy().argmax(1)])
    guess = np.concatenate(predictions)
    return KnnResult(
        top1=top1_accuracy(test_labels, guess),
        mean_per_class=mean_per_class_accuracy(test_labels, guess),
        k=k,
        temperature=temperature,
        metric="cosine",
        n_train=len(train),
        n_test=len(test),
        dim=train.shape[1],
    )


def _nearest(queries: Tensor, train: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k highest similarities float32 [b, k] and their rows int64 [b, k]."""
    best = torch.empty(len(queries), 0, device=queries.device)
    rows = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for start in range(0, len(train), _ROWS_PER_BLOCK):
        block = _unit_rows(train[start : start + _ROWS_PER_BLOCK], queries.device)
        similarity, index = (queries @ block.T).topk(min(k, len(block)))
        best = torch.cat([best, similarity], 1)
        rows = torch.cat([rows, index + start], 1)
        if best.shape[1] > k:
            best, index = best.topk(k)
            rows = rows.gather(1, index)
    return best, rows


def _unit_rows(x: Tensor, device: torch.device | str) -> Tensor:
    rows = functional.normalize(x.to(device).float(), dim=1)
    if not bool(torch.isfinite(rows).all()):
        raise InputError("the features hold NaN or infinity; look at the network that made them")
    return rows
