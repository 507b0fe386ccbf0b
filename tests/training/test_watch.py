"""A watch measures the network at equal distances, and changes nothing else."""

import pytest

from ktfast.training.watch import Watch
from support.one_thread import one_thread_and_a_seed  # noqa: F401
from support.toy_training import STEPS, lasting, rows, toy_train


@pytest.mark.parametrize("times", [1, 3, 7, 50])
def test_a_watch_measures_before_the_training_and_a_number_of_times_in_it(times):
    due = [step for step in range(STEPS + 1) if Watch(times, dict).due(step, STEPS)]
    assert due[0] == 0
    assert due[-1] == STEPS
    assert len(due) == 1 + min(times, STEPS)


def test_measures_are_rows_of_their_own_and_change_no_result(tmp_path):
    _, weights = toy_train(tmp_path / "plain")
    watch = Watch(3, lambda step: {"neighbours": step / 100})
    summary, same = toy_train(tmp_path / "watched", watch=watch)
    assert same == weights
    found = rows(tmp_path / "watched")
    measured = [row for row in found if "neighbours" in row]
    assert [(row["step"], row["neighbours"]) for row in measured] == [
        (step, step / 100) for step in (0, 7, 14, 21)
    ]
    assert measured[-1]["epoch"] == summary.epochs
    others = [lasting(row) for row in found if "neighbours" not in row]
    assert others == [lasting(row) for row in rows(tmp_path / "plain")]


def test_a_resumed_training_repeats_no_measure(tmp_path):
    steps = []
    watch = Watch(3, lambda step: steps.append(step) or {"neighbours": step / 100})
    toy_train(tmp_path, watch=watch, stop_after=9)
    toy_train(tmp_path, watch=watch)
    assert steps == [0, 7, 14, 21]
    found = [row["step"] for row in rows(tmp_path) if "neighbours" in row]
    assert found == [0, 7, 14, 21]


def test_a_training_that_begins_again_leaves_one_row_per_measure(tmp_path):
    """A kill before the first checkpoint leaves rows, and the training begins at step 0."""
    watch = Watch(3, lambda _: {"neighbours": 0.5})
    toy_train(tmp_path, watch=watch)
    for path in tmp_path.glob("checkpoint-*"):
        path.unlink()
    toy_train(tmp_path, watch=watch)
    found = [row["step"] for row in rows(tmp_path) if "neighbours" in row]
    assert found == [0, 7, 14, 21]
