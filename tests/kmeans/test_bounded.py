"""Bounded cluster sizes hold exactly, and the assignment within them is close to the best one."""

import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

import ktfast
from ktfast import KMeans
from ktfast.errors import InputError
from ktfast.kmeans import balance
from ktfast.kmeans.balance import Bounds, bounded_labels
from ktfast.kmeans.data.rows import Rows
from support.kmeans_cases import mixture
from support.optional import torch


@pytest.fixture(scope="module")
def digits(data_folder):
    x = np.load(data_folder / "vectors" / "mnist_70k_uint8.npz")
    return x[x.files[0]].reshape(-1, 784)[:3000]


def assert_bounded(model, x, low, high):
    """Check the sizes, and that centres, inertia and counts belong to the labels."""
    k = model.n_clusters
    counts = np.bincount(model.labels_, minlength=k)
    assert low <= counts.min() <= counts.max() <= high
    np.testing.assert_array_equal(model.counts_, counts)
    assert model.n_effective_clusters_ == k
    x64 = np.asarray(x, np.float64)
    means = np.array([x64[model.labels_ == c].mean(axis=0) for c in range(k)])
    np.testing.assert_allclose(model.cluster_centers_, means, rtol=1e-5, atol=1e-5)
    own = ((x64 - np.asarray(model.cluster_centers_, np.float64)[model.labels_]) ** 2).sum()
    assert model.inertia_ == pytest.approx(own, rel=1e-9)
    inertias = [row["inertia"] for row in model.history_]
    assert inertias == sorted(inertias, reverse=True)


@pytest.mark.parametrize("kind", ["mixture", "duplicates", "constant"])
def test_bounds_hold_exactly_on_many_cases(kind):
    generator = np.random.default_rng(3)
    for seed in range(20):
        n = int(generator.integers(1, 120))
        k = int(generator.integers(1, min(n, 30) + 1))
        x = mixture(n, d=3, seed=seed)
        if kind == "duplicates":
            x = np.round(x / 8)
        elif kind == "constant":
            x[:] = 0.1
        low = int(generator.integers(1, n // k + 1))
        high = int(generator.integers(-(-n // k), n + 1))
        for given in ((low, high), (n // k, -(-n // k)), (low, None), (None, high)):
            model = KMeans(k, size_min=given[0], size_max=given[1], random_state=seed).fit(x)
            assert_bounded(model, x, given[0] or 1, given[1] or n)


@pytest.mark.parametrize(("k", "low", "high"), [(10, 100, 100), (10, None, 120), (50, 15, 22)])
def test_bounds_hold_exactly_on_digits(digits, k, low, high):
    x = digits[:1000]
    model = KMeans(k, size_min=low, size_max=high, random_state=0).fit(x)
    assert_bounded(model, x, low or 1, high)
    assert pickle.loads(pickle.dumps(model)).get_params() == model.get_params()
    free = KMeans(k, random_state=0).fit(x)
    assert free.counts_.min() < (low or 1) or free.counts_.max() > high
    assert model.inertia_ < 1.1 * free.inertia_


def test_bounds_hold_where_most_rows_prefer_one_centre(monkeypatch):
    monkeypatch.setattr(balance, "_SMALL", 0)  # rows compare only the centres around two of them
    x = mixture(600, d=5, k=1)
    start = np.concatenate([x[:1], x[1:40] + 100])
    model = KMeans(40, init=start, size_min=15, size_max=15).fit(x)
    assert_bounded(model, x, 15, 15)


def test_labels_depend_on_neither_threads_nor_shards(digits):
    assert len(digits) * 100 > balance._SMALL
    options = {"size_min": 20, "size_max": 40, "max_iter": 2, "random_state": 0}
    one = KMeans(100, n_threads=1, **options).fit(digits)
    assert_bounded(one, digits, 20, 40)
    for x in (digits, [digits[:700], digits[700:]], torch.from_numpy(digits)):
        two = KMeans(100, n_threads=2, **options).fit(x)
        np.testing.assert_array_equal(np.asarray(two.labels_), one.labels_)
        np.testing.assert_array_equal(np.asarray(two.cluster_centers_), one.cluster_centers_)
        assert two.inertia_ == one.inertia_


def test_bounds_that_hold_anyway_change_nothing(digits):
    x = digits[:1000]
    free = KMeans(10, random_state=0, tol=0).fit(x)
    bounded = KMeans(10, random_state=0, tol=0, size_min=1, size_max=1000).fit(x)
    np.testing.assert_array_equal(bounded.labels_, free.labels_)
    np.testing.assert_array_equal(bounded.cluster_centers_, free.cluster_centers_)
    np.testing.assert_array_equal(bounded.predict(x), bounded.labels_)
    free = KMeans(10, random_state=0, tol=1e-2).fit(x)
    assert KMeans(10, random_state=0, tol=1e-2, size_max=1000).fit(x).inertia_ <= free.inertia_


def least_cost(squares, bounds):
    """The least sum of distances within the bounds: every cluster offers `high` places.

    The places beyond the rows are left to fillers, which may not take the first `low` places.
    """
    (n, k), (low, high) = squares.shape, bounds
    fillers = np.zeros((k * high - n, k, high))
    fillers[:, :, :low] = 1e6 * squares.max()
    table = np.vstack([np.repeat(squares, high, axis=1), fillers.reshape(-1, k * high)])
    rows, places = linear_sum_assignment(table)
    return table[rows, places][rows < n].sum()


@pytest.mark.parametrize(
    ("n", "k", "low", "high"),
    [(300, 10, 30, 30), (300, 10, 1, 40), (300, 10, 25, 60), (400, 40, 10, 10), (400, 40, 5, 20)],
)
def test_the_cost_is_close_to_the_least_one(digits, n, k, low, high):
    for seed in range(3):
        generator = np.random.default_rng(seed)
        x = digits[generator.choice(len(digits), n, replace=False)]
        centers = x[generator.choice(n, k, replace=False)].astype(np.float64)
        squares = ((x[:, None] - centers) ** 2).sum(-1)
        bounds = Bounds(low, high)
        labels = bounded_labels(Rows([x]), centers, bounds, np.zeros(k), None)
        sizes = np.bincount(labels, minlength=k)
        assert low <= sizes.min() <= sizes.max() <= high
        least = least_cost(squares, bounds)
        assert least * (1 - 1e-9) <= squares[np.arange(n), labels].sum() <= 1.05 * least


def test_by_hand():
    x = np.array([[0.0], [1], [2], [10]])
    model = KMeans(2, init=[[1.0], [10]], size_min=2, size_max=2).fit(x)
    np.testing.assert_array_equal(model.labels_, [0, 0, 1, 1])
    np.testing.assert_array_equal(model.cluster_centers_, [[0.5], [6]])
    assert model.inertia_ == 0.5 + 32
    np.testing.assert_array_equal(model.predict(x), [0, 0, 0, 1])


def test_spherical_and_extreme_rows():
    x = mixture(200, dtype="float64")
    model = KMeans(8, spherical=True, size_max=25, random_state=0).fit(x)
    np.testing.assert_array_equal(model.counts_, [25] * 8)
    lengths = np.linalg.norm(model.cluster_centers_, axis=1)
    np.testing.assert_allclose(lengths, 1, rtol=1e-12)
    plain = KMeans(8, size_max=25, random_state=0).fit(x)
    for factor in (2.0**400, 2.0**-400):
        model = KMeans(8, size_max=25, random_state=0).fit(x * factor)
        np.testing.assert_array_equal(model.labels_, plain.labels_)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size_max": 9}, "10 clusters of at most size_max=9 rows hold 90 rows, but X has 100"),
        ({"size_min": 11}, "10 clusters of at least size_min=11 rows need 110 rows, but X has 100"),
        ({"size_min": 10, "size_max": 9}, "size_min=10 is larger than size_max=9"),
    ],
)
def test_impossible_bounds_are_refused(options, message):
    model = KMeans(10, **options)
    with pytest.raises(InputError, match=message):
        model.fit(mixture(100))
    assert vars(model) == vars(KMeans(10, **options))


def test_weights_and_batches_are_refused():
    x = mixture(100)
    with pytest.raises(InputError, match="sample_weight was given together with size_min"):
        KMeans(4, size_max=50).fit(x, sample_weight=np.ones(100))
    with pytest.raises(InputError, match="partial_fit cannot bound cluster sizes, got size_min=3"):
        KMeans(4, size_min=3).partial_fit(x)


def test_a_gpu_is_refused(gpu):
    with pytest.raises(InputError, match=r'need a CPU, but a GPU .* pass device="cpu"'):
        KMeans(4, size_max=50, device="cuda").fit(mixture(100))


def test_several_runs_keep_the_best(digits):
    x = digits[:300]
    options = {"init": "random", "size_max": 40}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        best = KMeans(10, n_init=4, random_state=np.random.RandomState(0), **options).fit(x)
    state = np.random.RandomState(0)
    runs = [KMeans(10, n_init=1, random_state=state, **options).fit(x) for _ in range(4)]
    assert best.inertia_ == min(run.inertia_ for run in runs)


def test_a_fit_without_bounds_does_not_load_the_modules():
    code = (
        "import sys, numpy; from ktfast import KMeans; KMeans(2).fit(numpy.eye(4));"
        "print([m for m in sys.modules if m.endswith(('kmeans.bounded', 'kmeans.balance'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(Path(ktfast.__file__).parents[1])},
    )
    assert done.stdout.strip() == "[]"
