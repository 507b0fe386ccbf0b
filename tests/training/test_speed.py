"""What bounds a training: operations by hand, known ceilings, and the words for them."""

import time

import pytest
import torch

from ktfast.training.gradients import Gradients
from ktfast.training.speed import (
    Ceilings,
    SpeedBounds,
    feed_rate,
    image_flops,
    image_seconds,
    matmul_peak,
)
from support.toy_training import toy_feed, toy_task, weights_hash

CPU = torch.device("cpu")


def gradients_of(task) -> Gradients:
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    return Gradients(task, CPU, torch.float32, scaler, 12)


def test_the_work_of_an_image_by_hand():
    feed = toy_feed()
    task = toy_task(feed)  # an AlexNet with an eighth of the channels, on 40 px
    # Multiply-adds of the convolutions: output side^2 x kernel^2 x channels in (of a group) x out.
    conv = [8**2 * 11**2 * 3 * 16, 4**2 * 25 * 8 * 32, 2**2 * 9 * 32 * 48]
    conv += [2**2 * 9 * 24 * 48, 2**2 * 9 * 24 * 32]
    fully = [32 * 512, 512 * 512, 512 * 5]
    # Forward pass, gradients of weights and of maps; conv1 needs no gradient of its input.
    expected = 2 * (3 * sum(conv + fully) - conv[0])
    before, random = weights_hash(task.model), torch.get_rng_state()
    assert image_flops(gradients_of(task), next(feed.epoch(0)), 0) == expected
    assert weights_hash(task.model) == before
    assert torch.equal(torch.get_rng_state(), random)
    assert all(value.grad is None for value in task.model.parameters())


def test_a_trial_of_the_gradient_changes_nothing():
    feed = toy_feed()
    task = toy_task(feed)
    before, random = weights_hash(task.model), torch.get_rng_state()
    gradients = gradients_of(task)
    for images in (10, 10**7):
        assert 0 < image_seconds(gradients, next(feed.epoch(0)), 0, images) < 10
    assert weights_hash(task.model) == before
    assert torch.equal(torch.get_rng_state(), random)
    assert all(value.grad is None for value in task.model.parameters())


def test_the_rate_of_a_feed_counts_from_its_second_batch():
    feed = toy_feed()
    whole = feed.epoch

    def slow(epoch, start=0):
        for number, batch in enumerate(whole(epoch, start)):
            time.sleep(0.01 if number else 0.3)
            yield batch

    feed.epoch = slow
    rate, first = feed_rate(feed, 0, batches=3)
    assert 12 / 0.3 < rate < 12 / 0.01  # the first batch would lower the rate
    assert torch.equal(first.rows, next(whole(0)).rows)
    rate, _ = feed_rate(feed, 0, batches=0)  # only the first batch exists
    assert rate < 12 / 0.3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_peak_is_a_plausible_one(dtype):
    least = 1e9 if dtype is torch.float32 else 1e7  # bfloat16 may be emulated
    assert least < matmul_peak(CPU, dtype) < 1e14


def test_what_bounds_a_training():
    ceilings = Ceilings(feed_rate=1000.0, image_flops=2e9, peak_flops=1e12)
    starved = ceilings.bounds(900.0, waited=0.75)
    assert (starved.compute_ceiling, starved.bound_by) == (3600.0, "feed")
    assert starved.flop_utilization == pytest.approx(1.8)
    assert starved.text() == "bound by feed (network alone 3,600 images/s), 180% of peak"
    busy = ceilings.bounds(400.0, waited=0.0)
    assert busy == SpeedBounds(400.0, 1000.0, 400.0, 2.0, 0.8, 1.0)
    assert busy.text() == "bound by compute (feed alone 1,000 images/s), 80% of peak"
    assert starved.summary() == (
        "900 images/s, bound by feed: feed alone 1,000 images/s, network alone 3,600 images/s; 180%"
        " of the measured peak of 1 TFLOP/s"
    )
