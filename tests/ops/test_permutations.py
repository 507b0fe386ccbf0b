"""Permutation sets: distances, determinism and refusals."""

import numpy as np
import pytest

import ktfast
from ktfast.errors import InputError
from ktfast.ops.permutations import permutation_set


def hamming_distances(rows):
    """The number of places in which each pair of rows differs."""
    first, second = np.triu_indices(len(rows), k=1)
    return (rows[first] != rows[second]).sum(axis=1)


def assert_permutations(rows, n, cells):
    assert rows.shape == (n, cells)
    assert rows.dtype == np.uint8
    assert rows.flags.c_contiguous
    np.testing.assert_array_equal(np.sort(rows, axis=1), np.tile(np.arange(cells), (n, 1)))


def test_default_set_exceeds_the_method_s_distance():
    rows = ktfast.permutation_set()
    assert_permutations(rows, 701, 9)
    distances = hamming_distances(rows)
    assert distances.min() == 5
    assert distances.mean() == pytest.approx(8.0, abs=0.05)
    assert len(np.unique(rows, axis=0)) == 701


def test_each_place_sees_every_tile():
    # If a tile never appeared in some place, a network could tell puzzles apart by the place.
    rows = permutation_set(701)
    counts = np.array([np.bincount(column, minlength=9) for column in rows.T])
    assert counts.min() > 40


def test_seed_decides_the_set_and_smaller_sets_are_prefixes():
    rows = permutation_set(50, seed=3)
    np.testing.assert_array_equal(rows, permutation_set(50, seed=3))
    np.testing.assert_array_equal(rows[:20], permutation_set(20, seed=3))
    assert not np.array_equal(rows, permutation_set(50, seed=4))


def test_set_is_the_same_on_every_machine():
    expected = [[5, 2, 7, 6, 8, 0, 3, 4, 1], [3, 8, 5, 1, 7, 6, 2, 0, 4]]
    np.testing.assert_array_equal(permutation_set(2), expected)


def test_global_generator_is_untouched():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    permutation_set(10)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize(
    ("n", "distance"), [(1, 4), (2, 4), (4, 4), (12, 3), (13, 2), (23, 2), (24, 2), (24, 1)]
)
@pytest.mark.parametrize("seed", range(5))
def test_two_by_two_reaches_every_possible_size(n, distance, seed):
    rows = permutation_set(n, grid=2, min_distance=distance, seed=seed)
    assert_permutations(rows, n, 4)
    if n > 1:
        assert hamming_distances(rows).min() >= distance
    assert len(np.unique(rows, axis=0)) == n


@pytest.mark.parametrize(("n", "distance"), [(701, 12), (100, 13), (16, 14)])
def test_four_by_four(n, distance):
    rows = permutation_set(n, grid=4, min_distance=distance)
    assert_permutations(rows, n, 16)
    assert hamming_distances(rows).min() >= distance
    np.testing.assert_array_equal(rows, permutation_set(n, grid=4, min_distance=distance))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 25, "grid": 2, "min_distance": 2}, "at most 24"),
        ({"n": 25, "grid": 2, "min_distance": 1}, "at most 24"),
        ({"n": 13, "grid": 2, "min_distance": 3}, "at most 12"),
        ({"n": 10, "min_distance": 9}, "at most 9"),
        ({"n": 400_000}, "at most 181440"),
        ({"n": 72, "min_distance": 8}, "reached"),
        ({"n": 5000, "grid": 4, "min_distance": 16}, "at most 16"),
        ({"n": 0}, "n must be"),
        ({"grid": 5}, "grid must be"),
        ({"grid": 1}, "grid must be"),
        ({"min_distance": 0}, "min_distance must be 1 to 9"),
        ({"grid": 2, "min_distance": 5}, "min_distance must be 1 to 4"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(InputError, match=message):
        permutation_set(**options)
