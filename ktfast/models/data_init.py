"""First weights from data: every unit begins with the same spread (Krähenbühl et al. 2016).

New layers above trained ones see maps of any scale; without this the first thousands of steps only
bring their outputs to a useful size.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

CENTER = 0.1
"""Mean of every unit before its ReLU: a little more than half of them are on."""


def fit_to_data(
    model: nn.Module, layers: Sequence[nn.Module], forward: Callable[[], object]
) -> None:
    """Scale and shift layers, in place, so that each unit has mean 0.1 and deviation 1.

    Parameters
    ----------
    model : it is in evaluation mode meanwhile.
    layers : convolutions and fully connected layers with biases, in the order in which they run;
        a unit whose output does not vary is left as it is.
    forward : runs the model over a sample; called once for each layer.
    """
    was_training = model.training
    model.eval()
    for layer in layers:
        moments = _Moments()
        hook = layer.register_forward_hook(moments.add)
        try:
            with torch.no_grad():
                forward()
        finally:
            hook.remove()
        mean, deviation = moments.read()
        varies = deviation > 0
        scale = torch.where(varies, 1 / deviation.where(varies, 1), 1)
        weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
        with torch.no_grad():
            weight.mul_(scale.view(-1, *[1] * (weight.ndim - 1)))
            bias.copy_(torch.where(varies, (bias - mean) * scale + CENTER, bias))
    model.train(was_training)


class _Moments:
    """Mean and deviation of every unit over what a layer puts out."""

    def __init__(self) -> None:
        self._sums: list[Tensor] = []
        self._n = 0

    def add(self, layer: nn.Module, inputs: Any, output: Tensor) -> None:
        """Take in the output of a forward pass, [B, units] or [B, units, h, w]."""
        flat = output.double().movedim(1, -1).reshape(-1, output.shape[1])
        if not self._sums:
            # Sums are taken around the first mean, so that a spread far from zero stays exact.
            self._first = flat.mean(0)
            self._sums = [torch.zeros_like(self._first), torch.zeros_like(self._first)]
        centered = flat - self._first
        self._sums[0] += centered.sum(0)
        self._sums[1] += centered.square().sum(0)
        self._n += len(flat)

    def read(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, float32 [units]."""
        shift = self._sums[0] / self._n
        variance = (self._sums[1] / self._n - shift.square()).clamp_min(0)
        return (self._first + shift).float(), variance.sqrt().float()
