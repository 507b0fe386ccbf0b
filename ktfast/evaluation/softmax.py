"""Softmax regression on fixed features: SGD over several weight decays at once, and L-BFGS.

Several decays share every product with the features: a matrix of 101 columns leaves most of a
core idle, three of them side by side cost little more than one (59 against 83 GFLOP/s a core).
"""

import math
from collections.abc import Sequence
from typing import Any

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
    """Mean squared Euclidean norm of the rows of x float [n, d]; 1.0 if all of them are zero."""
    squares = (float(block.float().square().sum()) for block in torch.split(x, _ROWS_PER_BLOCK))
    return sum(squares) / len(x) or 1.0


def fit_sgd(
    x: Tensor,
    y: Tensor,
    rows: Tensor,
    n_classes: int,
    weight_decays: Sequence[float],
    *,
    learning_rate: float,
    epochs: int,
    batch_size: int,
    seed: int,
) -> tuple[Tensor, Tensor, int]:
    """Fit one softmax regression per weight decay by SGD with momentum 0.9 and three drops.

    Parameters
    ----------
    x : float32 or float16 [n, d]; a batch is converted to float32.
    y : int64 [n].
    rows : int64 [r], the rows of x to train on.
    n_classes : number of classes c.
    weight_decays : w values.
    learning_rate, epochs, batch_size : of SGD; the rate drops by 10 at 2/7, 4/7, 6/7 of the steps.
    seed : of the row order; the same order serves all decays.

    Returns
    -------
    weights float32 [w, d, c], biases float32 [w, c], passes over the rows.

    Raises
    ------
    InputError : the loss is not finite any more.
    """
    n_decays = len(weight_decays)
    # [d, w * c]: the decays stand side by side.
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
            # d(mean cross-entropy)/d(scores) = (softmax - one hot) / rows
            slope = functional.softmax(scores, dim=-1)
            slope.sub_(functional.one_hot(y[batch], n_classes).unsqueeze(1)).div_(len(batch))
            slope = slope.view(len(batch), -1)
            weight_speed.addmm_(inputs.T, slope, beta=_MOMENTUM).addcmul_(weights, decay)
            bias_speed.mul_(_MOMENTUM).add_(slope.sum(0))
            weights.sub_(weight_speed, alpha=rate)
            bias.sub_(bias_speed, alpha=rate)
            step += 1
    if not bool(torch.isfinite(weights).all()):
        raise InputError(
            f"the linear probe diverged at learning rate {learning_rate:g}; give a smaller "
            'learning_rate or use optimiser="lbfgs"'
        )
    split = weights.view(-1, n_decays, n_classes).permute(1, 0, 2).contiguous()
    return split, bias.view(n_decays, n_classes), epochs


def fit_lbfgs(
    x: Tensor,
    y: Tensor,
    rows: Tensor,
    n_classes: int,
    weight_decays: Sequence[float],
    *,
    max_iterations: int,
) -> tuple[Tensor, Tensor, int]:
    """Fit one softmax regression per weight decay by full-batch L-BFGS with strong Wolfe steps.

    The decays run from the strongest to the weakest, each from the solution before it.

    Parameters
    ----------
    x, y, rows, n_classes, weight_decays : as for `fit_sgd`.
    max_iterations : for each decay; stops earlier when no gradient entry exceeds 1e-6.

    Returns
    -------
    weights float32 [w, d, c], biases float32 [w, c], passes over the rows (loss evaluations of
    the decay that took most).
    """
    data, labels = x[rows], y[rows]
    weights = torch.zeros(x.shape[1], n_classes, device=x.device, requires_grad=True)
    bias = torch.zeros(n_classes, device=x.device, requires_grad=True)
    solutions: dict[float, tuple[Tensor, Tensor]] = {}
    most_passes = 0
    for decay in sorted(set(weight_decays), reverse=True):
        solver = torch.optim.LBFGS(
            [weights, bias], max_iter=max_iterations, max_eval=2 * max_iterations,
            tolerance_grad=1e-6, tolerance_change=1e-9, line_search_fn="strong_wolfe",
        )  # fmt: skip
        passes = 0

        def loss_and_gradient(decay: float = decay, solver: Any = solver) -> float:
            nonlocal passes
            passes += 1
            solver.zero_grad()
            # One graph per block keeps the memory at one block of scores.
            total = 0.0
            for block, label in zip(
                torch.split(data, _ROWS_PER_BLOCK),
                torch.split(labels, _ROWS_PER_BLOCK),
                strict=True,
            ):
                scores = torch.addmm(bias, block.float(), weights)
                loss = functional.cross_entropy(scores, label, reduction="sum") / len(labels)
                loss.backward()  # type: ignore[no-untyped-call]
                total += float(loss.detach())
            penalty = decay / 2 * weights.square().sum()
            penalty.backward()  # type: ignore[no-untyped-call]
            return total + float(penalty.detach())

        solver.step(loss_and_gradient)  # type: ignore[no-untyped-call]
        most_passes = max(most_passes, passes)
        solutions[decay] = (weights.detach().clone(), bias.detach().clone())
    chosen = [solutions[decay] for decay in weight_decays]
    return torch.stack([w for w, _ in chosen]), torch.stack([b for _, b in chosen]), most_passes


def predict(x: Tensor, weights: Tensor, bias: Tensor) -> NDArray[np.int64]:
    """Class with the highest softmax score, averaged over crops; ties go to the lowest class.

    Parameters
    ----------
    x : float [m, d] or [m, crops, d].
    weights, bias : float32 [d, c] and [c].

    Returns
    -------
    int64 [m].
    """
    classes = []
    for block in torch.split(x, _ROWS_PER_BLOCK):
        scores = functional.softmax(block.float() @ weights + bias, dim=-1)
        if block.ndim == 3:
            scores = scores.mean(1)
        classes.append(scores.cpu().numpy().argmax(1))
    return np.concatenate(classes).astype(np.int64)
