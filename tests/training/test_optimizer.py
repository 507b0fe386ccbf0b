"""AdamW beside SGD: its steps, its checkpoints, and options that an optimiser does not use."""

import pytest
import torch
from pydantic import ValidationError

from ktfast.config import TrainingConfig
from ktfast.errors import ConfigError
from ktfast.models import Student
from ktfast.training.classification import ClassificationTask
from ktfast.training.loop import train
from ktfast.training.optimizer import make_optimizer
from support.one_thread import one_thread  # noqa: F401
from support.toy_training import toy_config, toy_feed, toy_train, weights_hash

ADAMW = {"optimizer": "adamw", "learning_rate": 0.001, "weight_decay": 0.05, "clip_norm": 1.0}


def test_adamw_resumes_bit_for_bit(tmp_path):
    config = toy_config(**ADAMW, epochs=1.5)
    _, expected = toy_train(tmp_path / "whole", config)
    for steps in (1, 4):
        toy_train(tmp_path / "parts", config, stop_after=steps)
    summary, resumed = toy_train(tmp_path / "parts", config)
    assert summary.resumed_from == 5
    assert resumed == expected
    assert toy_train(tmp_path / "sgd", toy_config(epochs=1.5))[1] != expected


def test_a_training_does_not_change_its_optimizer(tmp_path):
    toy_train(tmp_path, toy_config(epochs=1.5), stop_after=2)
    with pytest.raises(ConfigError, match=r"training\.optimizer 'sgd' -> 'adamw'"):
        toy_train(tmp_path, toy_config(epochs=1.5, optimizer="adamw"))


def test_a_step_of_adamw_by_hand():
    layer = torch.nn.Linear(1, 1)
    config = TrainingConfig(
        optimizer="adamw", learning_rate=0.1, weight_decay=0.5, momentum=0.8, beta2=0.9,
        bias_rate=3.0,
    )  # fmt: skip
    weight, bias = float(layer.weight.detach()), float(layer.bias.detach())
    optimizer = make_optimizer(layer, config)
    layer(torch.tensor([[2.0]])).sum().backward()
    optimizer.step()
    # The first step of Adam has the length of the learning rate, whatever the gradient is.
    assert float(layer.weight.detach()) == pytest.approx(weight * (1 - 0.1 * 0.5) - 0.1, abs=1e-6)
    assert float(layer.bias.detach()) == pytest.approx(bias - 0.3, abs=1e-6)


@pytest.mark.parametrize("option", [{"beta2": 0.9}, {"epsilon": 1e-6}])
def test_options_of_adamw_are_refused_for_sgd(option):
    with pytest.raises(ValidationError, match="the optimizer sgd does not use"):
        TrainingConfig(**option)
    assert TrainingConfig(**option, optimizer="adamw").optimizer == "adamw"


def test_a_student_with_random_views_resumes_bit_for_bit(tmp_path):
    feed = toy_feed()
    config = toy_config(**ADAMW, epochs=0.5)

    def run(folder, **options):
        torch.manual_seed(3)
        model = Student("torchvision:squeezenet1_1", 5, image_size=40)
        labels = torch.arange(feed.n) % 5
        task = ClassificationTask(model, labels, crop=40, seed=1, area=(0.3, 1.0), color_jitter=0.4)
        train(task, feed, config, folder, name="student", seed=2, **options)
        return weights_hash(model)

    expected = run(tmp_path / "whole")
    run(tmp_path / "parts", stop_after=1)
    assert run(tmp_path / "parts") == expected
