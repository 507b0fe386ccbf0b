"""Initial centres are as good as scikit-learn's and depend only on the values of the rows."""

import warnings

import numpy as np
import pytest
from sklearn.cluster import KMeans as SklearnKMeans
from sklearn.datasets import make_blobs
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score

from ktfast import KMeans
from ktfast.kmeans.data.moments import moments_of
from ktfast.kmeans.data.passes import nearest_centers
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.progress import Progress
from ktfast.kmeans.seeding import METHODS, initial_centers
from ktfast.kmeans.seeding.byte_rows import ByteRows
from ktfast.kmeans.seeding.distinct import DistinctRows, distinct_rows
from ktfast.kmeans.seeding.plus_plus import kmeans_plus_plus
from support.kmeans_cases import fewer, mixture
from support.tolerances import FLOAT32_CENTERS

GREEDY = ("k-means||", "k-means++")


def start(x, k, method, seed=0, weight=None):
    rows = Rows([x])
    random_state = np.random.RandomState(seed)
    return initial_centers(
        method, rows, k, weight, moments_of(rows, weight), random_state, Progress(1)
    )


def potential(x, centers):
    return nearest_centers(Rows([x]), centers)[1].sum()


@pytest.mark.parametrize("method", GREEDY)
def test_separate_clusters_are_found_as_by_scikit_learn(method, device):
    ours, theirs = [], []
    for seed in range(fewer(20, 3)):
        x, truth = make_blobs(1500, 4, centers=30, cluster_std=0.6, random_state=seed)
        model = KMeans(30, init=method, random_state=seed, device=device).fit(x)
        ours.append(model.inertia_)
        theirs.append(SklearnKMeans(30, n_init=1, random_state=seed).fit(x).inertia_)
        assert adjusted_rand_score(truth, model.labels_) > 0.8
    assert np.mean(ours) < np.mean(theirs) * (1 if method == "k-means||" else 1.05)


def test_real_digits_end_as_low_as_scikit_learn_s(data_folder, device):
    if fewer(False, True):
        pytest.skip("too much for the emulated GPU")
    x = np.load(data_folder / "vectors" / "mnist_70k_uint8.npz")
    x = x[x.files[0]].reshape(-1, 784)[:3000].astype(np.float32)

    def inertia(estimator, **options):
        fits = [
            estimator(100, max_iter=8, n_init=1, tol=0, random_state=seed, **options).fit(x)
            for seed in range(3)
        ]
        return np.mean([fit.inertia_ for fit in fits])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        theirs = inertia(SklearnKMeans)
    assert inertia(KMeans, init="k-means||", device=device) < theirs
    assert inertia(KMeans, init="k-means++", device=device) < 1.005 * theirs


def test_heavy_tails_are_seen_in_a_sample(backend):
    """The sample contains the few rows that make up most of the variance."""
    x = np.random.default_rng(0).standard_t(2.5, size=(fewer(20_000, 8000), 4))
    sampled = potential(x, start(backend.array(x), 100, "k-means++"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ktfast.kmeans.seeding.plus_plus._LEAST_REFERENCE", len(x))
        complete = potential(x, start(backend.array(x), 100, "k-means++"))
    assert sampled < 1.15 * complete


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [300, 9000])
def test_neither_order_nor_repetition_matters(method, n, backend):
    generator = np.random.default_rng(1)
    x = mixture(n)
    weight = generator.integers(0, 4, size=n).astype(np.float64)
    expected = start(backend.array(x), 20, method, weight=weight)
    order = generator.permutation(n)
    np.testing.assert_allclose(
        start(backend.array(x[order]), 20, method, weight=weight[order]),
        expected,
        rtol=FLOAT32_CENTERS,
    )
    repeated = np.repeat(x[order], weight[order].astype(int), axis=0)
    np.testing.assert_allclose(
        start(backend.array(repeated), 20, method), expected, rtol=FLOAT32_CENTERS
    )
    np.testing.assert_allclose(
        start(backend.array(x), 20, method, weight=8 * weight), expected, rtol=FLOAT32_CENTERS
    )


@pytest.mark.parametrize("method", METHODS)
def test_different_rows_are_chosen_while_there_are_any(method, backend):
    x = np.repeat(np.arange(40.0)[:, None] ** 2, 3, axis=0)
    for k in (40, 60):
        centers = start(backend.array(x), k, method)
        np.testing.assert_array_equal(np.unique(centers), np.unique(x))
    assert len(np.unique(start(backend.array(x), 39, method))) == 39


@pytest.mark.parametrize("method", METHODS)
def test_rows_of_no_weight_are_never_chosen(method, backend):
    x = np.concatenate([np.zeros((1000, 2)), [[100.0, 0], [0, 100]], np.full((10, 2), 500.0)])
    weight = np.ones(len(x))
    weight[-10:] = 0
    for seed in range(fewer(20, 3)):
        centers = start(backend.array(x), 3, method, seed, weight)
        assert not (centers == 500).any()
        if method != "random":
            assert {tuple(row) for row in centers} == {(0, 0), (100, 0), (0, 100)}


def test_random_rows_are_drawn_by_weight(backend):
    x = np.arange(1000.0)[:, None]
    weight = np.where(x[:, 0] < 500, 1.0, 9.0)
    drawn = np.concatenate(
        [start(backend.array(x), 20, "random", seed, weight) for seed in range(fewer(50, 10))]
    )
    assert 0.87 < (drawn >= 500).mean() < 0.93


def test_distinct_rows_by_hand(backend):
    x = np.array([[2.0, 0], [1, 1], [2, 0], [0, -0.0], [1, 1], [0.0, 0], [7, 7]])
    weight = np.array([1.0, 2, 3, 4, 5, 6, 0])
    rows = Rows([backend.array(x)])
    found = distinct_rows(rows, weight, moments_of(rows, weight), np.random.RandomState(0))
    values = {tuple(x[i]): w for i, w in zip(found.first, found.weight, strict=True)}
    assert values == {(2, 0): 4, (1, 1): 7, (0, 0): 10}
    assert set(found.first) == {0, 1, 3}


def test_a_sample_stands_for_all():
    generator = np.random.default_rng(0)
    weight = generator.random(50_000)
    values = generator.normal(size=50_000) * np.where(generator.random(50_000) < 0.001, 100, 1)
    sample = DistinctRows(np.arange(50_000), weight).sample(
        2000, values**2, np.random.RandomState(0)
    )
    assert len(sample.first) <= 2000
    assert sample.weight.sum() == pytest.approx(weight.sum(), rel=0.02)
    exact = (weight * values**2).sum()
    assert (sample.weight * values[sample.first] ** 2).sum() == pytest.approx(exact, rel=0.03)


@pytest.mark.parametrize("d", [1, 7, 1500, 3000])
def test_byte_rows_are_near_and_exact_in_any_order(d):
    generator = np.random.default_rng(d)
    x = generator.normal(size=(60, d)) * generator.exponential(size=(60, 1)) * 1e30 + 3e30
    x[50:] = x[:10]
    rows = ByteRows(x, x.mean(axis=0), 1e30)
    table = rows.distances(rows)
    exact = ((x[:, None] - x) ** 2).sum(axis=-1) / 1e60
    assert np.abs(table - exact).max() < 0.03 * exact.max()
    assert not table[np.arange(10), np.arange(50, 60)].any()
    order = generator.permutation(d)
    same = ByteRows(x[:, order], x.mean(axis=0)[order], 1e30)
    np.testing.assert_array_equal(same.distances(same), table)
    np.testing.assert_array_equal(
        rows.distances(ByteRows(x[:7], x.mean(axis=0), 1e30)), table[:, :7]
    )
    np.testing.assert_array_equal(rows.take([3, 50, 3]).distances(rows), table[[3, 50, 3]])


def test_weights_of_equal_rows_add_up_the_same_in_any_order(rng):
    x = np.repeat(rng.normal(size=(50, 3)), 20, axis=0)
    weight = rng.random(len(x))
    found = []
    for order in (np.arange(len(x)), *(rng.permutation(len(x)) for _ in range(5))):
        rows = Rows([x[order]])
        random_state = np.random.RandomState(0)
        found.append(distinct_rows(rows, weight[order], moments_of(rows), random_state).weight)
    assert len({weights.tobytes() for weights in found}) == 1


def test_few_clusters_compute_only_the_distances_that_they_need(monkeypatch):
    x = mixture(3000, k=8)
    expected = KMeans(8, init="k-means++", random_state=0, max_iter=1).fit(x).cluster_centers_
    sizes, distances = [], ByteRows.distances
    monkeypatch.setattr(ByteRows, "distances", lambda a, b: sizes.append(len(a)) or distances(a, b))
    found = KMeans(8, init="k-means++", random_state=0, max_iter=1).fit(x).cluster_centers_
    assert max(sizes) < 100
    np.testing.assert_array_equal(found, expected)


def test_batches_choose_about_as_well_as_one_by_one(monkeypatch, backend):
    x = mixture(fewer(5000, 1500), k=60)
    rows = Rows([backend.array(x)])
    moments = moments_of(rows)

    def mean_potential():
        found = []
        for seed in range(fewer(8, 4)):
            random_state = np.random.RandomState(seed)
            distinct = distinct_rows(rows, None, moments, random_state)
            found.append(
                potential(
                    x,
                    kmeans_plus_plus(rows, distinct, 60, moments.mean, random_state, Progress(1)),
                )
            )
        return np.mean(found)

    one_by_one = mean_potential()
    monkeypatch.setattr("ktfast.kmeans.seeding.plus_plus._ONE_BY_ONE", 0)
    assert mean_potential() == pytest.approx(one_by_one, rel=0.03)
    monkeypatch.setattr("ktfast.kmeans.seeding.plus_plus._TABLE_BYTES", 1)
    assert mean_potential() == pytest.approx(one_by_one, rel=0.03)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_every_backend_draws_the_same_bits(method, weighted, backend):
    x = mixture(fewer(20_000, 7000))
    weight = np.random.default_rng(0).random(len(x)) if weighted else None
    found = start(backend.array(x), 30, method, weight=weight)
    np.testing.assert_array_equal(found, start(x, 30, method, weight=weight))
