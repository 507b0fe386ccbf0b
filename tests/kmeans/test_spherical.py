"""A spherical fit gives the bits of a fit on rows that were scaled before."""

import numpy as np
import pytest

import ktfast.kmeans.inputs
from ktfast import KMeans
from ktfast.errors import InputError
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.data.spherical import SphericalRows
from support.kmeans_cases import assert_same, fewer, mixture
from support.optional import torch
from support.tolerances import FLOAT32_CENTERS


class UnitRows(SphericalRows):
    """`SphericalRows` that reads rows of length one without scaling them."""

    parts = Rows.parts
    take = Rows.take


def rows_of_all_lengths(n=2000, dtype="float32"):
    x = mixture(n) * np.random.default_rng(0).exponential(size=(n, 1)) + 1
    return (x * 3).astype(dtype)


def unit(x):
    exact = x.astype(np.float64)
    scaled = exact / np.sqrt((exact * exact).sum(axis=1, keepdims=True))
    return scaled.astype("float64" if x.dtype == np.float64 else "float32")


def fit(x, weight=None, **options):
    return KMeans(12, spherical=True, random_state=0, **options).fit(x, sample_weight=weight)


@pytest.mark.parametrize("init", ["k-means||", "k-means++", "random"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int8"])
def test_the_bits_of_rows_scaled_beforehand(dtype, init, monkeypatch):
    x = rows_of_all_lengths(dtype=dtype)
    weight = np.random.default_rng(1).random(len(x)) if init == "random" else None
    model = fit(x, weight, init=init, n_init=1)
    x[:] *= 1  # x is still writable
    assert model.cluster_centers_.dtype == ("float64" if dtype == "float64" else "float32")
    np.testing.assert_array_equal(model.predict(x), model.labels_)
    assert model.score(x, sample_weight=weight) == -model.inertia_
    distances = model.transform(x)
    monkeypatch.setattr(ktfast.kmeans.inputs, "SphericalRows", UnitRows)
    assert_same(fit(unit(x), weight, init=init, n_init=1), model)
    np.testing.assert_array_equal(model.transform(unit(x)), distances)


@pytest.mark.emulated_gpu
def test_by_hand(device):
    x = np.array([[1.0, 0], [0, 5], [3, 3], [0, -2]])
    model = KMeans(2, init=[[2.0, 1], [0, -9]], spherical=True, device=device).fit(x)
    np.testing.assert_array_equal(model.labels_, [0, 0, 0, 1])
    half = np.sqrt(0.5)
    np.testing.assert_allclose(model.cluster_centers_, [[half, half], [0, -1]])
    assert model.inertia_ == pytest.approx(2 * 2 * (1 - half))


@pytest.mark.parametrize("init", ["k-means||", "k-means++", "random"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int8"])
def test_every_device_finds_the_same_clusters(dtype, init, device):
    x = rows_of_all_lengths(fewer(2000, 400), dtype)
    weight = np.random.default_rng(1).random(len(x)) if init == "random" else None
    model = fit(x, weight, init=init, n_init=1, device=device)
    expected = fit(x, weight, init=init, n_init=1)
    np.testing.assert_array_equal(model.labels_, expected.labels_)
    np.testing.assert_allclose(
        model.cluster_centers_, expected.cluster_centers_, rtol=FLOAT32_CENTERS, atol=1e-6
    )
    np.testing.assert_allclose(np.linalg.norm(model.cluster_centers_, axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(model.predict(x), model.labels_)
    assert model.score(x, sample_weight=weight) == -model.inertia_
    np.testing.assert_allclose(model.transform(x), expected.transform(x), rtol=1e-4, atol=1e-4)
    assert_same(fit(x, weight, init=init, n_init=1, device=device), model)


@pytest.mark.usefixtures("early_bounds")
def test_enough_for_bounds_and_for_several_blocks(monkeypatch):
    monkeypatch.setattr("ktfast.kmeans.data.spherical._BLOCK", 16 * 1000)
    monkeypatch.setattr("ktfast.kmeans.data.spherical._PIECE", 16 * 300)
    x = np.tile(rows_of_all_lengths(5000), 24)  # with 384 features, 65 clusters are not few
    x += np.random.default_rng(3).normal(size=x.shape).astype(np.float32)
    options = {"spherical": True, "random_state": 0}
    model = KMeans(65, **options).fit(x)
    assert any(row["skipped"] > 0 for row in model.history_)
    inertia = [row["inertia"] for row in model.history_]
    assert inertia == sorted(inertia, reverse=True)
    np.testing.assert_allclose(np.linalg.norm(model.cluster_centers_, axis=1), 1, rtol=1e-6)
    assert_same(KMeans(65, **options, n_threads=3).fit([x[:333], x[333:]]), model)
    cosine = unit(x) @ model.cluster_centers_.T
    assert (cosine.max(axis=1) - cosine[np.arange(5000), model.labels_]).max() < 1e-6


@pytest.mark.parametrize("k", [12, 65])
def test_kept_rows_are_the_rows(k, monkeypatch):
    x = rows_of_all_lengths(3000)
    options = {"spherical": True, "random_state": 0, "max_iter": 8}
    scaled = []
    once = SphericalRows._scaled
    monkeypatch.setattr(
        SphericalRows, "_scaled", lambda *arguments: (scaled.append(1), once(*arguments))[1]
    )
    model = KMeans(k, **options).fit([x[:1000], x[1000:]])
    kept = len(scaled)
    assert kept <= 2 * 3  # two shards, each scaled for mean, for variance and to be kept
    monkeypatch.setattr("ktfast.kmeans.data.spherical._KEPT_BYTES", x.nbytes - 1)
    assert_same(KMeans(k, **options).fit([x[:1000], x[1000:]]), model)
    assert len(scaled) - kept > 2 * model.n_iter_


@pytest.mark.emulated_gpu
def test_torch(device):
    x = rows_of_all_lengths(500)
    model = fit(torch.from_numpy(x).to(device, torch.bfloat16))
    assert model.cluster_centers_.device.type == device
    expected = fit(torch.from_numpy(x).bfloat16().float().numpy())
    np.testing.assert_array_equal(model.labels_.cpu(), expected.labels_)


def test_opposite_rows_leave_a_centre_where_it_was(device):
    x = np.array([[1.0, 0], [-1, 0]])
    model = KMeans(1, init=[[0.0, 2]], spherical=True, device=device).fit(x)
    np.testing.assert_array_equal(model.cluster_centers_, [[0, 1]])
    drawn = KMeans(1, spherical=True, random_state=0, device=device).fit(x)
    assert np.linalg.norm(drawn.cluster_centers_) == 1


@pytest.mark.emulated_gpu
def test_refusals(device):
    x = rows_of_all_lengths(100)
    model = fit(x, device=device)
    for value, message in [
        (0, "holds only zeros, which have no direction, in row 57"),
        (np.nan, "contains NaN in row 57"),
        (np.inf, "contains infinity in row 57"),
    ]:
        bad = x.copy()
        bad[57] = value
        for same in (bad, [bad[:50], bad[50:]], torch.from_numpy(bad)):
            with pytest.raises(InputError, match=message):
                fit(same, device=device)
            with pytest.raises(InputError, match=message):
                model.predict(same)
    with pytest.raises(InputError, match="too small or too large to scale in row 1"):
        KMeans(1, spherical=True, device=device).fit([np.array([[1.0, 2], [1e-200, 0]])])
    with pytest.raises(InputError, match="row of zeros"):
        fit(x, init=np.zeros((12, 16)), device=device)
    assert fit(x * np.float32(1e30), device=device).n_effective_clusters_ == 12
