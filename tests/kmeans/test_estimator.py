"""The K-means estimator: scikit-learn's rules, exactness, parameters and input."""

import pickle
import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.cluster import KMeans as SklearnKMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import parametrize_with_checks

from ktfast import KMeans
from ktfast.errors import InputError
from ktfast.kmeans.data.passes import cluster_sums
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.relocation import relocate_empty
from ktfast.reference import kmeans as reference
from support.kmeans_cases import assert_consistent, assert_same, fewer, mixture
from support.optional import torch
from support.tolerances import FLOAT32_CENTERS


@parametrize_with_checks([KMeans(n_clusters=3), KMeans(n_clusters=3, init="k-means++")])
def test_scikit_learn_s_rules(estimator, check, device):
    check(estimator.set_params(device=device))


def fit(x, **options):
    return KMeans(12, random_state=3, **options).fit(x)


@pytest.mark.emulated_gpu
def test_by_hand(device):
    x = np.array([[0.0, 0], [0, 2], [10, 0], [10, 2]])
    model = KMeans(2, init=np.array([[0.0, 0], [1, 0]]), device=device).fit(x)
    np.testing.assert_array_equal(model.cluster_centers_, [[0, 1], [10, 1]])
    np.testing.assert_array_equal(model.labels_, [0, 0, 1, 1])
    assert model.inertia_ == 4
    assert model.history_[0]["inertia"] == 0 + 4 + 81 + 85
    assert [row["moved"] for row in model.history_] == [4, 0]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_agrees_with_the_reference_and_with_scikit_learn(dtype, device):
    x = mixture(fewer(3000, 600), dtype=dtype)
    start = x[:12]
    model = KMeans(12, init=start, tol=0, device=device).fit(x)
    expected = reference.lloyd(x, start, 300)
    peer = SklearnKMeans(12, init=start, n_init=1, tol=0).fit(x)
    np.testing.assert_array_equal(model.labels_, expected.labels)
    np.testing.assert_allclose(model.cluster_centers_, expected.centers, rtol=FLOAT32_CENTERS)
    np.testing.assert_array_equal(model.labels_, peer.labels_)
    assert model.inertia_ == pytest.approx(peer.inertia_, rel=FLOAT32_CENTERS)
    assert model.cluster_centers_.dtype == dtype
    assert_consistent(model, x)


def test_real_digits_agree_with_scikit_learn(data_folder, device):
    x = np.load(data_folder / "vectors" / "mnist_70k_uint8.npz")
    x = x[x.files[0]].reshape(-1, 784)[: fewer(6000, 300)]
    start = x[:40].astype(np.float32)
    model = KMeans(40, init=start, max_iter=8, tol=0, device=device).fit(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        peer = SklearnKMeans(40, init=start, n_init=1, max_iter=8, tol=0).fit(x.astype(np.float32))
    assert (model.labels_ == peer.labels_).mean() > 0.999
    assert model.inertia_ == pytest.approx(peer.inertia_, rel=1e-4)
    assert_consistent(model, x)


def test_inertia_never_rises_over_many_random_cases(device):
    generator = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for seed in range(fewer(500, 24)):
            n, d = int(generator.integers(1, 120)), int(generator.integers(1, 8))
            k = int(generator.integers(1, n + 1))
            x = generator.normal(size=(n, d))
            if seed % 3 == 0:
                x = np.round(x)  # duplicates and ties
            x = x.astype(["float32", "float64", "float16"][seed % 3 - 1])
            model = KMeans(k, random_state=seed, tol=0, init=["random", "k-means++"][seed % 2])
            model.set_params(n_init=1, device=device).fit(x)
            assert_consistent(model, x)
            distinct = len(np.unique(x.astype(np.float64) + 0.0, axis=0))
            assert model.n_effective_clusters_ == min(k, distinct)
            assert np.isfinite(model.cluster_centers_).all()


@pytest.mark.parametrize("duplicates", [False, True])
def test_nearly_as_many_clusters_as_rows(duplicates, device):
    k = fewer(2000, 200)
    distinct = k // 2 + 100
    generator = np.random.default_rng(3)
    x = generator.normal(size=(k + 100, 6)).astype(np.float32)
    if duplicates:
        x[k // 2 :] = x[:distinct]
    start = np.zeros((k, 6))  # all but one cluster start empty
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = KMeans(k, init=start, device=device).fit(x)
    assert model.n_effective_clusters_ == (distinct if duplicates else k)
    assert np.isfinite(model.cluster_centers_).all()
    assert_consistent(model, x)


@pytest.mark.emulated_gpu
def test_too_few_distinct_rows_are_told(device):
    x = np.repeat(np.eye(3), 4, axis=0)
    with pytest.warns(ConvergenceWarning, match=r"distinct clusters \(3\) found smaller"):
        model = KMeans(5, random_state=0, device=device).fit(x)
    assert model.n_effective_clusters_ == 3
    assert model.inertia_ == 0


def test_relocation_takes_each_row_once_and_leaves_no_owner_empty():
    x = np.array([[0.0], [9], [9], [1], [7], [20]])
    rows = Rows([x])
    labels = np.array([0, 0, 0, 0, 0, 1], np.int32)
    distances = np.array([0.0, 81, 81, 1, 49, 400])
    sums, counts = cluster_sums(rows, labels, 5)
    assert relocate_empty(rows, labels, distances, None, sums, counts) == 3
    # Neither the only row of cluster 1 nor a second row of value 9 is taken.
    np.testing.assert_array_equal(counts, [2, 1, 1, 1, 1])
    np.testing.assert_array_equal(sums[:, 0], [9, 20, 9, 7, 1])


@pytest.mark.emulated_gpu
def test_weights_count_as_repetitions(device):
    x = mixture(300)
    weight = np.random.default_rng(1).integers(0, 4, size=len(x))
    repeated = np.repeat(x, weight, axis=0)
    start = x[:12]
    model = KMeans(12, init=start, device=device).fit(x, sample_weight=weight)
    expected = KMeans(12, init=start, device=device).fit(repeated)
    np.testing.assert_array_equal(np.repeat(model.labels_, weight), expected.labels_)
    np.testing.assert_allclose(
        model.cluster_centers_, expected.cluster_centers_, rtol=FLOAT32_CENTERS
    )
    assert model.score(x, sample_weight=weight) == pytest.approx(-model.inertia_)
    assert_consistent(model, x, weight)


@pytest.mark.emulated_gpu
def test_transform_gives_distances(device):
    x = mixture(100)
    model = fit(x, device=device)
    distances = np.sqrt(((x[:, None] - model.cluster_centers_) ** 2).sum(-1))
    np.testing.assert_allclose(model.transform(x), distances, rtol=1e-4)
    np.testing.assert_array_equal(model.get_feature_names_out()[:2], ["kmeans0", "kmeans1"])
    np.testing.assert_array_equal(fit(x, device=device).fit_predict(x), model.labels_)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_clusters": 0}, "n_clusters must be"),
        ({"n_clusters": 2.5}, "n_clusters must be"),
        ({"n_clusters": 101}, "n_samples=100 should be >= n_clusters=101"),
        ({"max_iter": 0}, "max_iter must be"),
        ({"tol": -1}, "tol must be"),
        ({"algorithm": "elkan"}, "algorithm must be"),
        ({"init": "best"}, "init must be"),
        ({"n_init": 0}, "n_init must be"),
        ({"n_init": "many"}, "n_init must be"),
        ({"n_clusters": 2, "init": np.zeros((2, 3))}, "shape of the initial centers"),
        ({"n_clusters": 2, "init": np.full((2, 16), np.nan)}, "init contains NaN"),
        ({"n_threads": 0}, "n_threads must be"),
    ],
)
def test_parameters_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        KMeans(**options).fit(mixture(100))


def test_inputs_are_checked():
    x = mixture(100)
    with pytest.raises(InputError, match="all matrices of X must be alike"):
        fit([x, x[:, :3]])
    with pytest.raises(InputError, match="all matrices of X must be alike"):
        fit([x, x.astype(np.float64)])
    with pytest.raises(InputError, match="library"):
        fit([x, torch.from_numpy(x)])
    with pytest.raises(ValueError, match="Negative values in data passed to `sample_weight`"):
        KMeans(2).fit(x, sample_weight=-np.ones(100))
    with pytest.raises(ValueError, match="at least one non-zero number"):
        KMeans(2).fit(x, sample_weight=np.zeros(100))
    with pytest.raises(InputError, match="minimum of 1"):
        fit(torch.zeros(0, 3))
    with pytest.raises(InputError, match="expecting 16 features"):
        fit(x).predict(torch.zeros(5, 3))


def test_callable_start_sees_the_data(device):
    x = mixture(100)
    seen = []

    def start(data, n_clusters, random_state):
        seen.append(data is x)
        return data[random_state.choice(len(data), n_clusters, replace=False)]

    model = KMeans(4, init=start, n_init=3, random_state=0, device=device).fit(x)
    assert seen == [True] * 3
    assert_consistent(model, x)


@pytest.mark.emulated_gpu
def test_n_init_beside_given_centres_warns_as_scikit_learn_does():
    x = mixture(40, 3)
    with pytest.warns(RuntimeWarning, match="only one init in KMeans instead of n_init=5"):
        KMeans(4, init=x[:4], n_init=5).fit(x)
    dates = np.array(["2020"] * 40, "M8[D]")
    for weight in ("balanced", ["1"] * 40, np.array(["1"] * 40), np.array([b"1"] * 40), dates):
        with pytest.raises(ValueError, match="sample_weight must be None, one number or numbers"):
            KMeans(4, init=x[:4]).fit(x, sample_weight=weight)


def test_a_failed_fit_leaves_the_estimator_as_it_was(device):
    x = mixture(200)
    model = fit(x, device=device)
    before = vars(model).copy()
    for bad in (np.full((50, 16), np.nan), np.zeros((50, 3, 2)), np.zeros((5, 16))):
        with pytest.raises(ValueError):  # noqa: PT011
            model.fit(bad)
        assert vars(model).keys() == before.keys()
        assert all(vars(model)[name] is before[name] for name in before)
    assert len(model.predict(x)) == 200


@pytest.mark.emulated_gpu
def test_pickles_and_clones(device):
    x = mixture(200)
    model = fit(x, device=device)
    assert_same(pickle.loads(pickle.dumps(model)), model)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(x), model.labels_)
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    assert not hasattr(copy, "labels_")
