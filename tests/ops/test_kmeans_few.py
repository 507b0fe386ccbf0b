"""With few centres all distances are computed without a screen; labels equal brute force."""

import numpy as np
import pytest

from ktfast import KMeans
from ktfast.native import modules
from ktfast.ops import kmeans_assign
from ktfast.ops.kmeans_screen import Screen
from ktfast.reference import kmeans as reference
from support.kmeans_cases import assert_same, fewer, mixture
from support.simd_levels import LEVELS, available
from support.tolerances import SUM_ORDER_FLOAT64


@pytest.fixture(params=LEVELS)
def level(request, monkeypatch):
    monkeypatch.delenv("KTFAST_SIMD", raising=False)
    if request.param not in available():
        pytest.skip(f"this processor has no {request.param}")
    monkeypatch.setenv("KTFAST_SIMD", request.param)
    return request.param


def brute_force(x, centers):
    """Labels and distances with the partial sums of `certificate.h`: feature p in sum p mod 32."""
    d = x.shape[1]
    squares = np.zeros((len(x), len(centers), -(-d // 32) * 32))
    squares[:, :, :d] = (x.astype(np.float64)[:, None] - centers) ** 2
    lanes = np.zeros((len(x), len(centers), 32))
    for p in range(0, squares.shape[2], 32):
        lanes += squares[:, :, p : p + 32]
    while lanes.shape[2] > 1:
        half = lanes.shape[2] // 2
        lanes = lanes[:, :, :half] + lanes[:, :, half:]
    labels = lanes[:, :, 0].argmin(axis=1)
    return labels, lanes[np.arange(len(x)), labels, 0]


def hard_case(seed):
    """Rows float32 [n, d] and a few centres float64 [k, d] whose distances are hard to compare."""
    generator = np.random.default_rng(seed)
    n, d = int(generator.integers(1, 90)), int(generator.integers(1, 70))
    k = int(generator.integers(1, 65))
    kind = seed % 6
    x = generator.normal(size=(n, d))
    centers = generator.normal(size=(k, d))
    if kind == 1:  # exact ties
        x, centers = generator.integers(-2, 3, (n, d)), generator.integers(-2, 3, (k, d))
    elif kind == 2:  # near ties far from the origin
        x, centers = x + 1000, 1000 + centers * 1e-7
    elif kind == 3:  # outliers among rows and centres
        x[::7] *= 1e12
        centers[::5] *= 1e12
    elif kind == 4:  # duplicates
        centers[:] = centers[generator.integers(0, min(3, k), k)]
    elif kind == 5:  # any scale
        scale = 10.0 ** generator.integers(-30, 20)
        x, centers = x * scale, centers * scale
    return x.astype(np.float32), np.asarray(centers, np.float64)


def test_hard_cases_by_the_hundred(level):
    for seed in range(120 if level == "scalar" else 600):
        x, centers = hard_case(seed)
        labels, distances = kmeans_assign(x, centers, precision="float32", distance_dtype="float64")
        expected, exact = brute_force(x, centers)
        np.testing.assert_array_equal(labels, expected, err_msg=str(seed))
        np.testing.assert_array_equal(distances, exact, err_msg=str(seed))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "uint8", "int8"])
@pytest.mark.parametrize(
    ("n", "d", "k"),
    [(1, 1, 1), (63, 3, 2), (64, 4, 6), (65, 5, 7), (130, 512, 13), (70, 513, 64), (9, 1500, 3)],
)
def test_the_bits_of_the_screen(level, n, d, k, dtype):
    generator = np.random.default_rng(n)
    x = (generator.normal(size=(n, d)) * 20 + 60).astype(dtype)
    centers = generator.normal(size=(k, d)) * 20 + 60
    assert modules.cpu.kmeans_is_few(n_clusters=k, n_features=d)
    screen = Screen(centers.mean(axis=0), "float32", n_threads=1)
    results = []
    for subset in (None, np.arange(n)):  # rows in a subset are screened
        labels, distances = np.empty(n, np.int32), np.empty(n)
        prepared = screen.prepare(centers)
        screen.assign(x, centers, prepared, labels, distances, subset=subset)
        results.append((labels, distances))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])


def test_rows_that_are_not_finite_do_not_disturb_the_others(level):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(200, 9)).astype(np.float32)
    centers = generator.normal(size=(7, 9))
    expected, distances = kmeans_assign(x, centers, distance_dtype="float64")
    bad = x.copy()
    bad[5, 3], bad[70, 0], bad[71, 8], bad[199] = np.nan, np.inf, -np.inf, 3e38
    with np.errstate(all="ignore"):
        labels, found = kmeans_assign(bad, centers, distance_dtype="float64")
    good = np.setdiff1d(np.arange(200), [5, 70, 71, 199])
    np.testing.assert_array_equal(labels[good], expected[good])
    np.testing.assert_array_equal(found[good], distances[good])
    assert labels[5] == 0
    assert np.isnan(found[5])
    assert np.isinf(found[70:72]).all()
    assert labels[199] == reference.assign(bad[199:], centers)[0][0]


@pytest.mark.parametrize("k", [1, 2, 10, 64])
@pytest.mark.parametrize("d", [2, 32])
def test_a_fit_has_the_centres_of_float64_lloyd(k, d, device):
    x = mixture(fewer(2000, 300), d)
    start = x[:k].astype(np.float64)
    model = KMeans(k, init=start, max_iter=6, tol=0, device=device).fit(x)
    centers = start
    for _ in range(model.n_iter_):
        labels, distances = reference.assign(x, centers)
        sums, counts = reference.update(x, labels, k)
        centers = (sums / counts[:, None]).astype(np.float32).astype(np.float64)
    np.testing.assert_array_equal(model.cluster_centers_, centers)
    assert model.history_[-1]["inertia"] == pytest.approx(distances.sum(), rel=SUM_ORDER_FLOAT64)


@pytest.mark.parametrize("n_threads", [2, 3, 16])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_threads_and_shards_change_no_bit(dtype, n_threads):
    x = np.abs(mixture(9001, 7) * 4).astype(dtype)
    fit = KMeans(10, random_state=0, max_iter=9, n_threads=1).fit
    expected = fit(x)
    again = KMeans(10, random_state=0, max_iter=9, n_threads=n_threads)
    assert_same(again.fit([x[:70], x[70:4099], x[4099:]]), expected)


def test_many_clusters_of_many_features_are_screened():
    is_few = modules.cpu.kmeans_is_few
    assert is_few(n_clusters=64, n_features=4096)
    assert is_few(n_clusters=1000, n_features=2)
    assert not is_few(n_clusters=2000, n_features=2)
    assert not is_few(n_clusters=200, n_features=256)
