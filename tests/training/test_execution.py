"""Ways of running a network: which are allowed, which is chosen, and that all train the same."""

import logging

import pytest
import torch

from ktfast.errors import ConfigError
from ktfast.training import execution
from ktfast.training.execution import (
    COMPILED,
    COMPILED_GRAPHS,
    GRAPHS,
    PLAIN,
    fastest,
    running,
    step_seconds,
    ways,
)
from ktfast.training.gradients import Gradients
from ktfast.training.loop import train
from support.one_thread import one_thread  # noqa: F401
from support.tolerances import GRADIENT_ORDER
from support.toy_training import toy_config, toy_feed, toy_task, weights_hash

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def compilations(monkeypatch):
    """A list of the image shapes of every compiled graph; the backend leaves graphs unchanged."""
    shapes = []

    def backend(graph, inputs):
        shapes.append(next(tuple(x.shape) for x in inputs if x.ndim == 4 and x.shape[1] == 3))
        return graph.forward

    torch.compiler.reset()
    monkeypatch.setattr(execution, "BACKEND", backend)
    return shapes


def run(folder, **options):
    """Run a toy training; return its model and summary."""
    feed = toy_feed()
    task = toy_task(feed)
    config = toy_config(**options.pop("config", {}))
    summary = train(task, feed, config, folder, name="toy", seed=2, **options)
    return task.model, summary


@pytest.mark.parametrize(
    ("device", "options", "expected"),
    [
        (CPU, {}, [PLAIN]),
        (CPU, {"compile": True}, [COMPILED]),
        (GPU, {}, [PLAIN, GRAPHS, COMPILED, COMPILED_GRAPHS]),
        (GPU, {"deterministic": True}, [PLAIN]),
        (GPU, {"accumulate": 2}, [PLAIN, COMPILED]),
        (GPU, {"compile": False}, [PLAIN, GRAPHS]),
        (GPU, {"compile": True, "cuda_graphs": True}, [COMPILED_GRAPHS]),
        (GPU, {"cuda_graphs": False}, [PLAIN, COMPILED]),
    ],
)
def test_what_may_be_chosen(device, options, expected):
    assert ways(toy_config(**options), device) == expected


def test_graphs_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="cuda_graphs needs a GPU"):
        ways(toy_config(cuda_graphs=True), CPU)
    with pytest.raises(ConfigError, match="cuda_graphs needs accumulate = 1"):
        ways(toy_config(cuda_graphs=True, accumulate=2), GPU)


@pytest.mark.parametrize(
    ("seconds", "steps", "expected"),
    [
        ({PLAIN: 1.0, GRAPHS: 0.8, COMPILED: 0.5}, 10_000, COMPILED),
        (
            {PLAIN: 1.0, GRAPHS: 0.8, COMPILED: 0.79},
            10_000,
            GRAPHS,
        ),  # gains less than 5 %
        ({PLAIN: 1.0, GRAPHS: 0.97, COMPILED: 1.3}, 10_000, PLAIN),
        ({PLAIN: 1.0, GRAPHS: 0.8}, 500, GRAPHS),  # the training is too short for compiling
        ({PLAIN: 1.0}, 20, PLAIN),
    ],
)
def test_the_fastest_way_is_taken_if_it_is_worth_it(seconds, steps, expected):
    measured = []

    def seconds_of(way):
        measured.append(way)
        return seconds[way]

    assert fastest([PLAIN, GRAPHS, COMPILED], seconds_of, steps) == expected
    assert measured == list(seconds)


def test_a_way_that_fails_is_left_out(caplog):
    def seconds_of(way):
        if way == COMPILED:
            raise RuntimeError("no compiler")
        return {PLAIN: 1.0, GRAPHS: 0.9}[way]

    with caplog.at_level(logging.WARNING):
        assert fastest([PLAIN, COMPILED, GRAPHS], seconds_of, 10_000) == GRAPHS
    assert "training cannot run compiled here: no compiler" in caplog.text


def test_without_a_choice_nothing_is_measured():
    assert fastest([COMPILED], lambda _: pytest.fail("measured"), 10_000) == COMPILED


def test_a_compiled_training_computes_the_same(tmp_path, compilations):
    model, summary = run(tmp_path / "compiled", config={"compile": True, "epochs": 1.0})
    # 64 images in batches of 12. The last batch, of 4, and the count of operations run plainly.
    assert compilations == [(12, 3, 40, 40)]
    assert summary.way == COMPILED
    assert "forward" not in vars(model)
    plain, _ = run(tmp_path / "plain", config={"epochs": 1.0})
    theirs = plain.state_dict()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, theirs[name], rtol=GRADIENT_ORDER, atol=GRADIENT_ORDER)


def test_what_a_trial_chose_holds_after_a_resume(tmp_path, compilations, monkeypatch):
    trials = []

    def seconds(gradients, batch, epoch, way):
        trials.append(way)
        return {PLAIN: 9.0, COMPILED: 1.0}[way]

    monkeypatch.setattr("ktfast.training.loop.ways", lambda *_: [PLAIN, COMPILED])
    monkeypatch.setattr("ktfast.training.loop.step_seconds", seconds)
    monkeypatch.setattr(execution, "WORTH", {COMPILED: 0.0})
    whole, summary = run(tmp_path / "whole")
    run(tmp_path / "parts", stop_after=8)
    assert trials == [PLAIN, COMPILED] * 2
    resumed, again = run(tmp_path / "parts")
    assert trials == [PLAIN, COMPILED] * 2
    assert summary.way == again.way == COMPILED
    assert weights_hash(resumed) == weights_hash(whole)


def test_a_trial_leaves_no_trace(compilations):
    feed = toy_feed()
    task = toy_task(feed)
    task.model.insert = torch.nn.BatchNorm2d(3)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    gradients = Gradients(task, CPU, torch.float32, scaler, 12)
    before, random = weights_hash(task.model), torch.get_rng_state()
    for way in (PLAIN, COMPILED):
        assert step_seconds(gradients, next(feed.epoch(0)), 0, way) > 0
    assert weights_hash(task.model) == before
    assert torch.equal(torch.get_rng_state(), random)
    assert all(value.grad is None for value in task.model.parameters())
    assert "forward" not in vars(task.model)


def test_evaluation_runs_plainly(compilations):
    task = toy_task(toy_feed())
    with running(task.model, COMPILED, CPU):
        task.model.eval()
        task.model(torch.zeros(2, 3, 40, 40))
    assert compilations == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("options", [{"cuda_graphs": True}, {"compile": True}])
def test_fast_ways_on_a_gpu_compute_the_same(tmp_path, options):
    results = []
    for number, more in enumerate(({"compile": False, "cuda_graphs": False}, options)):
        feed = toy_feed()
        task = toy_task(feed, dropout=0.0)  # CUDA graphs draw other random numbers
        config = toy_config(epochs=1.0, **more)
        train(task, feed, config, tmp_path / str(number), name="toy", seed=2, device="cuda")
        results.append(task.model.state_dict())
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, rtol=1e-3, atol=1e-3)
