"""The training loop: its steps by hand, schedules, reports and errors."""

import dataclasses
import logging
import math
import re
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional

from ktfast.errors import ConfigError, DataError
from ktfast.images.augment import normalize_images
from ktfast.training.loop import DivergedError, StepOutput, learning_rate_factor, train
from support.one_thread import one_thread  # noqa: F401
from support.tolerances import GRADIENT_ORDER
from support.toy_training import STEPS, rows, toy_config, toy_feed, toy_task, toy_train


def test_summary_and_rows(whole):
    folder, summary, _ = whole
    assert (summary.steps, summary.epochs, summary.finished) == (STEPS, 3.5, True)
    assert summary.resumed_from is None
    assert summary.seconds > 0
    assert summary.images_per_second > 0
    assert 0 <= summary.loader_wait < 1
    written = rows(folder)
    assert [row["step"] for row in written] == [1, 5, 9, 13, 17, 21]
    assert written[-1]["loss"] == summary.metrics["loss"]
    assert {"accuracy", "epoch", "learning_rate", "time", "stage"} <= written[0].keys()
    assert written[-1]["epoch"] == 3.5


def test_training_learns(tmp_path):
    summary, _ = toy_train(tmp_path, toy_config(epochs=30.0, log_every=30))
    losses = [row["loss"] for row in rows(tmp_path)]
    assert losses[-1] < 0.8 * losses[0]
    assert summary.metrics["accuracy"] > 0.4


def test_the_callers_generators_and_switches_are_untouched(tmp_path):
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    feed = toy_feed()
    task = toy_task(feed)
    torch.manual_seed(9)
    config = toy_config(deterministic=True, epochs=0.2)
    train(task, feed, config, tmp_path, name="toy", seed=2)
    assert torch.equal(torch.rand(3), expected)
    assert not torch.are_deterministic_algorithms_enabled()


def test_another_batch_size_than_the_feeds_is_refused(tmp_path):
    feed = toy_feed(8)
    with pytest.raises(ConfigError, match="batch_size is 12, but the feed gives batches of 8"):
        train(toy_task(feed), feed, toy_config(), tmp_path, name="toy", seed=2)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_one_clear_error(tmp_path, bad):
    feed = toy_feed()
    task = toy_task(feed)
    good = task.step
    calls = iter(range(100))

    def step(batch, epoch):
        output = good(batch, epoch)
        number = next(calls) if len(batch.images) > 2 else None  # trials use two
        return dataclasses.replace(output, loss=output.loss * (bad if number == 5 else 1))

    task.step = step
    with pytest.raises(
        DivergedError, match=r"loss of toy became (nan|inf) at step 9.*learning_rate"
    ):
        train(task, feed, toy_config(checkpoint_minutes=60.0), tmp_path, name="toy", seed=2)
    assert list(tmp_path.glob("checkpoint-*")) == []


def test_a_feed_that_ends_early_is_an_error(tmp_path):
    feed = toy_feed()
    whole_epoch = feed.epoch
    feed.epoch = lambda epoch, start=0: list(whole_epoch(epoch, start))[:-1]
    with pytest.raises(DataError, match="ended epoch 0 1 batches early"):
        train(toy_task(feed), feed, toy_config(), tmp_path, name="toy", seed=2)


def test_accumulated_gradients_are_those_of_the_batch(tmp_path):
    def weights(folder, parts):
        # 64 images in batches of 12. The last batch has 4 images, in 3 uneven parts.
        feed = toy_feed()
        task = toy_task(feed, dropout=0.0)
        config = toy_config(accumulate=parts, epochs=1.0)
        summary = train(task, feed, config, folder, name="toy", seed=2)
        return task.model.state_dict(), summary.metrics

    (once, metrics), (parts, same_metrics) = (weights(tmp_path / str(n), n) for n in (1, 3))
    for name, value in once.items():
        torch.testing.assert_close(parts[name], value, rtol=GRADIENT_ORDER, atol=GRADIENT_ORDER)
    assert same_metrics["loss"] == pytest.approx(metrics["loss"], rel=GRADIENT_ORDER)


def test_the_first_steps_by_hand(tmp_path):
    """One weight and one bias, with momentum, weight decay, and a doubled rate of the bias."""

    class Line:
        model = nn.Linear(1, 1)

        def step(self, batch, epoch):
            x = normalize_images(batch.images, "imagenet").mean((1, 2, 3))[:, None]
            return StepOutput(functional.mse_loss(self.model(x), x * 3))

    feed = toy_feed()
    line = Line()
    weight, bias = (value.detach().clone().double() for value in line.model.parameters())
    config = toy_config(epochs=0.5, warmup=0.0, weight_decay=0.1, schedule="constant")
    train(line, feed, config, tmp_path, name="line", seed=0)
    speed_w = speed_b = 0.0
    for batch in list(feed.epoch(0))[:3]:
        x = normalize_images(batch.images, "imagenet").mean((1, 2, 3)).double()
        error = 2 * (weight[0, 0] * x + bias[0] - 3 * x) / len(x)
        speed_w = 0.9 * speed_w + (error * x).sum() + 0.1 * weight[0, 0]
        speed_b = 0.9 * speed_b + error.sum()
        weight, bias = weight - 0.01 * speed_w, bias - 0.02 * speed_b
    assert float(line.model.weight.detach()) == pytest.approx(float(weight), rel=GRADIENT_ORDER)
    assert float(line.model.bias.detach()) == pytest.approx(float(bias), rel=GRADIENT_ORDER)


def test_a_gradient_is_cut_to_its_longest(tmp_path):
    """The first step moves the weights by the learning rate times `clip_norm`."""
    feed, moved = toy_feed(), {}
    for longest in (0.0, 1e-3, 1e6):
        task = toy_task(feed, dropout=0.0)
        before = [value.detach().clone() for value in task.model.parameters()]
        config = toy_config(
            learning_rate=0.5, bias_rate=1.0, momentum=0.0, weight_decay=0.0, schedule="constant",
            warmup=0.0, clip_norm=longest,
        )  # fmt: skip
        folder = tmp_path / str(longest)
        train(task, feed, config, folder, name="a", seed=0, progress=False, stop_after=1)
        after = task.model.parameters()
        change = [(x.detach() - y).square().sum() for x, y in zip(after, before, strict=True)]
        moved[longest] = math.sqrt(sum(change))
    assert moved[1e-3] == pytest.approx(0.5e-3, rel=1e-3)
    assert moved[1e6] == moved[0.0] > 1e-2


def test_schedules():
    step = toy_config(warmup=0.0, drop_at=(0.25, 0.5), drop_factor=0.1)
    factors = [learning_rate_factor(step, k, 8) for k in range(8)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.01])
    every = toy_config(warmup=0.0, drop_every=3, drop_factor=0.1)
    factors = [learning_rate_factor(every, k, 8) for k in range(8)]
    assert factors == pytest.approx([1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01])
    warm = toy_config(schedule="constant", warmup=0.5)
    assert [learning_rate_factor(warm, k, 8) for k in range(8)] == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]
    cosine = toy_config(schedule="cosine", warmup=0.2)
    factors = [learning_rate_factor(cosine, k, 10) for k in range(10)]
    assert factors[:3] == [0.5, 1.0, 1.0]
    assert factors[2:] == sorted(factors[2:], reverse=True)
    assert factors[6] == pytest.approx(0.5)
    assert 0 < factors[9] < 0.05


def test_a_long_training_on_a_cpu_begins_with_a_forecast(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        toy_train(tmp_path, toy_config(epochs=1e6), stop_after=1)
    forecast = next(record.message for record in caplog.records if "expected" in record.message)
    assert re.fullmatch(r"toy: about [\d,:]+( days)? expected, by a trial", forecast)


def test_the_line_of_a_log(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        toy_train(tmp_path)
    line, end = [record.message for record in caplog.records if "images/s" in record.message]
    assert line.startswith("toy 21/21 ETA 0:00:00 | loss ")
    for part in (" | accuracy 0.", " images/s | epoch 3.50 | feed wait ", " | bound by compute | "):
        assert part in line
    assert end.startswith("toy: ")
    assert " images/s, bound by compute: feed alone " in end
    assert "% of the measured peak of " in end
    caplog.clear()
    toy_train(tmp_path / "silent", toy_config(epochs=0.2), progress=False)
    assert "images/s" not in caplog.text


def test_tensorboard_that_is_missing_is_told(tmp_path, caplog, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    toy_train(tmp_path, toy_config(epochs=0.2, tensorboard=True))
    assert "tensorboard is not installed" in caplog.text
