"""Fits with the emulated CUDA kernels give the bits of fits on a CPU."""

import sys

import numpy as np
import pytest
import torch

from emulation.cuda.fake_torch import CudaTensor, memory
from ktfast import KMeans
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.lloyd import lloyd
from support.kmeans_cases import assert_same, least_budget, mixture


@pytest.mark.parametrize(
    ("dtype", "weighted"),
    [("float32", False), ("float32", True), ("float64", False), ("uint8", False)],
)
def test_fits(emulated_gpu, dtype, weighted):
    x = np.abs(mixture(300) * 5).astype(dtype)
    weight = np.random.default_rng(0).random(len(x)) if weighted else None
    options = {"n_clusters": 12, "random_state": 3, "max_iter": 3, "init": "k-means++"}
    expected = KMeans(**options).fit(x, sample_weight=weight)
    for budget in (None, least_budget(x, 12)):
        model = KMeans(**options, device="cuda", memory_budget=budget)
        assert_same(model.fit(x, sample_weight=weight), expected)
        assert [row["moved"] for row in model.history_] == [
            row["moved"] for row in expected.history_
        ]
    np.testing.assert_array_equal(model.predict(x), expected.labels_)
    follows = not weighted and dtype != "float64"
    assert {"kmeans_assign", "kmeans_update", "kmeans_totals"} < emulated_gpu.called
    assert (
        ("kmeans_move" in emulated_gpu.called) == ("kmeans_means" in emulated_gpu.called) == follows
    )


@pytest.mark.parametrize("precision", ["int8", "float16", "fast"])
def test_fits_with_tensor_cores(emulated_gpu, precision, monkeypatch):
    monkeypatch.setattr(sys.modules["ktfast.ops.kmeans_assign"], "_GPU_SMALL", 0)
    x = mixture(300)
    options = {"n_clusters": 12, "init": x[:12], "tol": 0, "max_iter": 5}
    expected = KMeans(**options).fit(x)
    for budget in (None, least_budget(x, 12)):
        model = KMeans(**options, device="cuda", precision=precision, memory_budget=budget).fit(x)
        if precision == "fast":
            np.testing.assert_allclose(model.inertia_, expected.inertia_, rtol=1e-2)
            again = model.assign(x)
            np.testing.assert_array_equal(model.labels_, again[0])
        else:
            assert_same(model, expected)
    assert "kmeans_tensor_assign" in emulated_gpu.called


def test_an_empty_cluster_takes_a_row(emulated_gpu):
    x = mixture(300)
    start = np.concatenate([x[:5], np.full((2, 16), 1e3, np.float32)])
    expected = KMeans(7, init=start, max_iter=4).fit(x)
    assert expected.history_[0]["relocated"] == 2
    assert_same(KMeans(7, init=start, max_iter=4, device="cuda").fit(x), expected)


def test_shards_of_which_some_are_empty(emulated_gpu, monkeypatch):
    monkeypatch.setattr(sys.modules["ktfast.ops.kmeans_assign"], "_GPU_SMALL", 300 * 12 * 16)
    x = mixture(300)
    expected = KMeans(12, init=x[:12], max_iter=3).fit(x)
    rows = Rows([torch.tensor(part, device="cuda") for part in (x[:0], x[:130], x[130:], x[:0])])
    result = lloyd(
        rows,
        x[:12].astype(np.float64),
        None,
        mean=x.mean(axis=0, dtype=np.float64),
        max_iter=3,
        tolerance=0.0,
        memory_budget=1 << 30,
    )
    np.testing.assert_array_equal(result.labels.cpu(), expected.labels_)
    assert result.inertia == expected.inertia_
    assert "kmeans_tensor_assign" in emulated_gpu.called


def test_rows_stay_on_the_gpu(emulated_gpu):
    """An iteration copies 16 bytes per cluster and two totals over all rows to the host."""
    x, k = mixture(300), 12
    there = torch.tensor(x, device="cuda")
    copied = []
    for max_iter in (1, 3):
        before = memory.to_host
        model = KMeans(k, init=x[:k], tol=0, max_iter=max_iter).fit(there)
        assert model.n_iter_ == max_iter
        copied.append(memory.to_host - before)
    assert copied[1] - copied[0] == 2 * (16 * k + 16)
    before = memory.to_host
    results = [model.labels_, model.cluster_centers_, model.predict(there), model.transform(there)]
    for result in (*results, *model.assign(there)):
        assert isinstance(result, CudaTensor)
    # Each call copies the centres. `transform` also copies the mean and the number of the rows.
    assert memory.to_host - before == 3 * model.cluster_centers_.nbytes + 8 * (16 + 1)
    expected = KMeans(k, init=x[:k], tol=0, max_iter=3).fit(x)
    for name in ("labels_", "cluster_centers_"):
        np.testing.assert_array_equal(getattr(model, name).cpu(), getattr(expected, name))
