"""The tree that adds up lanes, and what is refused; `test_several_processes` trains with lanes."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from ktfast.config import TrainingConfig
from ktfast.errors import ConfigError
from ktfast.kmeans.distributed import CommunicationError
from ktfast.kmeans.distributed.ranks import ALONE, Ranks
from ktfast.training.lane_tree import own_lanes, subtrees, tree_sum
from ktfast.training.lanes import Lanes, check_equal_weights
from support.spread_fits import in_threads


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
