"""Training on balanced epochs resumes exactly, and refuses other pseudo-labels."""

from dataclasses import replace

import numpy as np
import pytest

from ktfast.errors import ConfigError
from ktfast.images.balance import Balance
from ktfast.images.feeds.balanced import BalancedFeed
from ktfast.training.loop import train
from support.photographs import MemoryFeed
from support.toy_training import CLASSES, toy_config, toy_feed, toy_task, weights_hash

GROUPS = np.arange(64) // 4 % 5 * (np.arange(64) > 40)


def balanced(groups) -> BalancedFeed:
    feed: MemoryFeed = toy_feed()
    feed.plan = replace(feed.plan, balance=Balance(groups))
    return BalancedFeed(feed)


def trained(folder, feed, **options):
    task = toy_task(toy_feed())
    summary = train(task, feed, toy_config(), folder, name="toy", seed=2, **options)
    return summary, weights_hash(task.model)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("whole"), balanced(GROUPS))[1]


@pytest.mark.parametrize("stops", [[3], [8, 6]])
def test_interrupted_training_ends_with_the_same_weights(whole, tmp_path, stops):
    for steps in stops:
        assert not trained(tmp_path, balanced(GROUPS), stop_after=steps)[0].finished
    summary, digest = trained(tmp_path, balanced(GROUPS))
    assert summary.resumed_from == sum(stops)
    assert digest == whole


def test_balance_makes_a_difference(whole, tmp_path):
    assert trained(tmp_path, toy_feed())[1] != whole
    assert len(np.unique(GROUPS)) == CLASSES


def test_other_groups_are_refused(tmp_path):
    trained(tmp_path, balanced(GROUPS), stop_after=2)
    for other in (balanced(GROUPS[::-1]), toy_feed()):
        with pytest.raises(ConfigError, match="balance"):
            trained(tmp_path, other)
