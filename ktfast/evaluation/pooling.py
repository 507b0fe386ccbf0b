"""Features for probes: maps of frozen convolutional layers, average-pooled to about 9,600 values.

Pooling gives the probes of all layers about the same number of inputs. For AlexNet's conv1 .. conv5
the pooled sizes are the published ones: 9600, 9216, 9600, 9600 and 9216 values.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ktfast.errors import InputError

PROBE_VALUES = 9600
"""Largest number of pooled values of a layer."""


class ConvModel(Protocol):
    """A network that can be probed: it returns the maps of named layers in one pass."""

    def features_all(self, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Return the map float [B, C, h, w] of each named layer."""
        ...


class ImageFeed(Protocol):
    """A feed of images: the part of `ktfast.images.feeds.base.Feed` that this file uses."""

    @property
    def n(self) -> int:
        """Number of images in one epoch."""
        ...

    def epoch(self, epoch: int, start: int = 0) -> Iterable[Any]:
        """Batches with `images` uint8 [B, S, S, 3] and `rows` int64 [B]."""
        ...


def pooled_size(channels: int, map_size: int) -> int:
    """Side of the largest square grid with channels * side * side <= 9,600.

    Parameters
    ----------
    channels : int
        Channels of the map.
    map_size : int
        Side of the map; the grid is not larger than the map.

    Returns
    -------
    int
        Side of the grid, at least 1.

    Raises
    ------
    InputError
        `channels` or `map_size` is less than 1.
    """
    if channels < 1 or map_size < 1:
        raise InputError(f"channels and map_size must be at least 1, got {channels} and {map_size}")
    return max(1, min(map_size, math.isqrt(PROBE_VALUES // channels)))


def conv_features(
    model: ConvModel,
    images: ImageFeed,
    layers: Sequence[str],
    *,
    prepare: Callable[[Tensor], Tensor],
    dtype: str = "float32",
    memory_budget: int = 4 << 30,
) -> dict[str, NDArray[Any]]:
    """Compute the pooled maps of several layers for all images in one pass.

    Parameters
    ----------
    model : ConvModel
        Network to probe. A torch Module runs in evaluation mode; its mode is restored afterwards.
    images : ImageFeed
        Feed whose epoch delivers every row 0 .. n - 1 of its source once, in any order.
    layers : sequence of str
        Names of the layers.
    prepare : callable
        Turns images uint8 [B, S, S, 3] into the network's input float [B, 3, S', S']. It must crop
        and normalise the images as in the network's training. It runs on the model's device.
    dtype : {"float32", "float16"}
        Dtype of the result.
    memory_budget : int
        Largest size of the result in bytes.

    Returns
    -------
    dict of str to array [n, C * side * side]
        Features by layer. Row i belongs to row i of the feed's source.

    Raises
    ------
    InputError
        The result exceeds the budget, the feed lost or repeated an image, or a map is not finite.
    """
    n = images.n
    if dtype not in ("float32", "float16"):
        raise InputError(f'dtype must be "float32" or "float16", got {dtype!r}')
    result: dict[str, NDArray[Any]] = {}
    seen = np.zeros(n, dtype=bool)
    with _evaluating(model) as device:
        for batch in images.epoch(0):
            pixels, rows = batch.images, np.asarray(batch.rows.cpu())
            if rows.size and (rows.min() < 0 or rows.max() >= n or seen[rows].any()):
                raise InputError(
                    f"the feed must deliver each of its {n} images once; it repeated an image"
                )
            pooled = _pooled(
                model, prepare(pixels if device is None else pixels.to(device)), layers
            )
            if not result:
                result = _allocate(pooled, n, dtype, memory_budget)
            for layer, values in pooled.items():
                result[layer][rows] = _finite(values.to(getattr(torch, dtype)), layer)
            seen[rows] = True
    if not seen.all():
        raise InputError(
            f"the feed delivered {int(seen.sum())} of its {n} images; it must deliver all"
        )
    return result


@torch.inference_mode()
def _pooled(model: ConvModel, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    pooled = {}
    for layer, values in model.features_all(x, layers).items():
        side = pooled_size(values.shape[1], min(values.shape[2:]))
        pooled[layer] = functional.adaptive_avg_pool2d(values.float(), side).flatten(1)
    return pooled


@contextmanager
def _evaluating(model: ConvModel) -> Iterator[torch.device | None]:
    """Put a torch Module into evaluation mode for the block; yield its device."""
    if not isinstance(model, torch.nn.Module):
        yield None
        return
    training = model.training
    model.eval()
    try:
        yield next((parameter.device for parameter in model.parameters()), None)
    finally:
        model.train(training)


def _allocate(
    pooled: dict[str, Tensor], n: int, dtype: str, memory_budget: int
) -> dict[str, NDArray[Any]]:
    needed = sum(n * values.shape[1] for values in pooled.values()) * np.dtype(dtype).itemsize
    if needed > memory_budget:
        raise InputError(
            f"the features of {n} images at layers {', '.join(pooled)} take {needed} bytes in "
            f"{dtype}, more than memory_budget = {memory_budget}; probe fewer layers at a time, "
            'use dtype="float16", or raise the budget'
        )
    return {layer: np.empty((n, values.shape[1]), dtype) for layer, values in pooled.items()}


def _finite(values: Tensor, layer: str) -> NDArray[Any]:
    if not bool(torch.isfinite(values).all()):
        raise InputError(
            f"the features of layer {layer} do not fit into {values.dtype} or are NaN; "
            'use dtype="float32" and look at the weights'
        )
    return np.asarray(values.cpu())
