"""The judge of features: which images it looks at, what it measures, and what it leaves alone."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ktfast.errors import InputError
from ktfast.evaluation.knn import knn_accuracy
from ktfast.models import VGG16, initialize
from ktfast.pretext.neighbours import Judge, clustered_rows, judged_rows
from support.one_thread import one_thread_and_a_seed  # noqa: F401
from support.photographs import squares


def test_classes_are_judged_by_equally_many_images():
    labels = np.repeat([0, 1, 2, -1], [5000, 400, 300, 50])
    rows = judged_rows(labels)
    assert np.bincount(labels[rows]).tolist() == [333, 333, 300]
    assert rows.tolist() == sorted(set(rows.tolist()))
    many = np.repeat(np.arange(1000), 13)
    assert np.unique(many[judged_rows(many)], return_counts=True)[1].tolist() == [10] * 100


@pytest.mark.parametrize(
    "labels", [[], [-1] * 50, [0] * 50, list(range(50)), [0] * 49 + [1], [0] * 5 + [1] * 5]
)
def test_no_features_are_judged_without_classes(labels):
    assert judged_rows(np.array(labels, np.int64)).size == 0


def test_leaving_one_out_is_a_vote_of_the_other_rows():
    generator = np.random.default_rng(0)
    y = generator.integers(0, 3, 40)
    x = torch.from_numpy((generator.normal(size=(40, 6)) + 0.8 * np.eye(6)[y]).astype(np.float32))
    others = [[i for i in range(40) if i != row] for row in range(40)]
    votes = [
        knn_accuracy(x[rest], y[rest], x[row : row + 1], y[row : row + 1], k=5).top1
        for row, rest in enumerate(others)
    ]
    found = knn_accuracy(x, y, x, y, k=5, own_rows=np.arange(40))
    assert found.top1 == pytest.approx(np.mean(votes))
    assert found.mean_per_class == pytest.approx(
        np.mean([np.mean(np.array(votes)[y == name]) for name in range(3)])
    )
    with pytest.raises(InputError, match=r"k must lie in 1\.\.39"):
        knn_accuracy(x, y, x, y, k=40, own_rows=np.arange(40))


def judge_of(trunk, n=24):
    pictures = squares(n, 48)
    pictures[::2] //= 4  # two classes that even random weights tell apart
    source = SimpleNamespace(
        labels=np.arange(n) % 2, square=lambda row, short_side, size: pictures[row][:size, :size]
    )
    return Judge(trunk, source, np.arange(n), short_side=48, size=40, n_threads=1)


def test_judging_leaves_network_and_random_generators_alone():
    trunk = VGG16(0, width=0.125, batch_norm=True)
    trunk.truncate(trunk.puzzle_layer)
    initialize(trunk)
    trunk.train()
    judge = judge_of(trunk)
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    generator = torch.get_rng_state()
    found = judge.accuracy()
    assert 0 <= found <= 1
    assert found == judge.accuracy()
    assert all(module.training for module in trunk.modules())
    assert all(torch.equal(value, before[name]) for name, value in trunk.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)


def test_features_that_are_not_finite_are_left_to_the_loss():
    trunk = VGG16(0, width=0.125)
    trunk.truncate(trunk.puzzle_layer)
    initialize(trunk)
    with torch.no_grad():
        next(trunk.parameters()).fill_(torch.nan)
    assert judge_of(trunk).accuracy() is None


def test_images_without_classes_are_judged_by_two_clusterings():
    assert clustered_rows(19).size == 0
    assert clustered_rows(20).tolist() == list(range(20))
    assert len(clustered_rows(2500)) == 1000
    trunk = VGG16(0, width=0.125, batch_norm=True)
    trunk.truncate(trunk.puzzle_layer)
    initialize(trunk)
    trunk.train()
    judge = judge_of(trunk)  # two groups of images: k is 2, and both clusterings find the groups
    generator = torch.get_rng_state()
    assert judge.agreement() == judge.agreement() == pytest.approx(1)
    assert all(module.training for module in trunk.modules())
    assert torch.equal(torch.get_rng_state(), generator)
    with torch.no_grad():
        next(trunk.parameters()).fill_(0)  # all images have the same features
    assert judge.agreement() is None
    with torch.no_grad():
        next(trunk.parameters()).fill_(torch.nan)
    assert judge.agreement() is None
