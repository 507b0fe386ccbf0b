"""The objectives on the teacher's features: losses by hand, whole batches, resumed trainings."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from ktfast.config import TransferConfig
from ktfast.errors import ConfigError
from ktfast.objectives.registry import OBJECTIVES, build_objective
from ktfast.training.gradients import Gradients
from ktfast.training.loop import StepOutput, train
from support.toy_training import toy_config, toy_feed, weights_hash

DIM = 6


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def objective(name, n=64, folder=None, **options):
    """An objective on random targets; memory-mapped if there is a folder."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 5, stride=8), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(100, DIM)
    )
    targets = unit(np.random.default_rng(0).normal(size=(n, DIM))).astype(np.float32)
    if folder is not None:
        np.save(folder / "targets.npy", targets)
        targets = np.load(folder / "targets.npy", mmap_mode="r")
    config = TransferConfig(objective=name, crop=40, **options)
    return build_objective(model, targets, config, seed=1)


def batch_of(feed, n=12):
    return next(iter(feed.epoch(0))).part(0, n)


def test_regression_is_the_squared_distance():
    outputs = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    targets = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    output = objective("regression").loss(outputs, targets)
    assert output.loss.item() == pytest.approx((2 + 0) / 2)  # the length 3 does not count
    assert output.metrics["cosine"].item() == pytest.approx((0 + 1) / 2)


def test_similarity_is_the_divergence_of_the_shares():
    targets = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    outputs = torch.tensor([[2.0, 0.0], [0.0, 5.0], [0.0, 0.1]])  # lengths do not count
    found = objective("similarity", temperature=0.5).score(outputs, targets)
    like, unlike = (math.exp(s / 0.5) for s in (1, 0))
    near, far = like / (like + unlike), unlike / (like + unlike)
    # Row 0: the teacher's shares are (near, far), the student's are equal.
    assert found[0].item() == pytest.approx(near * math.log(2 * near) + far * math.log(2 * far))
    # Row 1: the student takes the other image for the like one.
    assert found[1].item() == pytest.approx((near - far) * math.log(near / far))
    assert objective("similarity").score(3 * targets, targets).abs().max() < 1e-6
    alone = objective("similarity").loss(outputs[:1].requires_grad_(), targets[:1]).loss
    alone.backward()
    assert alone.item() == 0


@pytest.mark.parametrize("name", OBJECTIVES)
def test_targets_on_disk_give_the_same_bits(name, tmp_path):
    feed = toy_feed()
    losses = [objective(name, folder=folder).step(batch_of(feed), 0) for folder in (None, tmp_path)]
    assert losses[0].loss.item() == losses[1].loss.item()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_interrupted_training_ends_with_the_same_weights(name, tmp_path):
    def run(folder, **options):
        task = objective(name)
        config = toy_config(epochs=1.0, checkpoint_minutes=60)
        summary = train(task, toy_feed(), config, folder, name="x", seed=0, **options)
        return weights_hash(task.model), summary.metrics["loss"]

    expected = run(tmp_path / "whole")
    run(tmp_path / "parts", stop_after=2)
    assert run(tmp_path / "parts") == expected


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_can_be_learnt(name):
    task, batch = objective(name), batch_of(toy_feed())
    task.model.eval()  # without dropout
    optimizer = torch.optim.Adam(task.model.parameters(), lr=0.01)
    losses = []
    for _ in range(80):
        loss = task.step(batch, 0).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    with torch.inference_mode():
        measured = [task.measure(batch, epoch) for epoch in (0, 7)]
    assert measured[0].shape == (12,)
    assert torch.equal(*measured)  # the centre crop of each image, in every epoch


# --- a batch that must not be split ---------------------------------------------------------------
class Full:
    """A task for which the memory is too small."""

    whole_batches = True

    def __init__(self):
        self.model = nn.Linear(1, 1)

    def step(self, batch, epoch):
        if len(batch) > 4:
            raise torch.OutOfMemoryError("full. More text")
        return StepOutput(self.model.weight.sum())


def gradients(task):
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    return Gradients(task, torch.device("cpu"), torch.float32, scaler, 12)


def test_a_loss_between_images_is_never_computed_on_parts_of_a_batch():
    assert OBJECTIVES["similarity"].whole_batches
    task = Full()
    with pytest.raises(ConfigError, match=r"does not hold a batch of 12 images, .* batch_size"):
        gradients(task).add(batch_of(toy_feed()), 0)
    task.whole_batches = False
    halved = gradients(task)
    halved.add(batch_of(toy_feed()), 0)
    assert halved.micro_batch == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "regression", "balanced": True}, "objective regression does not use balan"),
        ({"objective": "regression", "temperature": 0.2}, "does not use temperature"),
        ({"pca": 64}, "objective clusters does not use pca"),
        (
            {"objective": "similarity", "training": {"accumulate": 2}},
            "the objective similarity does not use parts of a batch",
        ),
    ],
)
def test_an_option_without_effect_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TransferConfig(**options)


def test_no_augmentation_is_left_out():
    """A new option of the pictures that the target sees must reach `Objective.step` too.

    `Objective.step` and `ClassificationTask.step` show the same pictures. A new option belongs to
    both of them, and then to this list.
    """
    known = {"target", "variant", "width", "batch_norm", "dropout", "training", "image_size"}
    known |= {"objective", "pca", "temperature", "balanced", "crop", "area", "color_jitter"}
    known |= {"channels", "array_range"}  # arrays, which no view mirrors
    assert set(TransferConfig.model_fields) == known
