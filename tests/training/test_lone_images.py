"""A batch of one image: batch-norm of a map of one pixel cannot be trained on it alone."""

import pytest
import torch
from torch import nn

from ktfast.config import TransferConfig
from ktfast.errors import ConfigError
from ktfast.pipeline.steps.networks import target_network
from ktfast.training.classification import ClassificationTask
from ktfast.training.loop import train
from support.one_thread import one_thread  # noqa: F401
from support.photographs import MemoryFeed, squares
from support.toy_training import toy_config, weights_hash

N = 13  # images: three batches of four, and one image


class Watched(ClassificationTask):
    """A task that keeps the ids of the images of each part on which gradients are computed."""

    def step(self, batch, epoch):
        if torch.is_grad_enabled():
            self.parts = [*getattr(self, "parts", []), batch.sample_ids.tolist()]
        return super().step(batch, epoch)


def network(side: int) -> nn.Sequential:
    """A network whose batch-norm sees a map of side x side pixels."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(side), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * side**2, 2),
    )  # fmt: skip


def trained(folder, model=None, n=N, batch_size=4, epochs=2.0, accumulate=1, **options):
    """Train on n images; return the sizes of the trained parts, the ids, and the weights' hash."""
    torch.manual_seed(0)
    model = model or network(side=1)
    feed = MemoryFeed(squares(n, 32), batch_size)
    task = Watched(model, torch.arange(n) % 2, crop=32, seed=0)
    config = toy_config(batch_size=batch_size, epochs=epochs, accumulate=accumulate)
    train(task, feed, config, folder, name="toy", seed=2, progress=False, **options)
    ids = [number for part in task.parts for number in part]
    return [len(part) for part in task.parts], ids, feed.source.sample_ids, weights_hash(task.model)


def test_the_batch_before_gives_an_image_to_a_lone_one(tmp_path):
    sizes, ids, every, _ = trained(tmp_path)
    assert sizes[-8:] == [4, 4, 3, 2] * 2
    assert sorted(ids[-N:]) == sorted(ids[-2 * N : -N]) == sorted(every)  # once an epoch


def test_a_network_that_takes_one_image_sees_the_same_batches_as_ever(tmp_path):
    sizes, _, _, _ = trained(tmp_path, network(side=2))
    assert sizes[-8:] == [4, 4, 4, 1] * 2


def test_a_student_of_torchvision_is_trained(tmp_path):
    student = target_network(TransferConfig(target="torchvision:resnet18", crop=32), 2)
    sizes, _, _, _ = trained(tmp_path, student, n=4, batch_size=3, epochs=1.0)
    assert sizes[-2:] == [2, 2]


@pytest.mark.parametrize("steps", [2, 3, 6])
def test_a_resumed_training_has_the_same_weights(tmp_path, steps):
    expected = trained(tmp_path / "whole")[-1]
    trained(tmp_path / "resumed", stop_after=steps)
    assert trained(tmp_path / "resumed")[-1] == expected


@pytest.mark.parametrize(("batch_size", "accumulate", "expected"), [
    (13, 3, [5, 5, 3]), (13, 4, [4, 4, 3, 2]), (13, 6, [3, 3, 3, 2, 2]), (13, 7, [2, 2, 2, 2, 2, 3])
])  # fmt: skip
def test_no_part_of_a_batch_is_one_image(tmp_path, batch_size, accumulate, expected):
    options = {"batch_size": batch_size, "accumulate": accumulate, "epochs": 1.0}
    sizes, _, _, _ = trained(tmp_path, **options)
    assert sizes[-len(expected) :] == expected


@pytest.mark.parametrize(("n", "batch_size", "accumulate"), [(4, 1, 1), (3, 2, 1), (4, 4, 4)])
def test_one_image_at_a_time_is_refused(tmp_path, n, batch_size, accumulate):
    with pytest.raises(ConfigError, match=r"one image at a time.* give a batch_size of at least 3"):
        trained(tmp_path, n=n, batch_size=batch_size, accumulate=accumulate)
