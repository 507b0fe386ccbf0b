"""The tree that adds up lanes, and what is refused; `test_several_processes` trains with lanes."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from ktfast.config import TrainingConfig, TransferConfig
from ktfast.errors import ConfigError
from ktfast.kmeans.distributed import CommunicationError
from ktfast.kmeans.distributed.ranks import ALONE, Ranks
from ktfast.training.ddp import Parallel, backend_of
from ktfast.training.lane_tree import lane_bounds, own_lanes, subtrees, tree_sum
from ktfast.training.lanes import Lanes, check_equal_weights
from ktfast.training.loop import train
from support.photographs import MemoryFeed, squares
from support.spread_fits import in_threads
from support.toy_training import toy_config, toy_task


@pytest.mark.parametrize("lanes", [1, 2, 6, 12])
def test_the_tree_of_sums_does_not_depend_on_the_processes(lanes):
    vectors = np.random.default_rng(0).normal(size=(lanes, 7)).astype(np.float32)

    def node(first, end):
        middle = (first + end) // 2
        return vectors[first] if end == first + 1 else node(first, middle) + node(middle, end)

    for size in (n for n in range(1, lanes + 1) if lanes % n == 0):

        def add(communicator):
            ranks = Ranks(communicator)
            own = subtrees(lanes, own_lanes(lanes, ranks))
            return tree_sum(ranks, lanes, {span: node(*span) for span in own})

        results, errors = in_threads(size, add)
        assert errors == [None] * size
        for result in results:
            np.testing.assert_array_equal(result, node(0, lanes))


def test_lanes_that_processes_cannot_share_are_refused():
    gradients = SimpleNamespace(task=SimpleNamespace(model=nn.Linear(2, 2)))
    three = SimpleNamespace(size=3, rank=0)
    with pytest.raises(ConfigError, match=r"3 processes cannot share evenly; start .*: 1, 2, 4;"):
        Lanes(gradients, 4, three, 0)
    gradients.task.whole_batches = True
    with pytest.raises(ConfigError, match="compares the images of a batch"):
        Lanes(gradients, 4, ALONE, 0)


def test_no_lane_is_one_image_if_the_network_cannot_take_one():
    assert lane_bounds(12, 4, lone=True) == [0, 3, 6, 9, 12]
    for lanes in range(1, 9):
        for n in range(1, 40):
            plain = [n * i // lanes for i in range(lanes + 1)]
            assert lane_bounds(n, lanes, lone=True) == plain
            bounds = lane_bounds(n, lanes, lone=False)
            sizes = np.diff(bounds)
            assert len(bounds) == lanes + 1
            assert sum(sizes) == n
            assert min(sizes) >= 0
            assert 1 not in sizes or n == 1
            if min(np.diff(plain)) > 1:
                assert bounds == plain  # the weights of earlier versions


def test_lanes_of_one_image_train_a_network_that_ends_in_one_pixel(tmp_path):
    # The last batch of an epoch has two images, for four lanes.
    feed = MemoryFeed(squares(14, 44), 12)
    task = toy_task(feed)
    torch.manual_seed(1)
    task.model = nn.Sequential(
        nn.AvgPool2d(40), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 5)
    )
    config = toy_config(epochs=1, lanes=4)
    summary = train(task, feed, config, tmp_path, name="toy", seed=2, progress=False)
    assert summary.steps == 2


@pytest.mark.parametrize(("name", "parts"), [("lanes", 2), ("accumulate", 3)])
def test_ddp_with_parts_of_a_batch_is_refused(name, parts):
    with pytest.raises(ValidationError, match=f"{name} is {parts}, but a training with ddp"):
        TrainingConfig(ddp=True, **{name: parts})


def test_ddp_is_refused_if_the_loss_compares_the_images_of_a_batch():
    task = SimpleNamespace(model=nn.Linear(2, 2), whole_batches=True)
    with pytest.raises(ConfigError, match=r"leave training\.ddp out"):
        Parallel(SimpleNamespace(task=task), ALONE, 0)
    with pytest.raises(ValidationError, match=r"leave transfer\.training\.ddp out"):
        TransferConfig(objective="similarity", training={"ddp": True})


def test_nccl_is_used_if_every_process_has_a_gpu_of_its_own():
    assert backend_of([("a", "cuda:0"), ("a", "cuda:1"), ("b", "cuda:0")]) == "nccl"
    assert backend_of([("a", "cuda:0"), ("a", "cuda:0")]) == "gloo"
    assert backend_of([("a", "cuda:0"), ("b", "cpu")]) == "gloo"
    assert backend_of([("a", "cpu"), ("b", "cpu")]) == "gloo"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate": 2}, "each lane is one micro-batch"),
        ({"batch_size": 3}, "give at most batch_size lanes"),
    ],
)
def test_options_that_contradict_lanes_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        TrainingConfig(lanes=4, **options)


def test_a_flipped_bit_in_the_weights_of_one_process_is_an_error_on_all():
    def check(communicator):
        model = nn.BatchNorm1d(3)
        if communicator.rank == 1:
            model.running_mean.view(torch.int32)[2] ^= 1
        check_equal_weights(Ranks(communicator), model, 5)

    for error in in_threads(2, check)[1]:
        assert isinstance(error, CommunicationError)
        assert "weights of process 1 differ" in str(error)
