"""An interrupted fit continues from its checkpoint with the bits of an uninterrupted fit."""

import functools
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from ktfast import KMeans
from ktfast.errors import DataError, InputError
from ktfast.kmeans import runs
from ktfast.kmeans.progress import Progress
from support.spread_fits import CASES, cuts, digest, fit_part, in_threads, processes

pytestmark = pytest.mark.filterwarnings("ignore:Number of distinct clusters")
EVERY = {"checkpoint_seconds": 0}
RUNS = {"init": "random", "n_init": 2}


class Interrupted(Exception):
    pass


@functools.cache
def expected(name, **options):
    return digest([fit_part(name, None, slice(None), **options)])


def interrupt(monkeypatch, iteration):
    """Let the fit fail after this number of iterations, counted over all runs and threads."""
    observe, count = Progress.observe, [0]

    def failing(self, result):
        observe(self, result)
        count[0] += 1
        if count[0] == iteration:
            raise Interrupted

    monkeypatch.setattr(Progress, "observe", failing)
    return count


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("float32", {}),
        ("float64", RUNS),
        ("float32", RUNS),
        ("weights", {}),
        ("spherical", {}),
        ("empty clusters", {}),
        ("duplicates", {}),
        ("huge values", {}),
        ("tolerance 0", {}),
    ],
)
def test_a_fit_interrupted_after_every_second_iteration(name, options, tmp_path, monkeypatch):
    file = tmp_path / "checkpoint"
    for _ in range(40):
        with monkeypatch.context() as patch:
            # The repeated iteration is not observed, so each attempt completes one more.
            interrupt(patch, 2)
            try:
                model = fit_part(name, None, slice(None), checkpoint=file, **EVERY, **options)
            except Interrupted:
                continue
        break
    assert digest([model]) == expected(name, **options)
    again = fit_part(name, None, slice(None), checkpoint=file, **EVERY, **options)
    assert digest([again]) == expected(name, **options)


def test_an_interrupted_fit_writes_its_last_iteration(tmp_path, monkeypatch):
    file = tmp_path / "checkpoint"
    with monkeypatch.context() as patch:
        interrupt(patch, 6)
        with pytest.raises(Interrupted):
            fit_part("tolerance 0", None, slice(None), checkpoint=file)
    assert file.exists()
    count = interrupt(monkeypatch, -1)
    model = fit_part("tolerance 0", None, slice(None), checkpoint=file)
    # The observer failed before the checkpoint could take iteration 6, so the file holds 5.
    assert count[0] == model.n_iter_ - 5
    assert digest([model]) == expected("tolerance 0")


def test_a_fit_goes_on_with_another_number_of_processes(tmp_path, monkeypatch):
    file = tmp_path / "checkpoint"
    n = len(CASES["float64"][0]())
    for size, iteration in [(2, 6), (4, 12), (1, 2)]:
        bounds = cuts(n, size)

        def fit(own, bounds=bounds):
            place = slice(bounds[own.rank], bounds[own.rank + 1])
            return fit_part("float64", own, place, checkpoint=file, **EVERY, **RUNS)

        with monkeypatch.context() as patch:
            interrupt(patch, iteration)
            _, errors = in_threads(size, fit)
        assert any(isinstance(error, Interrupted) for error in errors)
    models, errors = in_threads(4, lambda own: fit(own, cuts(n, 4)))
    assert errors == [None] * 4
    assert digest(models) == expected("float64", **RUNS)


def checkpoint_of(tmp_path, **options):
    file = tmp_path / "checkpoint"
    fit_part("float32", None, slice(None), checkpoint=file, **options)
    return file


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"n_clusters": 29}, "its n_clusters is 30, but this fit has 29"),
        ({"max_iter": 13}, "its max_iter is 12, but this fit has 13"),
        ({"init": "random"}, "its init is 'k-means||', but this fit has 'random'"),
        ({"spherical": True}, "its spherical is False"),
        ({"weighted": True}, "its use of sample_weight is False"),
    ],
)
def test_the_checkpoint_of_another_fit_is_refused(options, match, tmp_path):
    file = checkpoint_of(tmp_path)
    with pytest.raises(InputError) as e:
        fit_part("float32", None, slice(None), checkpoint=file, **options)
    assert match in str(e.value)
    assert str(file) in str(e.value)


def test_other_rows_are_refused(tmp_path):
    file = checkpoint_of(tmp_path)
    with pytest.raises(InputError, match="its number of rows is 9001, but this fit has 9000"):
        fit_part("float32", None, slice(0, -1), checkpoint=file)
    x = CASES["float32"][0]()
    x[0] += 1
    with pytest.raises(InputError, match="is the checkpoint of another fit"):
        KMeans(30, random_state=3, checkpoint=file, max_iter=12).fit(x)


def test_rows_of_the_same_moments_are_compared_by_the_inertia(tmp_path, monkeypatch):
    file = checkpoint_of(tmp_path)
    monkeypatch.setattr(runs, "_hash", lambda array: "the same")
    monkeypatch.setattr(runs.Moments, "variance", 1.0)
    file.unlink()
    fit_part("float32", None, slice(None), checkpoint=file)
    with pytest.raises(InputError, match="the checkpoint belongs to other rows"):
        KMeans(30, random_state=3, checkpoint=file, max_iter=12).fit(CASES["float32"][0]() + 1)


def test_a_damaged_checkpoint_is_found_wherever_a_byte_changed(tmp_path):
    file = checkpoint_of(tmp_path)
    content, messages = file.read_bytes(), []
    generator = np.random.default_rng(0)
    for place in generator.integers(0, len(content), 60):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(generator.integers(8))
        file.write_bytes(damaged)
        try:
            model = fit_part("float32", None, slice(None), checkpoint=file)
        except DataError as error:
            messages.append(str(error))
        else:  # a byte of the archive that holds no data, such as a time
            assert digest([model]) == expected("float32")
    assert len(messages) > 40
    assert all(str(file) in each and "remove the file" in each for each in messages)
    for size in (0, 1, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:size])
        with pytest.raises(DataError, match="remove the file"):
            fit_part("float32", None, slice(None), checkpoint=file)


def test_bounds_and_approximate_labels_take_no_checkpoint(tmp_path):
    for options in ({"size_min": 2}, {"precision": "fast"}):
        with pytest.raises(InputError, match="checkpoint was given together with"):
            fit_part("float32", None, slice(None), checkpoint=tmp_path / "file", **options)


def test_a_generator_as_random_state_continues(tmp_path, monkeypatch):
    file = tmp_path / "checkpoint"
    x = CASES["float32"][0]()

    def fit(**options):
        generator = np.random.RandomState(7)
        model = KMeans(30, init="random", n_init=3, max_iter=4, random_state=generator, **options)
        return model.fit(x), generator.random_sample()

    plain, following = fit()
    with monkeypatch.context() as patch:
        interrupt(patch, 6)
        with pytest.raises(Interrupted):
            fit(checkpoint=file, **EVERY)
    model, after = fit(checkpoint=file, **EVERY)
    assert digest([model]) == digest([plain])
    assert after == following


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_others_and_any_number_goes_on(victim, tmp_path):
    file, result = tmp_path / "checkpoint", tmp_path / "model"
    with processes(2, ["resume", file, result, 0.2]) as started:
        deadline = time.monotonic() + 200
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert file.exists()
        os.kill(started[victim].pid, signal.SIGKILL)
        for rank, process in enumerate(started):
            _, errors = process.communicate(timeout=100)
            assert process.returncode != 0
            if rank != victim:
                assert "another process of this fit has stopped" in errors
    assert not list(Path(tmp_path).glob("model-*"))
    kept = tmp_path / "kept"
    shutil.copy(file, kept)
    model = fit_part("float64", None, slice(None), checkpoint=kept, **RUNS)
    assert digest([model]) == expected("float64", **RUNS)


@pytest.mark.parametrize("place", ["nowhere/checkpoint", "."])
def test_a_place_that_cannot_be_written_is_refused_before_the_fit(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)

    def init(x, k, random_state):
        raise AssertionError("the fit has begun")

    with pytest.raises(InputError, match=r"make this folder first|give the name of a file"):
        KMeans(2, init=init, checkpoint=place).fit(np.eye(4))
