"""Sums that follow the labels have the same bits as sums of all rows."""

import numpy as np
import pytest

from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.sums import FollowingSums, FreshSums, make_sums
from support.tolerances import FLOAT32_CENTERS


def rows_of(dtype, n=900, d=21, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, d)) * 20 + 60
    return x.astype(dtype)


@pytest.mark.emulated_gpu
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "int8"])
def test_following_gives_the_bits_of_a_fresh_start(dtype, backend):
    x = rows_of(dtype)
    there = backend.array(x)
    generator = np.random.default_rng(1)
    k = 30
    previous = backend.array(np.zeros((k, x.shape[1])))
    following = make_sums(Rows([there[:250], there[250:]], n_threads=2), k, None)
    assert isinstance(following, FollowingSums)
    labels = generator.integers(0, k, len(x)).astype(np.int32)
    for _ in range(6):
        fresh = make_sums(Rows([x], n_threads=1), k, None)
        cost = np.ones(len(x))
        expected = fresh.centers(labels, cost, np.zeros((k, x.shape[1])))
        found = following.centers(backend.array(labels), backend.array(cost), previous)
        np.testing.assert_array_equal(backend.numpy(found[0]), expected[0])
        assert found[1:] == expected[1:]
        exact = [x[labels == c].mean(axis=0, dtype=np.float64) for c in range(k)]
        np.testing.assert_allclose(expected[0], exact, rtol=FLOAT32_CENTERS)
        changed = generator.random(len(x)) < 0.2
        labels = np.where(changed, generator.integers(0, k, len(x)), labels).astype(np.int32)


def test_an_empty_cluster_takes_the_costliest_row(backend):
    x = np.array([[0.0], [1], [9]], np.float32)
    sums = make_sums(Rows([backend.array(x)]), 2, None)
    cost = x[:, 0].astype(float) ** 2
    arguments = np.zeros(3, np.int32), cost, np.zeros((2, 1))
    centers, shift, relocated = sums.centers(*map(backend.array, arguments))
    assert centers.tolist() == [[0.5], [9.0]]
    assert shift == 0.25 + 81
    assert relocated == 1


@pytest.mark.emulated_gpu
def test_what_integers_would_lose_is_added_up_in_float64(backend):
    plain = rows_of("float32")
    assert isinstance(make_sums(Rows([backend.array(plain)]), 4, None), FollowingSums)
    outlying = plain.copy()
    outlying[3, 5] = 1e15
    for x, weight in (
        (outlying, None),
        (plain.astype(np.float64), None),
        (plain, np.ones(len(plain))),
    ):
        sums = make_sums(Rows([backend.array(x)]), 4, weight)
        assert isinstance(sums, FreshSums)
        labels = (np.arange(len(plain)) % 4).astype(np.int32)
        arguments = labels, np.ones(len(plain)), np.zeros((4, plain.shape[1]))
        centers, _, _ = sums.centers(*map(backend.array, arguments))
        exact = [x[labels == c].mean(axis=0, dtype=np.float64) for c in range(4)]
        np.testing.assert_allclose(backend.numpy(centers), exact, rtol=FLOAT32_CENTERS)


def test_features_of_unlike_size_and_zeros(backend):
    x = rows_of("float32") * np.float32(10) ** np.arange(-10, 11, dtype=np.float32)
    x[:, 4] = 0
    sums = make_sums(Rows([backend.array(x)]), 3, None)
    assert isinstance(sums, FollowingSums)
    labels = (np.arange(len(x)) % 3).astype(np.int32)
    arguments = labels, np.ones(len(x)), np.zeros((3, x.shape[1]))
    centers, _, _ = sums.centers(*map(backend.array, arguments))
    exact = [x[labels == c].mean(axis=0, dtype=np.float64) for c in range(3)]
    np.testing.assert_allclose(backend.numpy(centers), exact, rtol=FLOAT32_CENTERS)
