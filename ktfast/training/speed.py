"""What bounds a training: the feed or the network, and how far the network is from the peak.

Measured when a training starts, in a second or two: the feed alone, the work of an image, and a
large matrix product in the training's precision.
"""

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from ktfast.images.feeds.base import Batch, Feed
from ktfast.training.gradients import Gradients, Remembered

FEED_SECONDS = 2.0
PEAK_SECONDS = 0.1
_SIDES = {"cuda": 8192, "cpu": 1024}  # of the product: large enough to be bound by arithmetic


@dataclass(frozen=True)
class Ceilings:
    """What feed and device can do, each alone.

    Attributes
    ----------
    feed_rate : images a second that the feed delivers to nobody.
    image_flops : floating-point operations of one image, forward and backward.
    peak_flops : operations a second of a large matrix product in the training's precision.
    """

    feed_rate: float
    image_flops: float
    peak_flops: float

    def bounds(self, rate: float, waited: float) -> "SpeedBounds":
        """What bounds a training of `rate` images a second that waited for a share of its time."""
        return SpeedBounds(
            images_per_second=rate,
            feed_ceiling=self.feed_rate,
            compute_ceiling=rate / max(1 - waited, 1e-9),
            image_gflops=self.image_flops / 1e9,
            flop_utilization=rate * self.image_flops / self.peak_flops,
            peak_tflops=self.peak_flops / 1e12,
        )


@dataclass(frozen=True)
class SpeedBounds:
    """How fast a training was, and how fast it could have been.

    Attributes
    ----------
    images_per_second : achieved.
    feed_ceiling : images a second if computing took no time.
    compute_ceiling : images a second if the feed were never waited for.
    image_gflops : 10^9 operations of an image, forward and backward.
    flop_utilization : share of the peak that the network's products and convolutions reached.
    peak_tflops : that peak, measured, 10^12 operations a second.
    """

    images_per_second: float
    feed_ceiling: float
    compute_ceiling: float
    image_gflops: float
    flop_utilization: float
    peak_tflops: float

    @property
    def bound_by(self) -> str:
        """ "feed" or "compute", whichever ceiling is lower."""
        return "feed" if self.feed_ceiling < self.compute_ceiling else "compute"

    def text(self) -> str:
        """One line, such as `bound by compute (feed alone 2,940 images/s), 81 % of peak`."""
        other, ceiling = (
            ("network", self.compute_ceiling)
            if self.bound_by == "feed"
            else ("feed", self.feed_ceiling)
        )
        return (
            f"bound by {self.bound_by} ({other} alone {ceiling:,.0f} images/s),"
            f" {self.flop_utilization:.0%} of peak"
        )

    def summary(self) -> str:
        """What is said when a training ends: all that could have bounded it, and what was."""
        return (
            f"{self.images_per_second:,.0f} images/s, bound by {self.bound_by}: feed alone"
            f" {self.feed_ceiling:,.0f}, network alone {self.compute_ceiling:,.0f} images/s;"
            f" {self.flop_utilization:.0%} of the measured peak of {self.peak_tflops:.3g} TFLOP/s"
        )


def matmul_peak(
    device: torch.device, dtype: torch.dtype, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Operations a second of a large product of matrices, the best of a few, by a clock."""
    side = _SIDES[device.type]
    matrix = torch.ones(side, side, device=device, dtype=dtype)
    product = matrix @ matrix
    wait_for(device)
    least, until = math.inf, time.perf_counter() + PEAK_SECONDS
    while time.perf_counter() < until:
        began = clock()
        torch.mm(matrix, matrix, out=product)
        wait_for(device)
        least = min(least, clock() - began)
    return 2 * side**3 / least


def wait_for(device: torch.device) -> None:
    """Wait until a device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def feed_rate(feed: Feed, epoch: int, batches: int) -> tuple[float, Batch]:
    """Images a second of a feed whose batches nobody works on, and its first batch.

    The first batch goes a longer way through the feed: only if it is alone is it counted.

    Parameters
    ----------
    feed : no epoch of it may be running.
    epoch : whose batches are read.
    batches : to read at most, after the first.
    """
    with contextlib.closing(_batches(feed, epoch)) as reading:
        began = time.perf_counter()
        first = next(reading)
        wait_for(first.pool.device)
        rate = len(first) / (time.perf_counter() - began)
        began, images = time.perf_counter(), 0
        for batch in itertools.islice(reading, batches):
            wait_for(batch.pool.device)
            images += len(batch)
            rate = images / (time.perf_counter() - began)
            if time.perf_counter() - began > FEED_SECONDS:
                break
    return rate, first


def _batches(feed: Feed, epoch: int) -> Generator[Batch]:
    yield from feed.epoch(epoch)


def _convolution_backward_flops(
    gradient: Sequence[int],
    x: Sequence[int],
    weight: Sequence[int],
    *options: Any,
    out_shape: Any = None,
) -> int:
    """As many operations as forward for each of the gradients of maps and weights.

    torch's own count takes the weights' gradient of grouped convolutions for one of full ones.
    """
    to_maps, to_weights, _ = options[-1]
    return 2 * math.prod(gradient) * math.prod(weight[1:]) * int(to_maps + to_weights)


_CONVOLUTION_BACKWARD = {torch.ops.aten.convolution_backward: _convolution_backward_flops}


def image_flops(gradients: Gradients, batch: Batch, epoch: int) -> float:
    """Operations of an image's forward and backward pass, counted on two images of a batch.

    Two, as a puzzle may want another image's tiles. Model and generators are as before.
    """
    few = batch.part(0, 2)
    model = gradients.task.model
    before = Remembered(model, gradients.device)
    flops = flops_of(lambda: gradients.add(few, epoch))
    model.zero_grad(set_to_none=True)
    before.restore()
    return flops / len(few)


def flops_of(work: Callable[[], object]) -> int:
    """Operations of the products and convolutions that a function asks torch for."""
    with FlopCounterMode(display=False, custom_mapping=_CONVOLUTION_BACKWARD) as counter:
        work()
    return int(counter.get_total_flops())
