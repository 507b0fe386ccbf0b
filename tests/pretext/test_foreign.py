"""A pretext task of the user: what it returns is checked, and every fault is one sentence."""

import numpy as np
import pytest
import torch
from torch import nn

from ktfast.config import PretextConfig
from ktfast.errors import ConfigError
from ktfast.models import AlexNet, initialize
from ktfast.pretext.pictures import Example, Panel
from ktfast.pretext.protocol import Pretext
from ktfast.pretext.registry import build_pretext
from ktfast.training.loop import StepOutput
from support.one_thread import one_thread_and_a_seed  # noqa: F401
from support.photographs import MemoryFeed, squares


class Colour(Pretext):
    """Predict the mean colour of a photograph from its gray version: no classification."""

    title, lead, measure_name = "Colour", "Left: the photograph.", "error"

    def build(self, trunk):
        flat = trunk.channels[trunk.layers[-1]] * trunk.features.side(self.options.crop) ** 2
        return nn.Sequential(trunk, nn.Flatten(), nn.Linear(flat, 3))

    def step(self, batch, epoch):
        return StepOutput(self._errors(batch).mean())

    def measure(self, batch, epoch):
        return self._errors(batch)

    def pictures(self, batch, epoch):
        return [Example((Panel(image, "photograph"),), "c") for image in batch.images.numpy()]

    def _errors(self, batch):
        colours = batch.images.float().mean((1, 2)) / 255
        gray = batch.images.float().mean(3)[:, None].expand(-1, 3, -1, -1) / 255
        return (self.model(gray) - colours).square().mean(1)


class NoNetwork(Colour):
    def build(self, trunk):
        return "network"


class OtherTrunk(Colour):
    def build(self, trunk):
        return nn.Linear(1, 1)


class NoLoss(Colour):
    def step(self, batch, epoch):
        return self._errors(batch)


class LongLoss(Colour):
    def step(self, batch, epoch):
        return StepOutput(self._errors(batch))


class OneValue(Colour):
    def measure(self, batch, epoch):
        return self._errors(batch).mean()


class Fails(Colour):
    def measure(self, batch, epoch):
        raise KeyError("no such thing")


class NoAlt(Colour):
    def pictures(self, batch, epoch):
        return [Example((Panel(image, ""),), "c") for image in batch.images.numpy()]


class NoMemory(Colour):
    def step(self, batch, epoch):
        raise torch.OutOfMemoryError("CUDA out of memory")


class Incomplete(Pretext):
    def build(self, trunk):
        return trunk


def other():
    """Not a class."""


def task_of(name):
    options = PretextConfig(task=f"{__name__}:{name}", crop=40)
    task = build_pretext(AlexNet(0, width=0.125), options, seed=0)
    initialize(task.model)
    return task


@pytest.fixture
def batch():
    return next(iter(MemoryFeed(squares(3, 40), 3).epoch(0)))


def test_a_task_that_is_no_classification(batch):
    task = task_of("Colour")
    assert task.chance is None
    assert task.step(batch, 0).loss.requires_grad
    assert task.measure(batch, 0).shape == (3,)
    assert np.array_equal(task.pictures(batch, 0)[1].panels[0].pixels, batch.images[1].numpy())


@pytest.mark.parametrize(
    ("name", "method", "message"),
    [
        ("NoNetwork", None, "build: expected a torch.nn.Module, got str"),
        ("OtherTrunk", None, "build: the network must contain the trunk"),
        ("NoLoss", "step", "step: expected a ktfast.training.loop.StepOutput, got Tensor"),
        ("LongLoss", "step", r"step: loss must be a tensor of one number, got shape \[3\]"),
        ("OneValue", "measure", r"measure: expected a tensor of 3 numbers, .* got shape \[\]"),
        ("Fails", "measure", r"fails in measure \(KeyError: 'no such thing', .* line \d+\)"),
        ("NoAlt", "pictures", "pictures: every panel needs a text alt"),
        ("Incomplete", None, "does not define measure, pictures, step"),
        ("other", None, "is no subclass of ktfast.pretext.protocol.Pretext"),
        ("Nothing", None, "cannot be imported"),
    ],
)
def test_a_fault_is_one_sentence_with_the_name_of_the_task(name, method, message, batch):
    def called():
        task = task_of(name)
        getattr(task, method)(batch, 0)

    with pytest.raises(ConfigError, match=message) as caught:
        called()
    assert f"pretext.task '{__name__}:{name}'" in str(caught.value)


def test_a_full_memory_is_passed_on_so_that_micro_batches_get_smaller(batch):
    with pytest.raises(torch.OutOfMemoryError):
        task_of("NoMemory").step(batch, 0)


def test_an_unknown_name_lists_the_tasks():
    with pytest.raises(ValueError, match=r"task 'puzzle' is unknown; expected jigsaw\+\+, jigsaw"):
        PretextConfig(task="puzzle")
