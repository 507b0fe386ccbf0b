"""Sums that follow the labels have the same bits as sums of all rows."""

import math

import numpy as np
import pytest

from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.limbs import units_of
from ktfast.kmeans.sums import FollowingSums, FreshSums, make_sums
from support.optional import torch
from support.tolerances import FLOAT32_CENTERS, FLOAT64_CENTERS


def rows_of(dtype, n=900, d=21, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, d)) * 20 + 60
    return x.astype(dtype)


def exact_means(x, weight, labels, k):
    """Means of the clusters from sums that are rounded once."""
    values = weight[:, None] * x.astype(np.float64)
    means = np.empty((k, x.shape[1]))
    for c in range(k):
        total = math.fsum(weight[labels == c])
        means[c] = [math.fsum(column) / total for column in values[labels == c].T]
    return means


@pytest.mark.emulated_gpu
@pytest.mark.parametrize("total", [900, 1 << 30])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "uint8", "int8"])
def test_following_gives_the_bits_of_a_fresh_start(dtype, weighted, total, backend):
    x = rows_of(dtype, d=5)
    there = backend.array(x)
    generator = np.random.default_rng(1)
    k = 30
    weight = generator.exponential(size=len(x)) if weighted else None
    previous = backend.array(np.zeros((k, x.shape[1])))

    def sums_of(shards, n_threads):
        rows = Rows(shards, n_threads=n_threads)
        rows.total = total
        return make_sums(rows, k, weight)

    following = sums_of([there[:250], there[250:]], 2)
    assert isinstance(following, FollowingSums)
    labels = generator.integers(0, k, len(x)).astype(np.int32)
    for _ in range(3):
        cost = np.ones(len(x))
        expected = sums_of([x], 1).centers(labels, cost, np.zeros((k, x.shape[1])))
        found = following.centers(backend.array(labels), backend.array(cost), previous)
        np.testing.assert_array_equal(backend.numpy(found[0]), expected[0])
        assert found[1:] == expected[1:]
        changed = generator.random(len(x)) < 0.2
        last = labels
        labels = np.where(changed, generator.integers(0, k, len(x)), labels).astype(np.int32)
    exact = exact_means(x, np.ones(len(x)) if weight is None else weight, last, k)
    tolerance = FLOAT64_CENTERS if dtype == "float64" else FLOAT32_CENTERS
    np.testing.assert_allclose(expected[0], exact, rtol=tolerance)


@pytest.mark.parametrize(
    ("dtype", "least"), [("float32", 1 << 30), ("float16", 0), ("float64", 1), ("uint8", 0)]
)
def test_sums_have_two_limbs_only_from_some_number_of_rows_on(dtype, least):
    for total in (900, 1 << 24, 1 << 30, 1 << 40):
        rows = Rows([rows_of(dtype)])
        rows.total = total
        units, of_weights = units_of(rows, None)
        assert of_weights is None
        assert units.has_low == (0 < least <= total)
        bits = min(50, 62 - total.bit_length())
        largest = np.abs(rows_of(dtype).astype(np.float64)).max(axis=0)
        np.testing.assert_array_equal(units.scale, 2.0 ** (bits - np.frexp(largest)[1]))


@pytest.mark.parametrize(("dtype", "offset"), [("float32", 0), ("float32", 1e4), ("float64", 60)])
def test_the_inertia_of_the_sums(emulated_gpu, dtype, offset):
    """The error of the costs keeps to its bound, and is small unless the mean is far."""
    x = (rows_of(dtype, n=400, d=45) + np.asarray(offset, dtype)).astype(dtype)
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 7, len(x)).astype(np.int32)
    there = torch.tensor(x, device="cuda")
    sums = make_sums(Rows([there]), 7, None)
    sums.follow(slice(0, len(x)), there, torch.tensor(labels, device="cuda"))
    assert sums.gives_costs
    exact_x, centers = x.astype(np.longdouble), x[:7].astype(np.float64)
    inertia = ((exact_x - centers[labels]) ** 2).sum()
    for mean in (x.mean(axis=0, dtype=np.float64), np.zeros(45)):
        costs, errors = sums.costs(*(torch.tensor(a, device="cuda") for a in (centers, mean)))
        found = ((exact_x - mean) ** 2).sum() + costs.astype(np.longdouble).sum()
        assert abs(found - inertia) <= errors.sum()
    assert errors.sum() < 1e-6 * inertia or offset == 1e4


def test_more_rows_than_the_low_limbs_of_one_call():
    x = np.random.default_rng(0).random((600_001, 1))
    labels = (np.arange(len(x)) % 2).astype(np.int32)
    centers, _, _ = make_sums(Rows([x]), 2, None).centers(labels, None, np.zeros((2, 1)))
    exact = [[math.fsum(x[c::2, 0]) / len(x[c::2])] for c in range(2)]
    np.testing.assert_allclose(centers, exact, rtol=FLOAT64_CENTERS)


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
def test_what_two_limbs_would_lose_is_added_up_in_float64(backend, caplog):
    plain = rows_of("float32")
    outlying, far = plain.copy(), plain.copy()
    outlying[3, 5], far[3, 5] = 1e15, 1e30
    tiny = np.ones(len(plain))
    tiny[7] = 1e-30
    for x, weight, kind in (
        (plain, None, FollowingSums),
        (outlying, None, FollowingSums),
        (far, None, FreshSums),
        (plain, np.ones(len(plain)), FollowingSums),
        (plain, tiny, FreshSums),
    ):
        caplog.clear()
        sums = make_sums(Rows([backend.array(x)]), 4, weight)
        assert isinstance(sums, kind)
        assert ("adds up float64 numbers" in caplog.text) == (kind is FreshSums)
        labels = (np.arange(len(plain)) % 4).astype(np.int32)
        arguments = labels, np.ones(len(plain)), np.zeros((4, plain.shape[1]))
        centers, _, _ = sums.centers(*map(backend.array, arguments))
        exact = exact_means(x, np.ones(len(x)) if weight is None else weight, labels, 4)
        np.testing.assert_allclose(backend.numpy(centers), exact, rtol=FLOAT32_CENTERS)


def test_clusters_of_weight_zero_are_relocated_or_kept(backend):
    x = np.array([[0.0], [1], [9], [5]])
    weight = np.array([1.0, 3, 2, 0])
    sums = make_sums(Rows([backend.array(x)]), 3, weight)
    cost = np.zeros(4), np.array([0.0, 1, 81, 25])
    for distances, expected in zip(cost, ([3.5, 0, 7.0], [0.0, 9, 1.0]), strict=True):
        labels = np.array([0, 0, 0, 1], np.int32)
        arguments = labels, distances, np.array([[0.0], [0], [7]])
        centers, _, _ = sums.centers(*map(backend.array, arguments))
        assert backend.numpy(centers)[:, 0].tolist() == expected


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
