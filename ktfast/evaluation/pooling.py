"""Frozen convolutional maps, average-pooled to about 9,600 values each, for linear probes.

The grids reproduce the published 9600/9216/9600/9600/9216 values of AlexNet's conv1..conv5: a
probe of a wide, shallow map then has as many inputs as one of a narrow, deep map.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ktfast.errors import InputError

PROBE_VALUES = 9600


class ConvModel(Protocol):
    """What a network must offer to be probed: the maps of named layers in one pass."""

    def features_all(self, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Return the map float [B, C, h, w] of each named layer."""
        ...


@runtime_checkable
class ImageFeed(Protocol):
    """The part of a feed that is used here: batches of images and their rows in the source."""

    @property
    def n(self) -> int:
        """How many images one epoch delivers."""
        ...

    def epoch(self, epoch: int, start: int = 0) -> Iterable[Any]:
        """Batches with `images` uint8 [B, S, S, 3] and `rows` int64 [B]."""
        ...


def pooled_size(channels: int, map_size: int) -> int:
    """Side of the largest square grid with channels * side * side <= 9,600, at most the map's.

    Parameters
    ----------
    channels : channels of the map.
    map_size : the map's side, in positions.

    Returns
    -------
    the side, at least 1.
    """
    if channels < 1 or map_size < 1:
        raise InputError(f"a map needs channels and positions, got {channels} and {map_size}")
    return max(1, min(map_size, math.isqrt(PROBE_VALUES // channels)))


def conv_features(
    model: ConvModel,
    images: NDArray[np.uint8] | Tensor | ImageFeed,
    layers: Sequence[str],
    *,
    prepare: Callable[[Tensor], Tensor],
    batch_size: int = 64,
    dtype: str = "float32",
    memory_budget: int = 4 << 30,
) -> dict[str, NDArray[Any]]:
    """Compute the pooled maps of several layers for all images in one pass.

    Parameters
    ----------
    model : network whose `features_all(x, layers)` gives maps; a Module is put in evaluation mode
        for the pass and back afterwards.
    images : uint8 [N, S, S, 3], or a feed that delivers every row 0 .. n - 1 of its source once
        in an epoch, in any order.
    layers : names of the layers.
    prepare : turns uint8 [B, S, S, 3] into the network's input float [B, 3, S', S'], with the
        crop and the normalisation that training used; called on the model's device.
    batch_size : images in a pass when `images` is an array; a feed has its own.
    dtype : "float32" or "float16", of the result.
    memory_budget : bytes the result may take.

    Returns
    -------
    for each layer an array [N, C * side * side] whose row i is image i (or the source's row i).

    Raises
    ------
    InputError : the result does not fit into the budget, a feed lost or repeated an image, or a
        map is not finite.
    """
    n, batches = _batches(images, batch_size)
    if dtype not in ("float32", "float16"):
        raise InputError(f'dtype must be "float32" or "float16", got {dtype!r}')
    training = bool(getattr(model, "training", False))
    device = None
    if isinstance(model, torch.nn.Module):
        model.eval()
        device = next((parameter.device for parameter in model.parameters()), None)
    result: dict[str, NDArray[Any]] = {}
    seen = np.zeros(n, dtype=bool)
    try:
        for pixels, rows in batches:
            if rows.size and (rows.min() < 0 or rows.max() >= n or seen[rows].any()):
                raise InputError(f"the feed must deliver each of its {n} images once")
            pooled = _pooled(
                model, prepare(pixels if device is None else pixels.to(device)), layers
            )
            if not result:
                result = _allocate(pooled, n, dtype, memory_budget)
            for layer, values in pooled.items():
                result[layer][rows] = _finite(values.to(getattr(torch, dtype)), layer)
            seen[rows] = True
    finally:
        if isinstance(model, torch.nn.Module):
            model.train(training)
    if not seen.all():
        raise InputError(f"the feed delivered {int(seen.sum())} of its {n} images")
    return result


def _batches(
    images: NDArray[np.uint8] | Tensor | ImageFeed, batch_size: int
) -> tuple[int, Iterator[tuple[Tensor, NDArray[np.int64]]]]:
    """Return the number of images and batches of (uint8 [B, S, S, 3], rows int64 [B])."""
    if isinstance(images, ImageFeed):
        feed = images
        return feed.n, ((b.images, np.asarray(b.rows.cpu())) for b in feed.epoch(0))
    pixels = torch.as_tensor(images)
    if pixels.ndim != 4 or pixels.shape[-1] != 3 or pixels.dtype != torch.uint8:
        raise InputError(
            f"images must be uint8 [N, S, S, 3], got {pixels.dtype} {tuple(pixels.shape)}"
        )
    if not len(pixels):
        raise InputError("images is empty: there is nothing to compute features of")
    starts = range(0, len(pixels), batch_size)
    parts = ((pixels[s : s + batch_size], s) for s in starts)
    return len(pixels), ((part, np.arange(s, s + len(part))) for part, s in parts)


@torch.inference_mode()
def _pooled(model: ConvModel, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    pooled = {}
    for layer, values in model.features_all(x, layers).items():
        side = pooled_size(values.shape[1], min(values.shape[2:]))
        pooled[layer] = functional.adaptive_avg_pool2d(values.float(), side).flatten(1)
    return pooled


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
