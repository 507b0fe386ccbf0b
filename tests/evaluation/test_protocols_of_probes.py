"""The named variants of the linear probe, and the support vector machines."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.svm import LinearSVC

from ktfast.errors import InputError
from ktfast.evaluation.low_label import Share, draw_seed, labelled_share
from ktfast.evaluation.pooling import pooled_size
from ktfast.evaluation.protocols import VARIANTS, LinearHead, ten_crops, windows
from ktfast.evaluation.svm import COSTS, low_shot_svm, svm_precisions


@pytest.mark.parametrize(
    ("channels", "side", "expected"),
    [(96, 55, (6, 6, 3)), (256, 27, (4, 4, 0)), (384, 13, (3, 3, 1)), (256, 13, (2, 2, 0))],
)
def test_the_windows_of_deepcluster_are_those_of_its_script(channels, side, expected):
    grid = pooled_size(channels, side)
    assert windows(VARIANTS["deepcluster"], side, grid) == expected
    x = torch.rand(2, channels, side, side)
    assert torch.nn.functional.avg_pool2d(x, *expected).shape[-2:] == (grid, grid)


@pytest.mark.parametrize(
    ("channels", "side", "kernel", "stride"), [(96, 109, 28, 9), (256, 54, 24, 6), (384, 26, 14, 3)]
)
def test_the_windows_of_goyal_are_those_of_its_networks(channels, side, kernel, stride):
    grid = pooled_size(channels, side)
    assert windows(VARIANTS["goyal"], side, grid) == (kernel, stride, 0)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("side", [1, 2, 3, 7, 15, 56])
@pytest.mark.parametrize("channels", [8, 64, 512])
def test_a_head_fits_maps_of_every_size(name, side, channels):
    head = LinearHead(VARIANTS[name], channels, side, n_classes=3, seed=0)
    assert head(torch.rand(2, channels, side, side)).shape == (2, 3)


def test_ten_crops_are_corners_centre_and_their_mirrors():
    image = torch.arange(16).reshape(1, 4, 4, 1)
    crops = [crop[0, ..., 0].tolist() for crop in ten_crops(image, 2)]
    assert crops[:5] == [
        [[0, 1], [4, 5]], [[2, 3], [6, 7]], [[8, 9], [12, 13]], [[10, 11], [14, 15]],
        [[5, 6], [9, 10]],
    ]  # fmt: skip
    assert crops[5] == [[1, 0], [5, 4]]
    assert len(crops) == 10


def test_shares_by_count_are_nested_and_draws_differ():
    labels = np.repeat([0, 1, 2], [100, 40, 3])
    few, more = (labelled_share(labels, Share(count=k), seed=3) for k in (5, 20))
    assert np.bincount(labels[few]).tolist() == [5, 5, 3]
    assert np.bincount(labels[more]).tolist() == [20, 20, 3]
    assert set(few) < set(more)
    assert draw_seed(7, 0) == 7
    assert len({draw_seed(7, draw) for draw in range(100)} | {draw_seed(8, 1)}) == 101
    for wrong in ({}, {"fraction": 0.5, "count": 3}, {"count": 0}):
        with pytest.raises(InputError):
            Share(**wrong)


@pytest.fixture(scope="module")
def digits():
    """Digits as photographs of two of four classes: x [300, 64] and [100, 64], presence."""
    x, y = load_digits(n_class=4, return_X_y=True)
    presence = np.where(np.arange(4) == y[:, None], 1, -1)
    presence[:, 3] = np.where(y == 2, 1, -1)  # a class that is always beside another
    return x[:300], presence[:300], x[300:400], presence[300:400]


def test_the_machines_are_those_of_scikit_learn(digits):
    x, presence, test_x, test_presence = digits
    found = svm_precisions(*digits, costs=[0.1])
    rows, test_rows = (
        part / (np.linalg.norm(part, axis=1) + 1e-5)[:, None] for part in (x, test_x)
    )
    machine = LinearSVC(C=0.1, class_weight={1: 2, -1: 1}, max_iter=2000, random_state=0)
    machine.fit(rows, presence[:, 0])
    order = np.argsort(-machine.decision_function(test_rows), kind="stable")
    hits = test_presence[order, 0] > 0
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    assert found.area[0] == pytest.approx(precision[hits].mean())
    assert found.mean > 0.9


def test_a_cost_is_chosen_without_the_test_images(digits):
    x, presence, test_x, test_presence = digits
    few = [0.5**19, 0.1]
    found = svm_precisions(*digits, costs=few)
    expected = svm_precisions(*digits, costs=[0.1]).area
    assert found.area.tolist() == pytest.approx(expected.tolist(), abs=0.05)
    shuffled = svm_precisions(x, presence, test_x[::-1], test_presence[::-1], costs=few)
    assert shuffled.mean == pytest.approx(found.mean)
    assert min(COSTS) == 0.5**19


def test_classes_that_nobody_can_learn_have_no_precision(digits):
    x, presence, test_x, test_presence = digits
    presence = presence.copy()
    presence[presence[:, 1] > 0, 1] = 0  # all its photographs are difficult
    found = svm_precisions(x, presence, test_x, test_presence, costs=[0.1])
    assert np.isnan(found.area).tolist() == [False, True, False, False]


def test_few_photographs_of_each_class(digits):
    found = low_shot_svm(*digits, shots=(1, 4, 1000), samples=3, costs=[0.01, 0.1])
    assert [row.shots for row in found] == [1, 4]  # no class has 1000 photographs
    assert all(len(row.samples) == 3 for row in found)
    assert len(set(found[0].samples)) == 3
    assert np.mean(found[1].samples) > np.mean(found[0].samples)
    again = low_shot_svm(*digits, shots=(1, 4), samples=3, costs=[0.01, 0.1])
    assert [row.samples for row in again] == [row.samples for row in found]
    with pytest.raises(InputError, match="NaN"):
        low_shot_svm(np.full((300, 2), np.nan), *digits[1:])
