"""A training that is no better than guessing is reported, or ended with a checkpoint."""

import pytest
import torch

from ktfast.training.checkpoint import CheckpointFolder
from ktfast.training.guessing import AtChanceError, Course, Guessing
from support.one_thread import one_thread_and_a_seed  # noqa: F401
from support.toy_training import STEPS, toy_config, toy_train

REMEDY = "Train longer"


@pytest.mark.parametrize(
    ("chance", "accuracy", "at_chance"),
    [(0.01, 0.029, True), (0.01, 0.031, False), (0.5, 0.62, True), (0.5, 0.63, False)],
)
def test_three_times_or_a_quarter_of_the_way_is_better_than_guessing(chance, accuracy, at_chance):
    assert Guessing(chance, REMEDY).at_chance({"accuracy": accuracy}) is at_chance


def test_a_training_without_an_accuracy_is_not_judged():
    assert not Guessing(0.5, REMEDY).at_chance({"loss": 3.0})


def test_a_training_at_chance_warns_once_and_ends_with_the_same_weights(tmp_path, caplog):
    _, weights = toy_train(tmp_path / "plain")
    caplog.clear()
    _, same = toy_train(tmp_path / "watched", guessing=Guessing(0.9, REMEDY))
    assert same == weights
    warnings = [record.message for record in caplog.records if "than guessing" in record.message]
    assert len(warnings) == 1
    assert f"of {STEPS} steps" in warnings[0]
    assert warnings[0].endswith("those of random weights. Train longer")


def test_a_training_can_end_at_chance_and_goes_on_from_there(tmp_path):
    _, weights = toy_train(tmp_path / "plain")
    with pytest.raises(AtChanceError, match="is hardly better than guessing: after 9 of 21 steps"):
        toy_train(tmp_path / "stopped", guessing=Guessing(0.9, REMEDY, stop=True))
    assert CheckpointFolder(tmp_path / "stopped").load().step == 9
    summary, same = toy_train(tmp_path / "stopped")
    assert summary.resumed_from == 9
    assert same == weights


def test_a_training_that_learns_is_not_ended(tmp_path):
    summary, _ = toy_train(tmp_path, guessing=Guessing(0.01, REMEDY, stop=True))
    assert summary.finished
    assert torch.isfinite(torch.tensor(summary.metrics["loss"]))


def course(*accuracies, total=100, each=5):
    found = Course(total)
    for number, accuracy in enumerate(accuracies, 1):
        found.add(number * each, accuracy)
    return found


@pytest.mark.parametrize(
    ("accuracies", "learns"),
    [
        ((0.04, 0.05, 0.06, 0.07, 0.08, 0.09), True),  # rises
        ((0.04, 0.05, 0.08, 0.09, 0.07, 0.08), False),  # has stopped to rise
        ((0.040, 0.041, 0.042, 0.044, 0.046, 0.050), False),  # is still that of guessing
        ((0.09,), False),  # too few rows
    ],
)
def test_a_network_whose_accuracy_rises_still_learns(accuracies, learns):
    assert Guessing(0.042, REMEDY).still_learns(course(*accuracies).tenths()) is learns


def test_the_course_of_an_accuracy_covers_the_last_fifth_of_the_steps():
    assert course(0.9, 0.1, 0.2, 0.3, 0.5).tenths() == pytest.approx((0.15, 0.4))
    assert course(0.1, 0.2, each=30).tenths() is None
    assert Course(10).tenths() is None


def test_a_resumed_training_knows_the_accuracies_of_the_earlier_session(tmp_path, monkeypatch):
    """Without them, the first row after the resumption could not tell that the accuracy rises."""
    seen = []
    monkeypatch.setattr(Guessing, "still_learns", lambda _, tenths: seen.append(tenths) or True)
    toy_train(tmp_path, guessing=Guessing(0.9, REMEDY), config=toy_config(log_every=1))
    whole, seen[:] = list(seen), []
    for stop_after in (12, None):
        toy_train(
            tmp_path / "again",
            guessing=Guessing(0.9, REMEDY),
            config=toy_config(log_every=1),
            stop_after=stop_after,
        )
    assert seen == whole
    assert None not in whole
