"""Softmax regression on fixed features, trained by SGD with several weight decays at once.

One matrix product with the features computes the scores of all weight decays side by side. A
product with the few columns of one decay would not use a core fully.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ktfast.errors import InputError

_ROWS_PER_BLOCK = 4096
_MOMENTUM = 0.9
_DROPS = (2 / 7, 4 / 7, 6 / 7)
_DROP_FACTOR = 0.1


def mean_square_norm(x: Tensor) -> float:
    """Mean squared Euclidean norm of the rows of x float [n, d]; 1.0 if all rows are zero."""
    squares = (float(block.float().square().sum()) for block in torch.split(x, _ROWS_PER_BLOCK))
    return sum(squares) / len(x) or 1.0


def fit_sgd(
    x: Tensor,
    y: Tensor,
    rows: Tensor,
    *,
    n_classes: int,
    weight_decays: Sequence[float],
    learning_rate: float,
    epochs: int,
    batch_size: int,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Fit one softmax regression per weight decay.

    SGD uses momentum 0.9. The learning rate drops by a factor of 10 at 2/7, 4/7 and 6/7 of the
    steps. The loss is the mean cross-entropy + decay / 2 * |W|^2; the bias is not decayed.

    Parameters
    ----------
    x : Tensor, float32 or float16 [n, d]
        Features. Each batch is converted to float32.
    y : Tensor, int64 [n]
        Classes.
    rows : Tensor, int64 [r]
        Rows of `x` to train on.
    n_classes : int
        Number of classes, c.
    weight_decays : sequence of float
        The w weight decays.
    learning_rate : float
        Initial learning rate.
    epochs : int
        Passes over the rows.
    batch_size : int
        Rows per step.
    seed : int
        Seed of the row order. All decays see the same order.

    Returns
    -------
    weights : Tensor, float32 [w, d, c]
        Weights for each decay.
    biases : Tensor, float32 [w, c]
        Biases for each decay.

    Raises
    ------
    InputError
        The weights became NaN or infinite.
    """
    n_decays = len(weight_decays)
    # [d, w * c]: the weights of the decays stand side by side.
    weights = torch.zeros(x.shape[1], n_decays * n_classes, device=x.device)
    bias = torch.zeros(n_decays * n_classes, device=x.device)
    weight_speed, bias_speed = torch.zeros_like(weights), torch.zeros_like(bias)
    decay = torch.tensor(weight_decays, device=x.device).repeat_interleave(n_classes)
    generator = torch.Generator().manual_seed(seed)
    n_steps = epochs * math.ceil(len(rows) / batch_size)
    step = 0
    for _ in range(epochs):
        order = rows[torch.randperm(len(rows), generator=generator).to(rows.device)]
        for batch in torch.split(order, batch_size):
            passed = sum(step >= drop * n_steps for drop in _DROPS)
            rate = learning_rate * _DROP_FACTOR**passed
            inputs = x[batch].float()
            scores = torch.addmm(bias, inputs, weights).view(len(batch), n_decays, n_classes)
            slope = _slope(scores, y[batch]).view(len(batch), -1)
            weight_speed.addmm_(inputs.T, slope, beta=_MOMENTUM).addcmul_(weights, decay)
            bias_speed.mul_(_MOMENTUM).add_(slope.sum(0))
            weights.sub_(weight_speed, alpha=rate)
            bias.sub_(bias_speed, alpha=rate)
            step += 1
    if not bool(torch.isfinite(weights).all()):
        raise InputError(
            f"the linear probe diverged at learning rate {learning_rate:g}; give a smaller "
            "learning_rate"
        )
    split = weights.view(-1, n_decays, n_classes).permute(1, 0, 2).contiguous()
    return split, bias.view(n_decays, n_classes)


def _slope(scores: Tensor, labels: Tensor) -> Tensor:
    """Derivative of the mean cross-entropy by scores [rows, w, c]: (softmax - one hot) / rows."""
    slope = functional.softmax(scores, dim=-1)
    truth = functional.one_hot(labels, scores.shape[-1]).unsqueeze(1)
    return slope.sub_(truth).div_(len(scores))


def predict(x: Tensor, weights: Tensor, bias: Tensor) -> NDArray[np.int64]:
    """Class with the highest softmax score of each row; of equal scores, the lowest class.

    Parameters
    ----------
    x : Tensor, float [m, d]
        Features.
    weights : Tensor, float32 [d, c]
        Weights.
    bias : Tensor, float32 [c]
        Biases.

    Returns
    -------
    array, int64 [m]
        Classes.
    """
    classes = []
    for block in torch.split(x, _ROWS_PER_BLOCK):
        scores = functional.softmax(block.float() @ weights + bias, dim=-1)
        classes.append(scores.cpu().numpy().argmax(1))
    return np.concatenate(classes).astype(np.int64)
