"""A training that is no better than guessing is reported, or ended with a checkpoint."""

import pytest
import torch

from ktfast.training.checkpoint import CheckpointFolder
from ktfast.training.guessing import AtChanceError, Guessing
from support.one_thread import one_thread_and_a_seed  # noqa: F401
from support.toy_training import STEPS, toy_train

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
