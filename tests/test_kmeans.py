"""The K-means estimator: scikit-learn's rules, exactness, reproducibility and hard inputs."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans as SklearnKMeans
from sklearn.datasets import make_blobs
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.utils.estimator_checks import parametrize_with_checks
from tolerances import FLOAT32_CENTERS, SUM_ORDER_FLOAT64

import ktfast
from ktfast import KMeans, _backend
from ktfast.errors import InputError
from ktfast.kmeans_relocation import relocate_empty
from ktfast.kmeans_rows import Rows
from ktfast.reference import kmeans as reference

needs_gpu = pytest.mark.skipif(not _backend.has_cuda(), reason="no CUDA device")


def expected_failures(estimator):
    return {
        "check_sample_weight_equivalence_on_dense_data": (
            "as for scikit-learn's KMeans: a weight of two draws other first centres than a row "
            "given twice"
        )
    }


@parametrize_with_checks([KMeans(n_clusters=3)], expected_failed_checks=expected_failures)
def test_scikit_learn_s_rules(estimator, check):
    check(estimator)


def mixture(n=3000, d=16, k=12, seed=0, dtype="float32"):
    x, _ = make_blobs(n, d, centers=k, cluster_std=2.5, random_state=seed)
    return x.astype(dtype)


def assert_consistent(model, x, weight=None):
    """Labels are those of the centres, and the inertia is theirs."""
    labels, distances = reference.assign(np.asarray(x, np.float64), model.cluster_centers_)
    np.testing.assert_array_equal(model.labels_, labels)
    np.testing.assert_array_equal(model.predict(x), labels)
    total = distances.sum() if weight is None else (distances * weight).sum()
    assert model.inertia_ == pytest.approx(total, rel=SUM_ORDER_FLOAT64)
    assert model.n_effective_clusters_ == len(np.unique(labels))
    inertia = [row["inertia"] for row in model.history_]
    assert all(b <= a for a, b in itertools.pairwise(inertia))
    assert model.inertia_ <= inertia[-1]
    assert len(inertia) == model.n_iter_


def test_by_hand():
    x = np.array([[0.0, 0], [0, 2], [10, 0], [10, 2]])
    model = KMeans(2, init=np.array([[0.0, 0], [1, 0]])).fit(x)
    np.testing.assert_array_equal(model.cluster_centers_, [[0, 1], [10, 1]])
    np.testing.assert_array_equal(model.labels_, [0, 0, 1, 1])
    assert model.inertia_ == 4
    assert model.history_[0]["inertia"] == 0 + 4 + 81 + 85
    assert [row["moved"] for row in model.history_] == [4, 0]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_agrees_with_the_reference_and_with_scikit_learn(dtype):
    x = mixture(dtype=dtype)
    start = x[:12]
    model = KMeans(12, init=start, tol=0).fit(x)
    expected = reference.lloyd(x, start, 300)
    peer = SklearnKMeans(12, init=start, n_init=1, tol=0).fit(x)
    np.testing.assert_array_equal(model.labels_, expected.labels)
    np.testing.assert_allclose(model.cluster_centers_, expected.centers, rtol=FLOAT32_CENTERS)
    np.testing.assert_array_equal(model.labels_, peer.labels_)
    assert model.inertia_ == pytest.approx(peer.inertia_, rel=FLOAT32_CENTERS)
    assert model.cluster_centers_.dtype == dtype
    assert_consistent(model, x)


def test_real_digits_agree_with_scikit_learn(data_folder):
    x = np.load(data_folder / "vectors" / "mnist_70k_uint8.npz")
    x = x[x.files[0]].reshape(-1, 784)[:6000]
    start = x[:40].astype(np.float32)
    model = KMeans(40, init=start, max_iter=8, tol=0).fit(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        peer = SklearnKMeans(40, init=start, n_init=1, max_iter=8, tol=0).fit(x.astype(np.float32))
    assert (model.labels_ == peer.labels_).mean() > 0.999
    assert model.inertia_ == pytest.approx(peer.inertia_, rel=1e-4)
    assert_consistent(model, x)


def test_inertia_never_rises_over_many_random_cases():
    generator = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for seed in range(500):
            n, d = int(generator.integers(1, 120)), int(generator.integers(1, 8))
            k = int(generator.integers(1, n + 1))
            x = generator.normal(size=(n, d))
            if seed % 3 == 0:
                x = np.round(x)  # duplicates and ties
            x = x.astype(["float32", "float64", "float16"][seed % 3 - 1])
            model = KMeans(k, random_state=seed, tol=0, init=["random", "k-means++"][seed % 2])
            model.set_params(n_init=1).fit(x)
            assert_consistent(model, x)
            distinct = len(np.unique(x.astype(np.float64) + 0.0, axis=0))
            assert model.n_effective_clusters_ == min(k, distinct)
            assert np.isfinite(model.cluster_centers_).all()


@pytest.mark.parametrize("duplicates", [False, True])
def test_nearly_as_many_clusters_as_rows(duplicates):
    generator = np.random.default_rng(3)
    x = generator.normal(size=(2100, 6)).astype(np.float32)
    if duplicates:
        x[1000:] = x[:1100]
    start = np.zeros((2000, 6))  # all but one cluster start empty
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = KMeans(2000, init=start).fit(x)
    assert model.n_effective_clusters_ == (1100 if duplicates else 2000)
    assert np.isfinite(model.cluster_centers_).all()
    assert_consistent(model, x)


def test_too_few_distinct_rows_are_told():
    x = np.repeat(np.eye(3), 4, axis=0)
    with pytest.warns(ConvergenceWarning, match=r"distinct clusters \(3\) found smaller"):
        model = KMeans(5, random_state=0).fit(x)
    assert model.n_effective_clusters_ == 3
    assert model.inertia_ == 0


def test_relocation_takes_each_row_once_and_leaves_no_owner_empty():
    x = np.array([[0.0], [9], [9], [1], [7], [20]])
    rows = Rows([x])
    labels = np.array([0, 0, 0, 0, 0, 1], np.int32)
    distances = np.array([0.0, 81, 81, 1, 49, 400])
    sums, counts = rows.update(labels, 5)
    assert relocate_empty(rows, labels, distances, None, sums, counts) == 3
    # Not the lone row of cluster 1, nor the value 9 twice.
    np.testing.assert_array_equal(counts, [2, 1, 1, 1, 1])
    np.testing.assert_array_equal(sums[:, 0], [9, 20, 9, 7, 1])


def fit(x, **options):
    return KMeans(12, random_state=3, **options).fit(x)


def assert_same(a, b):
    np.testing.assert_array_equal(a.cluster_centers_, b.cluster_centers_)
    np.testing.assert_array_equal(a.labels_, b.labels_)
    assert a.inertia_ == b.inertia_
    assert a.n_iter_ == b.n_iter_


@pytest.mark.parametrize("n_threads", [1, 2, 3, 5, 16])
def test_threads_change_no_bit(n_threads):
    x = mixture()
    expected = fit(x, n_threads=1)
    for _ in range(3):
        assert_same(fit(x, n_threads=n_threads), expected)


def test_levels_change_no_bit(monkeypatch):
    x = mixture()
    expected = fit(x)
    monkeypatch.setenv("KTFAST_SIMD", "scalar")
    assert_same(fit(x), expected)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "uint8"])
def test_shards_memory_maps_and_torch_change_no_bit(dtype, tmp_path):
    x = np.abs(mixture() * 5).astype(dtype)
    weight = np.random.default_rng(0).random(len(x))
    x.tofile(tmp_path / "x")
    mapped = np.memmap(tmp_path / "x", dtype=dtype, mode="r", shape=x.shape)
    expected = fit(x, init="random")
    weighted = KMeans(12, random_state=3).fit(x, sample_weight=weight)
    for same in (
        mapped,
        [x[:1], x[1:1000], x[1000:]],
        [mapped[:700], mapped[700:]],
        np.asfortranarray(x),
        torch.from_numpy(x),
    ):
        assert_same(fit(same, init="random"), expected)
        assert_same(KMeans(12, random_state=3).fit(same, sample_weight=weight), weighted)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_torch_in_torch_out(device, dtype):
    x = torch.from_numpy(mixture(500)).to(device, getattr(torch, dtype))
    model = fit(x)
    for array in (model.cluster_centers_, model.labels_, model.predict(x), model.transform(x)):
        assert isinstance(array, torch.Tensor)
        assert array.device == x.device
    assert model.cluster_centers_.dtype == (torch.float64 if dtype == "float64" else torch.float32)
    expected = fit(x.double().cpu().numpy() if dtype == "float64" else x.float().cpu().numpy())
    np.testing.assert_array_equal(model.labels_.cpu(), expected.labels_)
    np.testing.assert_array_equal(model.cluster_centers_.cpu(), expected.cluster_centers_)


def test_global_generator_is_untouched():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    KMeans(5, random_state=0).fit(mixture(200))
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_seeding_is_as_good_as_scikit_learn_s():
    ours, theirs = [], []
    for seed in range(20):
        x, truth = make_blobs(1500, 4, centers=30, cluster_std=0.6, random_state=seed)
        model = KMeans(30, random_state=seed).fit(x)
        ours.append(model.inertia_)
        theirs.append(SklearnKMeans(30, n_init=1, random_state=seed).fit(x).inertia_)
        assert adjusted_rand_score(truth, model.labels_) > 0.8
    assert np.mean(ours) < 1.05 * np.mean(theirs)


def test_seeding_prefers_far_rows_and_positive_weights():
    x = np.concatenate([np.zeros((1000, 2)), [[100.0, 0], [0, 100]], np.full((10, 2), 500.0)])
    weight = np.ones(len(x))
    weight[-10:] = 0
    for seed in range(20):
        model = KMeans(3, random_state=seed, max_iter=1).fit(x, sample_weight=weight)
        rows = {tuple(row) for row in np.round(model.cluster_centers_)}
        assert rows == {(0, 0), (100, 0), (0, 100)}


def test_weights_count_as_repetitions():
    x = mixture(300)
    weight = np.random.default_rng(1).integers(0, 4, size=len(x))
    repeated = np.repeat(x, weight, axis=0)
    start = x[:12]
    model = KMeans(12, init=start).fit(x, sample_weight=weight)
    expected = KMeans(12, init=start).fit(repeated)
    np.testing.assert_array_equal(np.repeat(model.labels_, weight), expected.labels_)
    np.testing.assert_allclose(
        model.cluster_centers_, expected.cluster_centers_, rtol=FLOAT32_CENTERS
    )
    assert model.score(x, sample_weight=weight) == pytest.approx(-model.inertia_)
    assert_consistent(model, x, weight)


def test_transform_gives_distances():
    x = mixture(100)
    model = fit(x)
    distances = np.sqrt(((x[:, None] - model.cluster_centers_) ** 2).sum(-1))
    np.testing.assert_allclose(model.transform(x), distances, rtol=1e-4)
    np.testing.assert_array_equal(model.get_feature_names_out()[:2], ["kmeans0", "kmeans1"])
    np.testing.assert_array_equal(fit(x).fit_predict(x), model.labels_)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "NaN in row 57"),
        (np.inf, "infinity in row 57"),
        (-np.inf, "infinity in row 57"),
        (3e38, r"up to 3e\+38 in row 57"),
        (2e19, r"up to 2e\+19 in row 57"),
    ],
)
def test_bad_values_are_named(value, message):
    x = mixture(100)
    model = fit(x)
    x[57, 3] = value
    x = np.concatenate([x, x[:10]])
    for same in (x, [x[:30], x[30:]], torch.from_numpy(x)):
        with pytest.raises(InputError, match=message):
            fit(same)
        if not abs(value) < np.inf:
            with pytest.raises(InputError, match=message):
                model.predict(same)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_at_the_edge_are_clustered(dtype):
    x = mixture(dtype=dtype)
    for scale in (1e-30, 1e12):
        scaled = (x * scale).astype(dtype)
        model = KMeans(12, init=scaled[:12], tol=0).fit(scaled)
        assert (
            adjusted_rand_score(KMeans(12, init=x[:12], tol=0).fit(x).labels_, model.labels_) > 0.99
        )
        assert_consistent(model, scaled)
    x[::2, 0], x[0, 1] = -0.0, 1e-45
    assert_consistent(fit(x), x)


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


def test_callable_start_sees_the_data():
    x = mixture(100)
    seen = []

    def start(data, n_clusters, random_state):
        seen.append(data is x)
        return data[random_state.choice(len(data), n_clusters, replace=False)]

    model = KMeans(4, init=start, n_init=3, random_state=0).fit(x)
    assert seen == [True] * 3
    assert_consistent(model, x)


def test_threads_may_fit_side_by_side():
    x = mixture()
    expected = fit(x)
    results = []
    threads = [threading.Thread(target=lambda: results.append(fit(x))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    for result in results:
        assert_same(result, expected)


INTERRUPTED = """
import numpy as np, sys, time
from ktfast import KMeans
x = np.random.default_rng(0).normal(size=(60_000, 128)).astype(np.float32)
model = KMeans(3, random_state=0, n_threads=1).fit(x[:1000])
before = model.cluster_centers_.copy()
print("ready", flush=True)
try:
    model.set_params(n_clusters=3000, tol=0).fit(x)
except KeyboardInterrupt:
    raised = time.time()
assert (model.cluster_centers_ == before).all() and len(model.predict(x)) == len(x)
print(raised, flush=True)
"""


def test_interrupt_ends_a_fit_within_a_second_and_keeps_the_old_state():
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED],
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",  # not the checkout, whose ktfast may not be built
        env=os.environ | {"PYTHONPATH": str(Path(ktfast.__file__).parents[1])},
    )
    with process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        sent = time.time()
        raised = float(process.stdout.readline())
        assert raised - sent < 1
        assert process.wait(20) == 0
