"""Gradients when memory is short: a batch is halved, and the numbers stay the same."""

import logging

import pytest
import torch
from torch import nn

from ktfast.training.gradients import Gradients, Remembered
from ktfast.training.loop import StepOutput, train
from support.one_thread import one_thread  # noqa: F401
from support.tolerances import GRADIENT_ORDER
from support.toy_training import toy_config, toy_feed, toy_task, weights_hash


class Confined:
    """A task that runs out of memory, after its forward pass, with more than `most` images."""

    def __init__(self, task, most: int) -> None:
        self.task, self.model, self.most, self.sizes = task, task.model, most, []

    def step(self, batch, epoch) -> StepOutput:
        output = self.task.step(batch, epoch)
        if len(batch) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
        self.sizes.append(len(batch))
        return output


def gradients_of(task, micro_batch: int) -> Gradients:
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    return Gradients(task, torch.device("cpu"), torch.float32, scaler, micro_batch)


def run(folder, most: int = 100, dropout: float = 0.5, **options):
    """Train the toy task with memory for `most` images; return model, summary, sizes of parts."""
    feed = toy_feed()
    task = Confined(toy_task(feed, dropout=dropout), most)
    config = toy_config(**options.pop("config", {}))
    summary = train(task, feed, config, folder, name="toy", seed=2, **options)
    return task.model, summary, task.sizes


@pytest.mark.parametrize(("most", "parts"), [(11, [6, 6]), (3, [3, 3, 3, 3]), (1, [1] * 12)])
def test_a_step_begins_again_in_halves(most, parts, caplog):
    feed = toy_feed()
    whole, confined = toy_task(feed, dropout=0.0), Confined(toy_task(feed, dropout=0.0), most)
    batch = next(feed.epoch(0))
    expected = gradients_of(whole, 12).add(batch, 0)
    halves = gradients_of(confined, 12)
    with caplog.at_level(logging.WARNING):
        values = halves.add(batch, 0)
    assert confined.sizes == parts
    assert halves.micro_batch == parts[0]
    assert "out of memory with 12 images at a time (CUDA out of memory): going on" in caplog.text
    for mine, theirs in zip(confined.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=GRADIENT_ORDER, atol=1e-6)
    assert float(values["loss"]) == pytest.approx(float(expected["loss"]), rel=GRADIENT_ORDER)
    # The next step begins with the micro-batch that fitted.
    confined.model.zero_grad()
    caplog.clear()
    halves.add(batch, 0)
    assert caplog.text == ""
    assert confined.sizes == parts * 2


def test_an_attempt_that_failed_leaves_no_trace(tmp_path):
    """Dropout draws the numbers that it draws if the micro-batch is small from the start."""
    halved, summary, _ = run(tmp_path / "halved", most=3)
    small, same, _ = run(tmp_path / "small", config={"accumulate": 4})
    assert summary.micro_batch == same.micro_batch == 3
    assert weights_hash(halved) == weights_hash(small)
    assert summary.metrics == same.metrics


def test_random_numbers_and_means_are_set_back():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5))
    x = torch.randn(4, 3, 2, 2)
    before = Remembered(model, torch.device("cpu"))
    first, mean = model(x), model[0].running_mean.clone()
    before.restore()
    assert torch.equal(model[0].running_mean, torch.zeros(3))
    assert torch.equal(model(x), first)
    assert torch.equal(model[0].running_mean, mean)


def test_one_image_that_does_not_fit_is_an_error(tmp_path):
    with pytest.raises(torch.OutOfMemoryError):
        run(tmp_path, most=0)


@pytest.mark.parametrize("stop", [1, 8])
def test_a_resumed_training_keeps_what_fitted(tmp_path, stop):
    expected, _, _ = run(tmp_path / "whole", most=4)
    run(tmp_path / "parts", most=4, stop_after=stop)
    # More free memory must not change the numbers.
    model, summary, sizes = run(tmp_path / "parts", most=100)
    assert summary.resumed_from == stop
    assert summary.micro_batch == max(sizes) == 3
    assert weights_hash(model) == weights_hash(expected)


def test_accumulation_is_only_the_beginning(tmp_path):
    _, summary, sizes = run(tmp_path, most=4, config={"accumulate": 2, "epochs": 1.0})
    assert (summary.micro_batch, max(sizes)) == (3, 3)
