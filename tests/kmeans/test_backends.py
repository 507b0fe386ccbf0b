"""Fits on every backend, with resident or streamed rows, give the bits of a fit on the CPU."""

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from ktfast import KMeans
from ktfast.errors import InputError
from ktfast.kmeans.data import spherical as kmeans_spherical
from ktfast.kmeans.data.spherical import SphericalRows
from support.kmeans_cases import assert_consistent, assert_same, fewer, least_budget, mixture
from support.optional import torch


def on_host(model):
    """The model with its results as NumPy arrays."""
    for name in ("cluster_centers_", "labels_"):
        value = getattr(model, name)
        setattr(model, name, value.cpu().numpy() if isinstance(value, torch.Tensor) else value)
    return model


def fit(x, weight=None, **options):
    options = {"n_clusters": 12, "random_state": 3, **options}
    return KMeans(**options).fit(x, sample_weight=weight)


@pytest.mark.parametrize("init", ["k-means||", "k-means++", "random"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "uint8", "int8"])
def test_fits(backend, dtype, init):
    x = np.abs(mixture(fewer(1000, 300)) * 2).astype(dtype)
    expected = fit(x, init=init, n_init=2)
    first = on_host(fit(backend.array(x), init=init, n_init=2))
    assert_same(first, expected)
    assert_consistent(first, x)
    assert [row["moved"] for row in first.history_] == [r["moved"] for r in expected.history_]
    assert_same(on_host(fit(backend.array(x), init=init, n_init=2)), first)


def test_many_rows_and_clusters(backend):
    x = mixture(fewer(60_000, 2000), d=40, k=200)
    options = {"n_clusters": 300, "max_iter": fewer(10, 3)}
    assert_same(on_host(fit(backend.array(x), **options)), fit(x, **options))


def test_shards_and_strides(backend):
    x = mixture()
    expected = fit(x)
    there = backend.array(x)
    wide = backend.array(np.repeat(x, 2, axis=1))
    for same in ([there[:1], there[1:1000], there[1000:]], wide[:, ::2]):
        assert_same(on_host(fit(same)), expected)


def test_weights(backend):
    x = mixture()
    weight = np.random.default_rng(0).random(len(x)) * (np.arange(len(x)) % 3 > 0)
    expected = fit(x, weight)
    model = fit(backend.array(x), weight)
    assert model.score(backend.array(x), sample_weight=weight) == -model.inertia_
    assert_same(on_host(model), expected)
    assert_same(on_host(fit(backend.array(x), backend.array(weight))), expected)


def test_mini_batches(backend):
    x = mixture(2000)
    expected, model = KMeans(12, random_state=0), KMeans(12, random_state=0)
    for batch in np.split(x, 10):
        expected.partial_fit(batch)
        model.partial_fit(backend.array(batch))
        centers = backend.numpy(model.cluster_centers_)
        np.testing.assert_array_equal(centers, expected.cluster_centers_)


def test_spherical(backend):
    x = mixture() + 1
    expected = fit(x, spherical=True)
    model = fit(backend.array(x), spherical=True)
    np.testing.assert_array_equal(backend.numpy(model.labels_), expected.labels_)
    assert model.inertia_ == pytest.approx(expected.inertia_, rel=1e-6)
    again = fit([backend.array(x[:700]), backend.array(x[700:])], spherical=True)
    assert_same(on_host(again), on_host(model))


@pytest.mark.emulated_gpu
def test_results_lie_where_the_rows_do(backend):
    x = backend.array(mixture(500))
    model = fit(x)
    results = [model.labels_, model.cluster_centers_, model.predict(x), model.transform(x)]
    for result in (*results, *model.assign(x)):
        assert type(result) is type(x)
        assert result.device == x.device
    host = on_host(fit(mixture(500)))
    np.testing.assert_allclose(
        backend.numpy(model.transform(x)), host.transform(mixture(500)), rtol=1e-5
    )


@pytest.mark.emulated_gpu
@pytest.mark.parametrize(
    ("value", "message"),
    [(np.nan, "NaN in row 57"), (np.inf, "infinity in row 57"), (3e38, "too large to cluster")],
)
def test_bad_values_are_named(backend, value, message):
    x = mixture(100)
    model = fit(backend.array(x))
    x[57, 3] = value
    with pytest.raises(InputError, match=message):
        fit(backend.array(x))
    if not abs(value) < np.inf:
        for use in (model.predict, model.transform, model.score):
            with pytest.raises(InputError, match=message):
                use(backend.array(x))


def test_hard_inputs(backend):
    constant = np.repeat(np.eye(5, dtype=np.float32), [1, 2, 30, 4, 500], axis=0)
    with pytest.warns(ConvergenceWarning, match="distinct clusters"):
        model = fit(backend.array(constant), n_clusters=6)
    assert model.n_effective_clusters_ == 5
    assert model.inertia_ == 0
    for n, d, k in ((1, 1, 1), (2, 3, 2), (50, 1, 7), (64, 77, 64)):
        x = np.random.default_rng(n).normal(size=(n, d)).astype(np.float32)
        assert_same(on_host(fit(backend.array(x), n_clusters=k)), fit(x, n_clusters=k))
    for scale in (1e-30, 1e18):
        x = (mixture(600) / 100 * scale).astype(np.float32)
        assert_same(on_host(fit(backend.array(x))), fit(x))
    empty = np.zeros((300, 16))  # all but one cluster start empty
    x = mixture(900)
    expected = KMeans(300, init=empty).fit(x)
    assert_same(on_host(KMeans(300, init=empty).fit(backend.array(x))), expected)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "uint8"])
def test_streamed_rows(dtype, tmp_path):
    x = np.abs(mixture(fewer(20_000, 600)) * 2).astype(dtype)
    x.tofile(tmp_path / "x")
    mapped = np.memmap(tmp_path / "x", dtype=dtype, mode="r", shape=x.shape)
    expected = fit(x)
    least = least_budget(x, 12)
    for given, budget in ((x, least), (mapped, least + x.nbytes // 2), ([x[:9], x[9:]], None)):
        model = fit(given, device="cuda", memory_budget=budget)
        assert type(model.labels_) is np.ndarray
        assert_same(model, expected)
        np.testing.assert_array_equal(model.predict(given), expected.labels_)
    rows = torch.from_numpy(x)
    model = fit(rows, device="cuda", memory_budget=least)
    assert model.labels_.device == rows.device
    assert_same(on_host(model), expected)
    there = rows.cuda()
    model = fit(there, device="cpu")
    assert model.labels_.device == there.device
    assert_same(on_host(model), expected)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    "options",
    [{}, {"init": "k-means++"}, {"precision": "int8"}, {"precision": "fast"}, {"spherical": True}],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_fits_take_no_more_than_the_budget(streamed, options, monkeypatch):
    monkeypatch.setattr("ktfast.kmeans.data.rows._TAKE_BYTES", 1 << 17)
    x = mixture(fewer(400_000, 2000), d=64, k=50)
    given, row_bytes = (x, x[0].nbytes) if streamed else (torch.tensor(x, device="cuda"), 0)
    scaled = 64 * 128 if streamed else kmeans_spherical._BLOCK
    work = SphericalRows.block_bytes * scaled if "spherical" in options else 0
    budget = least_budget(x, 50, row_bytes) + work + x.nbytes // 4
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    fit(given, n_clusters=50, device="cuda", memory_budget=budget, max_iter=4, **options)
    assert torch.cuda.max_memory_allocated() - before <= budget


@pytest.mark.emulated_gpu
@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("streamed", [False, True])
def test_all_work_is_on_the_callers_stream(streamed):
    """A fit reads rows that a slow kernel is still writing only when the rows are complete."""
    x = mixture(fewer(20_000, 1000))
    expected = fit(x, max_iter=5)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        if streamed:
            model = fit(x, max_iter=5, device="cuda", memory_budget=least_budget(x, 12))
        else:
            there = torch.zeros(x.shape, device="cuda")
            torch.cuda._sleep(100_000_000)
            there.copy_(torch.from_numpy(x).pin_memory(), non_blocking=True)
            model = fit(there, max_iter=5)
    assert_same(on_host(model), expected)


@pytest.mark.usefixtures("gpu")
def test_rows_of_cupy():
    if fewer(False, True):
        pytest.skip("torch holds the emulated GPU's arrays")
    cupy = pytest.importorskip("cupy")
    x = mixture()
    expected = fit(x)
    model = fit(cupy.asarray(x))
    assert isinstance(model.labels_, cupy.ndarray)
    assert isinstance(model.transform(cupy.asarray(x)), cupy.ndarray)
    model.labels_, model.cluster_centers_ = model.labels_.get(), model.cluster_centers_.get()
    assert_same(model, expected)


def test_rows_on_another_gpu_are_refused(monkeypatch):
    monkeypatch.setattr("ktfast.kmeans.inputs.device_of", lambda array: ("cuda", 0))
    with pytest.raises(InputError, match="X is on CUDA device 0, but device is 'cuda:1'"):
        fit(torch.zeros(20, 3), device="cuda:1")
