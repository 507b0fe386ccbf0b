"""Measures of clusters and features that need no true labels.

The measures use two clusterings, pseudo-labels, or the features of one or two networks. Compare
each value with the value of an untrained network on the same images.
"""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ktfast.errors import InputError
from ktfast.evaluation.accuracy import label_vector
from ktfast.evaluation.knn import knn_accuracy
from ktfast.ops.unit_rows import unit_rows

HELD_OUT = 0.2
"""Fraction of the images that `held_out_accuracy` holds out and classifies."""
_QUERIES_PER_BLOCK = 1024


def adjusted_rand_index(first: ArrayLike, second: ArrayLike) -> float:
    """Agreement of two clusterings of the same images, corrected for chance.

    The index counts the pairs of images that both clusterings put together or both keep apart
    (Hubert and Arabie, 1985). Renumbering the clusters does not change the index.

    Parameters
    ----------
    first, second : array, int [n]
        Cluster of each image.

    Returns
    -------
    float
        1 for equal clusterings, about 0 for independent ones. The index can be negative.

    Raises
    ------
    InputError
        An argument is no vector of integers, there is no image, or the lengths differ.
    """
    a, b = np.asarray(first), np.asarray(second)
    for name, vector in (("first", a), ("second", b)):
        if vector.ndim != 1 or not np.issubdtype(vector.dtype, np.integer):
            raise InputError(
                f"{name} must be a vector of integers, got {vector.dtype} {vector.shape}"
            )
    if len(a) != len(b) or not len(a):
        raise InputError(
            f"both clusterings must name a cluster for each image, got {len(a)} and {len(b)}"
        )
    from sklearn.metrics import adjusted_rand_score  # slow to import

    return float(adjusted_rand_score(a, b))


def held_out_accuracy(
    features: NDArray[Any] | Tensor,
    labels: ArrayLike,
    *,
    k: int,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> float:
    """Top-1 accuracy of pseudo-labels that nearest neighbours predict for held-out images.

    A fifth of the images, drawn at random, is held out. The k nearest of the other images vote on
    the label of each held-out image, as in `ktfast.evaluation.knn.knn_accuracy`.

    Parameters
    ----------
    features : array or Tensor, float32 or float16 [n, d]
        Features of the images, n >= 2.
    labels : array, int [n]
        Pseudo-label of each image, >= 0.
    k : int
        Number of neighbours. If fewer images can vote, all of them vote.
    seed : int
        Seed of the draw. The global random state does not change.
    device : torch.device or str, optional
        Where to compute. Default: the device of `features`.

    Returns
    -------
    float
        Accuracy in [0, 1].

    Raises
    ------
    InputError
        There are fewer than 2 images, a label is invalid, or a feature is NaN or infinite.
    """
    n = len(features)
    if n < 2:
        raise InputError(f"a held-out accuracy needs at least 2 images, got {n}")
    vector = label_vector(labels, n, "labels", n_classes=int(np.iinfo(np.int64).max))
    order = np.random.default_rng(seed).permutation(n)
    held, kept = np.split(order, [max(1, round(HELD_OUT * n))])
    rows = torch.as_tensor(features)
    train, test = (rows[torch.from_numpy(part)] for part in (kept, held))
    result = knn_accuracy(
        train, vector[kept], test, vector[held], k=min(k, len(kept)), device=device
    )
    return result.top1


def shared_neighbours(
    first: NDArray[Any] | Tensor,
    second: NDArray[Any] | Tensor,
    *,
    k: int,
    device: torch.device | str | None = None,
) -> float:
    """Mean fraction of the k nearest neighbours of an image that two feature sets share.

    Neighbours are the most similar other images by cosine similarity. Of equally similar images,
    the image with the lower row number comes first. Independent features share k / (n - 1) on
    average.

    Parameters
    ----------
    first : array or Tensor, float32 or float16 [n, d]
        Features of the images.
    second : array or Tensor, float32 or float16 [n, e]
        Other features of the same images.
    k : int
        Number of neighbours, at most n - 1.
    device : torch.device or str, optional
        Where to compute. Default: the CPU.

    Returns
    -------
    float
        Fraction in [0, 1].

    Raises
    ------
    InputError
        The two sets have different numbers of rows, k is out of range, or a feature is NaN or
        infinite.

    Notes
    -----
    The function needs memory for a few blocks of 1,024 x n similarities.
    """
    rows = [_finite_rows(x, device or "cpu") for x in (first, second)]
    n = len(rows[0])
    if len(rows[1]) != n:
        raise InputError(f"both feature sets need one row per image, got {n} and {len(rows[1])}")
    if not 1 <= k < n:
        raise InputError(f"k must lie in 1..{n - 1}, the number of other images, got {k}")
    shared = 0
    for start in range(0, n, _QUERIES_PER_BLOCK):
        near = [_neighbours(x, start, k) for x in rows]
        shared += int((near[0] & near[1]).sum())
    return shared / (n * k)


def effective_rank(
    features: NDArray[Any] | Tensor, *, device: torch.device | str | None = None
) -> float:
    """Number of directions that features use: the exponential of the spectrum's entropy.

    Roy and Vetterli (EUSIPCO 2007) define the rank; Garrido et al. (RankMe, ICML 2023) use it to
    compare self-supervised networks. The spectrum consists of the singular values of the centred
    rows, divided by their sum.

    Parameters
    ----------
    features : array or Tensor, float32 or float16 [n, d]
        Features of the images.
    device : torch.device or str, optional
        Where to compute. Default: the CPU.

    Returns
    -------
    float
        Rank from 1 to min(n - 1, d); 0 if all rows are equal. More images give a higher rank, so
        compare ranks of equally many images only.

    Raises
    ------
    InputError
        A feature is NaN or infinite.
    """
    rows = torch.as_tensor(features).to(device or "cpu").double()
    if rows.ndim != 2 or not len(rows):
        raise InputError(f"features must be [n, d] with n > 0, got {tuple(rows.shape)}")
    if not bool(torch.isfinite(rows).all()):
        raise InputError("the features hold NaN or infinity; look at the network that made them")
    peak = float(rows.abs().max())
    if peak == 0:
        return 0.0
    rows = rows / peak
    centered = rows - rows.mean(0)
    short = centered if len(rows) > rows.shape[1] else centered.T
    values = torch.linalg.eigvalsh(short.T @ short).flip(0).clamp(min=0)
    values = values[values > 1e-14 * rows.square().sum()]  # smaller values are rounding errors
    if not len(values):
        return 0.0
    share = values.sqrt() / values.sqrt().sum()
    return math.exp(float(-(share * share.log()).sum()))


def _finite_rows(x: NDArray[Any] | Tensor, device: torch.device | str) -> Tensor:
    rows: Tensor = unit_rows(torch.as_tensor(x).to(device))
    if rows.ndim != 2:
        raise InputError(f"features must be [n, d], got {tuple(rows.shape)}")
    if not bool(torch.isfinite(rows).all()):
        raise InputError("the features hold NaN or infinity; look at the network that made them")
    return rows


def _neighbours(rows: Tensor, start: int, k: int) -> Tensor:
    """Mark the k nearest other rows of a block of rows, bool [b, n]."""
    block = rows[start : start + _QUERIES_PER_BLOCK]
    similarity = block @ rows.T
    own = torch.arange(len(block), device=rows.device)
    similarity[own, own + start] = -torch.inf
    order = similarity.sort(dim=1, descending=True, stable=True).indices[:, :k]
    return torch.zeros_like(similarity, dtype=torch.bool).scatter_(1, order, value=True)
