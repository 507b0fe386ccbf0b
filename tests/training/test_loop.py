"""The training loop: exact resume after every kind of end, reports, refusals."""

import dataclasses
import json
import logging
import math
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

import ktfast
from ktfast.errors import ConfigError, DataError
from ktfast.images.augment import normalize_images
from ktfast.training import precision
from ktfast.training.loop import DivergedError, Interrupted, StepOutput, learning_rate_factor, train
from ktfast.training.precision import computing_dtype
from support.one_thread import limited_to_one_thread, one_thread  # noqa: F401
from support.photographs import MemoryFeed, squares
from support.tolerances import GRADIENT_ORDER
from support.toy_training import toy_config, toy_feed, toy_task, toy_train, weights_hash

STEPS = 21
KILLS = int(os.environ.get("KTFAST_TEST_KILLS", "10"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folder, summary and hash of the weights of an uninterrupted training."""
    folder = tmp_path_factory.mktemp("whole")
    with limited_to_one_thread():
        summary, digest = toy_train(folder)
    return folder, summary, digest


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def lasting(row: dict) -> dict:
    """The values of a row that do not depend on the clock."""
    return {k: v for k, v in row.items() if k not in ("time", "images_per_second", "loader_wait")}


# --- resume -------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("stops", [(1,), (6,), (7,), (12, 1, 1), (4, 4, 4, 4), (20,), (21,)])
def test_interrupted_training_ends_with_the_same_weights(whole, tmp_path, stops):
    folder, _, digest = whole
    done = 0
    for steps in stops:
        summary, _ = toy_train(tmp_path, stop_after=steps)
        done += steps
        assert (summary.steps, summary.finished) == (done, done == STEPS)
    torch.manual_seed(random.getrandbits(32))  # the caller's generator must not matter
    summary, resumed = toy_train(tmp_path)
    assert summary.resumed_from == done
    assert resumed == digest
    assert [lasting(row) for row in rows(tmp_path)] == [lasting(row) for row in rows(folder)]


def test_finished_training_is_not_repeated(tmp_path):
    first, digest = toy_train(tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    again, same = toy_train(tmp_path)
    assert same == digest
    assert again.metrics == first.metrics
    assert again.images_per_second == first.images_per_second
    assert (again.steps, again.resumed_from, again.finished) == (STEPS, STEPS, True)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_batch_norm_and_accumulation_resume_too(tmp_path):
    def run(folder, **options):
        feed = toy_feed()
        task = toy_task(feed)
        torch.manual_seed(1)
        stack = nn.Sequential(nn.Conv2d(3, 8, 5, stride=4), nn.BatchNorm2d(8), nn.ReLU())
        task.model = nn.Sequential(stack, nn.Flatten(), nn.Dropout(0.5), nn.Linear(648, 5))
        config = toy_config(accumulate=3, channels_last=False, epochs=2.0)
        train(task, feed, config, folder, name="bn", seed=0, **options)
        return weights_hash(task.model)

    expected = run(tmp_path / "whole")
    run(tmp_path / "parts", stop_after=5)
    assert run(tmp_path / "parts") == expected


def test_a_damaged_checkpoint_costs_time_but_nothing_else(whole, tmp_path, caplog):
    folder, _, digest = whole
    toy_train(tmp_path, stop_after=5)
    toy_train(tmp_path, stop_after=5)
    newest = tmp_path / "checkpoint-10.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    summary, resumed = toy_train(tmp_path)
    assert "checkpoint-10.safetensors is damaged" in caplog.text
    assert summary.resumed_from == 5
    assert resumed == digest
    assert [lasting(row) for row in rows(tmp_path)] == [lasting(row) for row in rows(folder)]


def test_only_damaged_checkpoints_are_an_error(tmp_path):
    toy_train(tmp_path, stop_after=2)
    (tmp_path / "checkpoint-2.safetensors").write_bytes(b"")
    with pytest.raises(DataError, match="delete them"):
        toy_train(tmp_path)


def test_rows_after_the_checkpoint_and_torn_lines_are_cut(whole, tmp_path):
    folder, _, _ = whole
    toy_train(tmp_path, stop_after=9)
    path = tmp_path / "metrics.jsonl"
    other = {"stage": "another", "step": 10_000, "loss": 1.0}
    future = {"stage": "toy", "step": 12, "loss": 0.0}
    path.write_text(
        json.dumps(other) + "\n" + path.read_text() + json.dumps(future) + '\n{"stage": "toy", "st'
    )
    toy_train(tmp_path)
    found = rows(tmp_path)
    assert found[0] == other
    assert [lasting(row) for row in found[1:]] == [lasting(row) for row in rows(folder)]


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


# --- signals and kills --------------------------------------------------------------------------


class Signalling:
    """A task that sends signals to its own process in the middle of given steps."""

    def __init__(self, task, signals: dict[int, list[int]]) -> None:
        self.task, self.model, self.signals, self.steps = task, task.model, signals, 0

    def step(self, batch, epoch) -> StepOutput:
        self.steps += len(batch.images) > 2  # two images: the count of operations, not a step
        for number in self.signals.get(self.steps, ()):
            os.kill(os.getpid(), number)
        return self.task.step(batch, epoch)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_stops(whole, tmp_path, number):
    before = signal.getsignal(number)
    feed = toy_feed()
    task = Signalling(toy_task(feed), {8: [number]})
    with pytest.raises(Interrupted) as stopped:
        train(task, feed, toy_config(), tmp_path, name="toy", seed=2)
    assert stopped.value.signal == number
    assert isinstance(stopped.value, KeyboardInterrupt)
    assert signal.getsignal(number) is before
    assert task.steps == 8
    summary, digest = toy_train(tmp_path)
    assert summary.resumed_from == 8
    assert digest == whole[2]


def test_a_second_signal_stops_at_once(tmp_path):
    feed = toy_feed()
    task = Signalling(toy_task(feed), {8: [signal.SIGINT, signal.SIGINT]})
    with pytest.raises(KeyboardInterrupt) as stopped:
        train(task, feed, toy_config(), tmp_path, name="toy", seed=2)
    assert not isinstance(stopped.value, Interrupted)
    assert list(tmp_path.glob("checkpoint-*")) == []


def test_training_outside_the_main_thread_leaves_signals_alone(whole, tmp_path):
    digests = []
    thread = threading.Thread(target=lambda: digests.append(toy_train(tmp_path)[1]))
    thread.start()
    thread.join()
    assert digests == [whole[2]]


def test_killed_at_random_moments_it_ends_with_the_same_weights(tmp_path):
    """Kill a training that saves after every step, at random moments."""
    tests = Path(__file__).parents[1]
    script = tests / "support" / "toy_training.py"
    paths = [str(tests), str(Path(ktfast.__file__).parents[1])]
    server = subprocess.Popen(
        [sys.executable, "-W", "ignore", str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
    )

    def begin(folder: Path) -> int:
        folder.mkdir(exist_ok=True)
        server.stdin.write(f"{folder}\n")
        server.stdin.flush()
        return int(server.stdout.readline())

    def end() -> int:
        return int(server.stdout.readline())

    with server:
        assert server.stdout.readline() == "ready\n"
        begin(tmp_path / "whole")
        assert end() == 0
        expected = (tmp_path / "whole" / "weights.sha256").read_text()
        chance, killed, folder = random.Random(0), 0, tmp_path / "killed-0"
        while killed < KILLS:
            number = chance.choice([signal.SIGKILL] * 5 + [signal.SIGTERM])
            child = begin(folder)
            threading.Event().wait(chance.uniform(0.0, 0.3))
            os.kill(child, number)  # the child is not yet waited for, so that its id is not reused
            code = end()
            assert code in (0, -signal.SIGKILL, 128 + signal.SIGTERM, -signal.SIGTERM)
            killed += code != 0
            if code == 0 or killed == KILLS:
                while code != 0:
                    begin(folder)
                    code = end()
                assert (folder / "weights.sha256").read_text() == expected
                assert [row["step"] for row in rows(folder)] == [*range(4, 37, 4)]
                folder = tmp_path / f"killed-{killed}"
        server.stdin.close()


# --- reports and refusals -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": {"learning_rate": 0.5}}, r"training\.learning_rate 0\.01 -> 0\.5"),
        ({"config": {"epochs": 4.0}}, r"training\.epochs 3\.5 -> 4\.0"),
        ({"seed": 3}, "seed 2 -> 3"),
        ({"identity": {"crop": 40}}, r"identity\.crop None -> 40"),
        ({"feed": MemoryFeed(squares(64, 44)[::-1].copy(), 12)}, r"feed\.images"),
        ({"width": 0.25}, "another network"),
    ],
)
def test_another_question_is_refused(tmp_path, changes, message):
    toy_train(tmp_path, stop_after=3)
    feed = changes.get("feed", toy_feed())
    task = toy_task(feed, width=changes.get("width", 0.125))
    before = weights_hash(task.model)
    config = toy_config(**changes.get("config", {}))
    with pytest.raises(ConfigError, match=message):
        train(
            task,
            feed,
            config,
            tmp_path,
            name="toy",
            seed=changes.get("seed", 2),
            identity=changes.get("identity"),
        )
    assert weights_hash(task.model) == before


def test_another_batch_size_than_the_feeds_is_refused(tmp_path):
    feed = toy_feed(8)
    with pytest.raises(ConfigError, match="batch_size is 12, but the feed gives batches of 8"):
        train(toy_task(feed), feed, toy_config(), tmp_path, name="toy", seed=2)


def test_when_to_write_may_change(whole, tmp_path):
    toy_train(tmp_path, stop_after=3)
    _, digest = toy_train(tmp_path, toy_config(log_every=2, checkpoint_minutes=1e-6))
    assert digest == whole[2]


def test_other_circumstances_are_told(tmp_path, caplog):
    toy_train(tmp_path, stop_after=3)
    feed = toy_feed()
    feed.kind = "another"
    train(toy_task(feed), feed, toy_config(), tmp_path, name="toy", seed=2)
    assert "feed 'memory' -> 'another'" in caplog.text


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_one_clear_error(tmp_path, bad):
    feed = toy_feed()
    task = toy_task(feed)
    good = task.step
    calls = iter(range(100))

    def step(batch, epoch):
        output = good(batch, epoch)
        number = next(calls) if len(batch.images) > 2 else None
        return dataclasses.replace(output, loss=output.loss * (bad if number == 5 else 1))

    task.step = step
    with pytest.raises(
        DivergedError, match=r"loss of toy became (nan|inf) at step 9.*learning_rate"
    ):
        train(task, feed, toy_config(checkpoint_minutes=60.0), tmp_path, name="toy", seed=2)
    assert list(tmp_path.glob("checkpoint-*")) == []


def test_a_full_disk_raises_and_keeps_the_last_checkpoint(whole, tmp_path, monkeypatch):
    toy_train(tmp_path, stop_after=5)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("ktfast.durable.os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            toy_train(tmp_path, stop_after=5)
    summary, digest = toy_train(tmp_path)
    assert summary.resumed_from == 5
    assert digest == whole[2]


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
    warm = toy_config(schedule="constant", warmup=0.5)
    assert [learning_rate_factor(warm, k, 8) for k in range(8)] == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]
    cosine = toy_config(schedule="cosine", warmup=0.2)
    factors = [learning_rate_factor(cosine, k, 10) for k in range(10)]
    assert factors[:3] == [0.5, 1.0, 1.0]
    assert factors[2:] == sorted(factors[2:], reverse=True)
    assert factors[6] == pytest.approx(0.5)
    assert 0 < factors[9] < 0.05


def test_precision_follows_the_device(monkeypatch):
    cpu, gpu = torch.device("cpu"), torch.device("cuda", 0)
    for gain, expected in ((0.4, torch.float32), (2.1, torch.bfloat16)):
        monkeypatch.setattr(precision, "bfloat16_gain", lambda gain=gain: gain)
        assert computing_dtype("auto", cpu) is expected
    assert computing_dtype("bfloat16", cpu) is torch.bfloat16
    with pytest.raises(ConfigError, match="float16 needs a GPU"):
        computing_dtype("float16", cpu)
    for capability, expected in {
        (6, 1): torch.float32,
        (7, 5): torch.float16,
        (8, 0): torch.bfloat16,
        (9, 0): torch.bfloat16,
        (12, 0): torch.bfloat16,
    }.items():
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, c=capability: c)
        assert computing_dtype("auto", gpu) is expected


def test_bfloat16_trains_on_a_cpu(tmp_path):
    summary, _ = toy_train(tmp_path, toy_config(precision="bfloat16", epochs=0.5))
    assert math.isfinite(summary.metrics["loss"])


def test_the_line_of_a_log(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        toy_train(tmp_path)
    line, end = [record.message for record in caplog.records if "images/s" in record.message]
    assert line.startswith("toy 21/21 epoch 3.50 loss ")
    for part in (
        " accuracy 0.",
        " images/s, feed wait ",
        ", bound by compute (feed alone ",
        " | ETA 0:00",
    ):
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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["float32", "auto", "float16"])
def test_interrupted_training_on_a_gpu_ends_with_the_same_weights(tmp_path, precision, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    config = toy_config(precision=precision, deterministic=True)

    def run(folder, **options):
        feed = toy_feed()
        task = toy_task(feed)
        train(task, feed, config, folder, name="toy", seed=2, device="cuda", **options)
        return weights_hash(task.model.cpu())

    expected = run(tmp_path / "whole")
    run(tmp_path / "parts", stop_after=8)
    assert run(tmp_path / "parts") == expected
