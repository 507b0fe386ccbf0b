"""Threads, shards, libraries, instruction sets and the order of calls change no bit of a fit."""

import hashlib
import threading

import numpy as np
import pytest

from ktfast import KMeans
from support.kmeans_cases import assert_same, mixture
from support.optional import torch
from support.tolerances import FLOAT32_CENTERS


def fit(x, **options):
    return KMeans(12, random_state=3, **options).fit(x)


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
    expected = fit(x, init="random", n_init=2)
    weighted = KMeans(12, random_state=3).fit(x, sample_weight=weight)
    for same in (
        mapped,
        [x[:1], x[1:1000], x[1000:]],
        [mapped[:700], mapped[700:]],
        np.asfortranarray(x),
        torch.from_numpy(x),
    ):
        assert_same(fit(same, init="random", n_init=2), expected)
        assert_same(KMeans(12, random_state=3).fit(same, sample_weight=weight), weighted)


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


def test_sixteen_thread_counts_twenty_times_give_one_hash():
    x = mixture(400, d=8)
    options = {"init": "random", "n_init": 1, "max_iter": 2}
    hashes = {
        hashlib.sha256(
            model.cluster_centers_.tobytes()
            + model.labels_.tobytes()
            + str(model.inertia_).encode()
        ).hexdigest()
        for n_threads in range(1, 17)
        for _ in range(20)
        for model in [fit(x, n_threads=n_threads, **options)]
    }
    assert len(hashes) == 1


@pytest.mark.usefixtures("early_bounds")
@pytest.mark.parametrize("n_threads", [2, 7, 16])
def test_threads_change_no_bit_where_bounds_and_batches_are_used(n_threads):
    # k-means++ uses batches for more than 6,144 rows. With 340 features, 70 clusters are not few.
    x = mixture(6500, d=340)
    options = {"init": "k-means++", "random_state": 0, "max_iter": 8}
    expected = KMeans(70, n_threads=1, **options).fit(x)
    assert any(row["skipped"] > 0 for row in expected.history_)
    assert_same(KMeans(70, n_threads=n_threads, **options).fit([x[:9], x[9:]]), expected)


@pytest.mark.parametrize("init", ["k-means||", "k-means++", "random"])
def test_the_order_of_the_rows_changes_only_roundings(init):
    x = mixture()
    order = np.random.default_rng(0).permutation(len(x))
    expected, shuffled = fit(x, init=init, n_init=1), fit(x[order], init=init, n_init=1)
    np.testing.assert_array_equal(shuffled.labels_, expected.labels_[order])
    np.testing.assert_allclose(
        shuffled.cluster_centers_, expected.cluster_centers_, rtol=FLOAT32_CENTERS
    )
