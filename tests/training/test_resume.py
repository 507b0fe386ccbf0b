"""A training ends with the same weights, however often it is stopped, killed or damaged."""

import json
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

import ktfast
from ktfast.errors import ConfigError, DataError
from ktfast.training.loop import Interrupted, StepOutput, train
from support.one_thread import one_thread  # noqa: F401
from support.photographs import MemoryFeed, squares
from support.toy_training import (
    STEPS,
    lasting,
    rows,
    toy_config,
    toy_feed,
    toy_task,
    toy_train,
    weights_hash,
)

KILLS = int(os.environ.get("KTFAST_TEST_KILLS", "10"))


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
    assert "checkpoint-10.safetensors cannot be read as a checkpoint" in caplog.text
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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": {"learning_rate": 0.5}}, r"training\.learning_rate 0\.01 -> 0\.5"),
        ({"config": {"epochs": 4.0}}, r"training\.epochs 3\.5 -> 4\.0"),
        ({"seed": 3}, "seed 2 -> 3"),
        ({"identity": {"crop": 40}}, r"identity\.crop None -> 40"),
        (
            {"feed": MemoryFeed(squares(64, 44)[::-1].copy(), 12)},
            "the images or their annotations",
        ),
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


class Signalling:
    """A task that sends signals to its own process in the middle of given steps."""

    def __init__(self, task, signals: dict[int, list[int]]) -> None:
        self.task, self.model, self.signals, self.steps = task, task.model, signals, 0

    def step(self, batch, epoch) -> StepOutput:
        self.steps += len(batch.images) == 12  # fewer images: a trial, not a step
        for number in self.signals.get(self.steps, ()):
            os.kill(os.getpid(), number)
        return self.task.step(batch, epoch)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
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


def test_sighup_stays_ignored_under_nohup(whole, tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        feed = toy_feed()
        task = Signalling(toy_task(feed), {8: [signal.SIGHUP]})
        train(task, feed, toy_config(), tmp_path, name="toy", seed=2)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


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
