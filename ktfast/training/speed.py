"""Measure whether the feed or the network bounds a training's speed, and the share of the peak.

Before the first step, a training measures the rate of the feed alone, the operations per image, and
the speed of a large matrix product in the training's precision. On a CPU, the training also
measures the seconds per image, to forecast its own duration.
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
"""Seconds after which the measurement of a feed ends with the present batch."""
PEAK_SECONDS = 0.1
"""Seconds for which the matrix product is repeated."""
MUCH_FASTER = 100
"""A ceiling above this multiple of the achieved rate is printed as "over 100 times as fast"."""
TRIAL_SECONDS = 1.0
"""If a trial took fewer seconds, a trial with more images follows."""
SHORT_SECONDS = 20.0
"""A training that is expected to take fewer seconds needs no better forecast."""
# Side of the matrices: large enough that arithmetic, and not memory, bounds their product.
_SIDES = {"cuda": 8192, "cpu": 1024}


@dataclass(frozen=True)
class Ceilings:
    """Speed of the feed and of the device, each alone.

    Attributes
    ----------
    feed_rate : float
        Images per second that the feed delivers if no work is done on them.
    image_flops : float
        Floating-point operations of one image, forward and backward.
    peak_flops : float
        Operations per second of a large matrix product in the training's precision.
    """

    feed_rate: float
    image_flops: float
    peak_flops: float

    def bounds(self, rate: float, waited: float) -> "SpeedBounds":
        """Compute the speed of a training and its ceilings.

        Parameters
        ----------
        rate : float
            Images per second of the training.
        waited : float
            Share of the time in which the device waited for the feed.

        Returns
        -------
        bounds : SpeedBounds
            The achieved speed and its ceilings.
        """
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
    """The speed of a training, and the ceilings that bound the speed.

    Attributes
    ----------
    images_per_second : float
        Achieved rate.
    feed_ceiling : float
        Images per second if computing took no time.
    compute_ceiling : float
        Images per second if the device never waited for the feed.
    image_gflops : float
        Operations of one image, forward and backward, in units of 10^9.
    flop_utilization : float
        Share of the measured peak that the network's products and convolutions reached.
    peak_tflops : float
        Measured peak, in units of 10^12 operations per second.
    """

    images_per_second: float
    feed_ceiling: float
    compute_ceiling: float
    image_gflops: float
    flop_utilization: float
    peak_tflops: float

    @property
    def bound_by(self) -> str:
        """The lower ceiling: "feed" or "compute"."""
        return "feed" if self.feed_ceiling < self.compute_ceiling else "compute"

    def text(self) -> str:
        """One line, such as `bound by compute (feed alone 2,940 images/s), 81 % of peak`."""
        other, ceiling = (
            ("network", self.compute_ceiling)
            if self.bound_by == "feed"
            else ("feed", self.feed_ceiling)
        )
        return (
            f"bound by {self.bound_by} ({other} alone {self._spelled(ceiling)}),"
            f" {self.flop_utilization:.0%} of peak"
        )

    def _spelled(self, ceiling: float) -> str:
        """Spell a ceiling. The exact value does not matter far above the achieved rate."""
        if ceiling > MUCH_FASTER * self.images_per_second:
            return f"over {MUCH_FASTER} times as fast"
        return f"{ceiling:,.0f} images/s"

    def _spelled_peak(self) -> str:
        if self.peak_tflops < 1:
            return f"{1000 * self.peak_tflops:.3g} GFLOP/s"
        return f"{self.peak_tflops:.3g} TFLOP/s"

    def summary(self) -> str:
        """The line at the end of a training: speed, what bounded the speed, both ceilings, peak."""
        return (
            f"{self.images_per_second:,.0f} images/s, bound by {self.bound_by}: feed alone"
            f" {self._spelled(self.feed_ceiling)}, network alone"
            f" {self._spelled(self.compute_ceiling)};"
            f" {self.flop_utilization:.0%} of the measured peak of {self._spelled_peak()}"
        )


def matmul_peak(
    device: torch.device, dtype: torch.dtype, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Operations per second of a large matrix product, the best of several repetitions.

    Parameters
    ----------
    device : torch.device
        Device of the matrices.
    dtype : torch.dtype
        Type of the matrices.
    clock : callable
        Gives the time in seconds.

    Returns
    -------
    flops : float
        Floating-point operations per second.
    """
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
    """Wait until a device has finished all work that the host gave to it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def feed_rate(feed: Feed, epoch: int, batches: int) -> tuple[float, Batch]:
    """Measure the rate of a feed while no work is done on its batches.

    The first batch takes longer, because the feed is still empty. The rate therefore leaves out the
    first batch, unless there is only one batch.

    Parameters
    ----------
    feed : Feed
        A feed that is not running an epoch.
    epoch : int
        Epoch whose batches are read.
    batches : int
        Largest number of batches to read after the first one.

    Returns
    -------
    rate : float
        Images per second.
    first : Batch
        The first batch.
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
    """The batches of an epoch, as a generator that can be closed."""
    yield from feed.epoch(epoch)


def _convolution_backward_flops(
    gradient: Sequence[int],
    x: Sequence[int],
    weight: Sequence[int],
    *options: Any,
    out_shape: Any = None,
) -> int:
    """Operations of a convolution's backward pass.

    The gradient of the maps takes as many operations as the forward pass, and so does the gradient
    of the weights. torch's own count is too high for the weights of grouped convolutions.
    """
    to_maps, to_weights, _ = options[-1]
    return 2 * math.prod(gradient) * math.prod(weight[1:]) * int(to_maps + to_weights)


_CONVOLUTION_BACKWARD = {torch.ops.aten.convolution_backward: _convolution_backward_flops}


def image_flops(gradients: Gradients, batch: Batch, epoch: int) -> float:
    """Operations per image, forward and backward; leaves model and generators unchanged.

    The operations are counted on two images of the batch, because a puzzle may hold a tile of
    another image.
    """
    few = batch.part(0, 2)
    model = gradients.task.model
    before = Remembered(model, gradients.device)
    flops = flops_of(lambda: gradients.add(few, epoch))
    model.zero_grad(set_to_none=True)
    before.restore()
    return flops / len(few)


def image_seconds(gradients: Gradients, batch: Batch, epoch: int, images: int) -> float:
    """Seconds that the gradient of one image takes; leaves model and generators unchanged.

    A small trial is slower per image than a large batch. A trial of less than `TRIAL_SECONDS` is
    therefore repeated with twice the images, up to half a batch. The trials also end if the whole
    training would take less than `SHORT_SECONDS`.

    Parameters
    ----------
    gradients : Gradients
        Computes gradients of the training.
    batch : Batch
        The first batch of the training.
    epoch : int
        Epoch of the batch.
    images : int
        Images that the training has left.

    Returns
    -------
    seconds : float
        Seconds per image.
    """
    model = gradients.task.model
    # Batch-norm may refuse one image alone.
    most = max(min(2, len(batch)), min(len(batch) // 2, gradients.micro_batch))
    before = Remembered(model, gradients.device)
    size = min(2, most)
    while True:
        began = time.perf_counter()
        gradients.add(batch.part(0, size), epoch)
        model.zero_grad(set_to_none=True)
        wait_for(gradients.device)
        seconds = time.perf_counter() - began
        if size == most or seconds > TRIAL_SECONDS or seconds / size * images < SHORT_SECONDS:
            break
        size = min(2 * size, most)
    before.restore()
    return seconds / size


def flops_of(work: Callable[[], object]) -> int:
    """Operations of the matrix products and convolutions of torch that a function runs."""
    with FlopCounterMode(display=False, custom_mapping=_CONVOLUTION_BACKWARD) as counter:
        work()
    return int(counter.get_total_flops())
