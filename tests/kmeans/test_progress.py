"""The log lines of a running fit, and the state of an interrupted fit."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import ktfast
from ktfast import KMeans
from ktfast.kmeans.lloyd import LloydResult
from ktfast.kmeans.progress import Progress
from support.kmeans_cases import assert_consistent, fewer, mixture


def test_one_line_per_iteration_when_verbose(caplog, device):
    x = mixture(fewer(3000, 600))
    with caplog.at_level(logging.INFO, "ktfast"):
        model = KMeans(12, init=x[:12], max_iter=9, verbose=1, device=device).fit(x)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == model.n_iter_
    inertia = model.history_[1]["inertia"]
    assert lines[1].startswith(f"k-means iteration 2 of at most 9: inertia {inertia:.9g}, ")
    assert "of the rows moved" in lines[1]
    assert "s an iteration" in lines[1]
    caplog.clear()
    with caplog.at_level(logging.INFO, "ktfast"):
        KMeans(12, random_state=0, verbose=1, device=device).fit(x)
    assert "initial centres" in caplog.records[0].getMessage()


def test_a_line_every_ten_seconds_otherwise(caplog, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("ktfast.kmeans.progress.time.monotonic", lambda: now[0])
    progress = Progress(max_iter=100)
    history = []
    with caplog.at_level(logging.INFO, "ktfast"):
        progress.seeding(10, 100)
        for _ in range(30):
            now[0] += 1.5
            history.append({"inertia": 5.0, "moved": 1, "seconds": 60.0})
            progress.observe(LloydResult(np.zeros((2, 2)), np.zeros(200, np.int32), 5.0, history))
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 4
    assert lines[0] == (
        "k-means iteration 7 of at most 100: inertia 5, 0.50 % of the rows moved, "
        "60 s an iteration, 1:33:00 left at most"
    )


def test_a_short_fit_says_nothing(caplog, device):
    with caplog.at_level(logging.INFO, "ktfast"):
        KMeans(12, random_state=0, device=device).fit(mixture(fewer(3000, 300)))
    assert not caplog.records


def interrupted(at, monkeypatch, **options):
    """Fit until a Ctrl-C arrives at the end of iteration number `at`, counted from 1."""
    observe, calls = Progress.observe, [0]

    def stop(self, result):
        observe(self, result)
        calls[0] += 1
        if calls[0] == at:
            raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "observe", stop)
    x = mixture(fewer(3000, 600))
    model = KMeans(12, tol=0, **options)
    with pytest.raises(KeyboardInterrupt):
        model.fit(x)
    monkeypatch.undo()
    return model, x


@pytest.mark.emulated_gpu
@pytest.mark.parametrize("at", [1, 3])
def test_the_last_complete_iteration_is_kept(at, monkeypatch, device):
    start = mixture()[:12]
    model, x = interrupted(at, monkeypatch, init=start, device=device)
    assert model.n_iter_ == at
    assert_consistent(model, x)
    if at > 1:
        assert model.inertia_ == model.history_[-1]["inertia"]
    assert model.transform(x).shape == (len(x), 12)
    assert model.counts_.sum() == len(x)
    model.partial_fit(x[:100])


def test_the_best_of_several_runs_is_kept(monkeypatch, device):
    options = {"init": "random", "n_init": fewer(50, 5), "random_state": 0, "device": device}
    at = fewer(60, 25)
    model, x = interrupted(at, monkeypatch, **options)
    results = []
    observe = Progress.observe

    def collect(self, result):
        observe(self, result)
        results.append(result)

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "observe", collect)
        KMeans(12, tol=0, **options).fit(x)
    assert model.inertia_ <= min(result.inertia for result in results[:at])
    assert_consistent(model, x)


@pytest.mark.emulated_gpu
def test_nothing_is_changed_before_the_first_iteration(monkeypatch, device):
    x = mixture(300)
    model = KMeans(12, random_state=0, device=device).fit(x)
    labels = model.labels_

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("ktfast.kmeans.starts.initial_centers", stop)
    with pytest.raises(KeyboardInterrupt):
        model.fit(mixture(300, d=3))
    np.testing.assert_array_equal(model.predict(x), labels)
    unfitted = KMeans(12, device=device)
    with pytest.raises(KeyboardInterrupt):
        unfitted.fit(x)
    assert vars(unfitted) == vars(KMeans(12, device=device))


INTERRUPTED = """
import logging, numpy as np, sys, time
from ktfast import KMeans
x = np.random.default_rng(0).normal(size=(120_000, 128)).astype(np.float32)
model = KMeans(2000, init="INIT", n_init=1, random_state=0, n_threads=1, tol=0, verbose=1)
class Tell(logging.Handler):
    def emit(self, record):
        print(record.getMessage(), flush=True)
logging.getLogger("ktfast").addHandler(Tell())
logging.getLogger("ktfast").setLevel(logging.INFO)
try:
    model.fit(x)
except KeyboardInterrupt:
    print("raised", time.time(), flush=True)
if "WHEN" == "initial centres":
    assert not hasattr(model, "labels_")
else:
    labels = model.predict(x[:5000])
    assert (labels == model.labels_[:5000]).all() and model.inertia_ > 0
"""


@pytest.mark.parametrize(
    ("when", "init"), [("initial centres", "k-means||"), ("iteration", "random")]
)
def test_ctrl_c_ends_a_fit_within_a_second(when, init):
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED.replace("INIT", init).replace("WHEN", when)],
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",  # the ktfast of the checkout may not be built
        env=os.environ | {"PYTHONPATH": str(Path(ktfast.__file__).parents[1])},
    )
    with process:
        while when not in process.stdout.readline():
            pass
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        sent = time.time()
        line = ""
        while not line.startswith("raised"):
            line = process.stdout.readline()
        assert float(line.split()[1]) - sent < 1
        assert process.wait(60) == 0
