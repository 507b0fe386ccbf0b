"""Initialise layers from data, so that every unit has the same spread (Krähenbühl et al. 2016).

New layers above trained layers read maps of any scale. Without this initialisation, the first
thousands of steps only scale the outputs of the new layers.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

CENTER = 0.1
"""Mean of every unit before its ReLU: a little more than half of the values are positive."""


def fit_to_data(
    model: nn.Module, layers: Sequence[nn.Module], forward: Callable[[], object]
) -> None:
    """Scale and shift layers, in place, so that each unit has mean 0.1 and standard deviation 1.

    Parameters
    ----------
    model : nn.Module
        The network. The function puts the network into evaluation mode and back.
    layers : sequence of nn.Module
        Convolutions and fully connected layers with biases, in the order in which they run. A unit
        whose output does not vary stays unchanged.
    forward : callable
        Runs the network on a sample of the data. The function calls `forward` once for each layer.
    """
    was_training = model.training
    model.eval()
    for layer in layers:
        mean, deviation = _moments_of(layer, forward)
        varies = deviation > 0
        scale = torch.where(varies, 1 / deviation.where(varies, 1), 1)
        weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
        with torch.no_grad():
            weight.mul_(scale.view(-1, *[1] * (weight.ndim - 1)))
            bias.copy_(torch.where(varies, (bias - mean) * scale + CENTER, bias))
    model.train(was_training)


def rescale_to_data(
    model: nn.Module, layers: Sequence[nn.Module], forward: Callable[[], object]
) -> None:
    """Scale trained layers, in place, so that the output of each layer has standard deviation 1.

    Every layer gets one factor. The biases get the factors of all layers before too, so that the
    network computes what it computed, times a positive number, if only convolutions, ReLU and
    pooling lie between the layers. Local response normalisation changes the outputs a little more.

    Parameters
    ----------
    model : nn.Module
        The network. The function puts the network into evaluation mode and back.
    layers : sequence of nn.Module
        Convolutions and fully connected layers with biases, in the order in which they run. A layer
        whose output does not vary stays unchanged.
    forward : callable
        Runs the network on a sample of the data. The function calls `forward` once for each layer.
    """
    was_training = model.training
    model.eval()
    before = 1.0
    for layer in layers:
        weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
        with torch.no_grad():
            bias.mul_(before)
        mean, deviation = _moments_of(layer, forward)
        # The spread over all units: the mean of their variances, and the variance of their means.
        spread = float((deviation.square().mean() + mean.var(correction=0)).sqrt())
        if spread > 0:
            with torch.no_grad():
                weight.div_(spread)
                bias.div_(spread)
            before /= spread
    model.train(was_training)


def _moments_of(layer: nn.Module, forward: Callable[[], object]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every unit of a layer, float32 [units]."""
    moments = _Moments()
    hook = layer.register_forward_hook(moments.add)
    try:
        with torch.no_grad():
            forward()
    finally:
        hook.remove()
    return moments.read()


class _Moments:
    """Mean and standard deviation of every unit over the outputs of a layer."""

    def __init__(self) -> None:
        self._first = torch.empty(0)
        self._sums: list[Tensor] = []
        self._n = 0

    def add(self, layer: nn.Module, inputs: Any, output: Tensor) -> None:
        """Add the output of a forward pass, [B, units] or [B, units, h, w]."""
        flat = output.double().movedim(1, -1).reshape(-1, output.shape[1])
        if not self._sums:
            # Values are centred on the first mean, so that a large mean costs no precision.
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
