"""Measures without labels: each by hand, and each on input that it must refuse."""

import math

import numpy as np
import pytest

from ktfast.errors import InputError
from ktfast.evaluation.unlabelled import (
    adjusted_rand_index,
    effective_rank,
    held_out_accuracy,
    shared_neighbours,
)
from ktfast.evaluation.unlabelled_result import Pair, UnlabelledMeasures


def test_the_rand_index_by_hand():
    """Of 15 pairs, `first` joins 3 + 3, `second` joins 1 + 1 + 1, and both join 1 + 0 + 1."""
    first, second = [0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 2, 2]
    expected = 6 * 3 / 15
    by_hand = (2 - expected) / ((6 + 3) / 2 - expected)
    assert adjusted_rand_index(first, second) == pytest.approx(by_hand)
    assert adjusted_rand_index(first, [7, 7, 7, 2, 2, 2]) == 1.0


def test_neighbours_shared_by_hand():
    """Four unit vectors on a circle: at 0, 10, 90 and 100 degrees, then in another order."""
    first = circle(0, 10, 90, 100)  # the nearest other rows are 1, 0, 3, 2
    second = circle(0, 90, 10, 91)  # the nearest other rows are 2, 3, 0, 1
    assert shared_neighbours(first, first, k=1) == 1.0
    assert shared_neighbours(first, second, k=1) == 0.0
    third = circle(0, 10, 50, 52)  # 1, 0, 3, 2
    assert shared_neighbours(first, third, k=1) == 1.0
    fourth = circle(0, 10, 15, 120)  # 1, 2, 1, 2
    assert shared_neighbours(first, fourth, k=1) == pytest.approx(2 / 4)
    assert shared_neighbours(first, second, k=3) == 1.0


def circle(*degrees):
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)


def test_neighbours_do_not_depend_on_the_block(monkeypatch):
    rng = np.random.default_rng(0)
    first = rng.normal(size=(50, 6)).astype(np.float32)
    second = (first + rng.normal(size=(50, 6))).astype(np.float32)
    whole = shared_neighbours(first, second, k=7)
    monkeypatch.setattr("ktfast.evaluation.unlabelled._QUERIES_PER_BLOCK", 8)
    assert shared_neighbours(first, second, k=7) == whole
    assert 7 / 49 < whole < 1


def test_equal_rows_have_neighbours_in_the_order_of_rows():
    equal = np.ones((4, 3), np.float32)
    assert shared_neighbours(equal, equal, k=2) == 1.0


def test_the_effective_rank_by_hand():
    """Centred rows with singular values 2 sqrt(2) and sqrt(2): shares 2/3 and 1/3."""
    rows = np.array([[2, 0], [-2, 0], [0, 1], [0, -1]], np.float32) + np.float32([5, -3])
    by_hand = math.exp(-(2 / 3) * math.log(2 / 3) - (1 / 3) * math.log(1 / 3))
    assert effective_rank(rows) == pytest.approx(by_hand)
    assert effective_rank(np.ascontiguousarray(rows.T).T) == pytest.approx(by_hand)
    wide = np.concatenate([rows, np.zeros((4, 9), np.float32)], 1)
    assert effective_rank(wide) == pytest.approx(by_hand)
    assert effective_rank(np.float32([[0, 1], [0, 3], [0, 4]])) == pytest.approx(1)


@pytest.mark.parametrize("value", [0.0, 1.0, 1e-30, 1e30])
def test_equal_rows_have_no_direction(value):
    assert effective_rank(np.full((5, 3), value, np.float32)) == 0


def test_the_effective_rank_keeps_under_scale_and_rotation():
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(40, 8)) * np.arange(1, 9)
    turned = rows @ np.linalg.qr(rng.normal(size=(8, 8)))[0]
    for other in (rows * 1e25, rows * 1e-25, turned):
        assert effective_rank(other) == pytest.approx(effective_rank(rows))


def test_held_out_pseudo_labels_by_hand():
    """Two far groups: the features predict the labels of the groups, and no other labels."""
    groups = np.repeat([0, 1], 20)
    features = np.stack([1 - groups, groups], 1).astype(np.float32)
    assert held_out_accuracy(features, groups + 5, k=3) == 1.0
    alone = np.arange(40)  # the label of a held-out image occurs nowhere else
    assert held_out_accuracy(features, alone, k=3) == 0.0


def test_the_draw_depends_on_the_seed_only():
    rng = np.random.default_rng(2)
    features, labels = rng.normal(size=(60, 5)).astype(np.float32), rng.integers(0, 3, 60)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first = [held_out_accuracy(features, labels, k=5, seed=seed) for seed in range(6)]
    assert first == [held_out_accuracy(features, labels, k=5, seed=seed) for seed in range(6)]
    assert len(set(first)) > 1
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002


def test_more_neighbours_than_images_all_vote():
    features = np.eye(3, dtype=np.float32)
    assert held_out_accuracy(features, [4, 4, 4], k=20) == 1.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: adjusted_rand_index([0.5], [1]), "first must be a vector of integers"),
        (lambda: adjusted_rand_index([0], [1, 2]), "got 1 and 2"),
        (lambda: adjusted_rand_index(np.zeros(0, int), np.zeros(0, int)), "got 0 and 0"),
        (lambda: held_out_accuracy(np.ones((1, 2), "f4"), [0], k=1), "at least 2 images"),
        (lambda: shared_neighbours(np.eye(3), np.eye(2), k=1), "one row per image"),
        (lambda: shared_neighbours(np.eye(3), np.eye(3), k=3), r"k must lie in 1\.\.2"),
        (lambda: shared_neighbours(np.full((3, 2), np.nan), np.eye(3), k=1), "NaN"),
        (lambda: effective_rank(np.full((3, 2), np.inf)), "NaN or infinity"),
        (lambda: effective_rank(np.zeros((0, 2))), "n > 0"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_the_measures_survive_json():
    measures = UnlabelledMeasures(Pair(0.5, 0.25), Pair(0.75), layer="conv5", images=7, voters=9)
    assert UnlabelledMeasures.from_json(measures.to_json()) == measures
    assert UnlabelledMeasures.from_json({"agreement": 3, "images": "x"}) == UnlabelledMeasures()
    assert UnlabelledMeasures.from_json(None) is None
