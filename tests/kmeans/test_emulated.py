"""Fits with the emulated CUDA kernels give the bits of fits on a CPU."""

import math
import sys
from collections import Counter

import numpy as np
import pytest

from ktfast import KMeans
from ktfast.kmeans.assignment.bounds import InertiaOfSums
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.lloyd import lloyd
from ktfast.ops.kmeans_tensor import TensorScreen
from support.kmeans_cases import assert_same, least_budget, mixture
from support.optional import torch

fake_torch = pytest.importorskip("emulation.cuda.fake_torch", reason="torch is not installed")
CudaTensor, memory = fake_torch.CudaTensor, fake_torch.memory


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
    assert {"kmeans_assign", "kmeans_update", "kmeans_totals"} < emulated_gpu.called
    assert {"kmeans_move", "kmeans_means"} < emulated_gpu.called


@pytest.mark.emulated_gpu
@pytest.mark.parametrize("precision", ["int8", "float16", "fast"])
def test_fits_with_tensor_cores(gpu, precision, monkeypatch):
    """On a real GPU too, "exact" and "fast" take the tensor cores for this small problem."""
    monkeypatch.setattr(sys.modules["ktfast.ops.kmeans_assign"], "_GPU_SMALL", 0)
    screened = []
    assign = TensorScreen.assign
    monkeypatch.setattr(
        TensorScreen, "assign", lambda *a, **b: (screened.append(a[0].code), assign(*a, **b))
    )
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
    assert len(screened) >= 10
    assert precision == "fast" or precision in screened


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


@pytest.mark.parametrize("decided_by", ["errors", "exact distances"])
def test_iterations_do_not_compute_the_distance_to_each_guess(
    emulated_gpu, monkeypatch, decided_by
):
    """Bounds follow the centres, and the inertia follows from the sums within its error."""
    monkeypatch.setattr(sys.modules["ktfast.ops.kmeans_assign"], "_GPU_SMALL", 0)
    if decided_by == "errors":  # bounds of the other distances too
        monkeypatch.setattr(sys.modules["ktfast.kmeans.assignment.gpu"], "_LEAST_FEATURES", 0)
    inertia_of_sums, found = InertiaOfSums.of, []

    def record(self, centers):
        found.append(inertia_of_sums(self, centers))
        return found[-1] if decided_by == "errors" else found[-1]._replace(error=math.inf)

    monkeypatch.setattr(InertiaOfSums, "of", record)
    x = mixture(300)
    start = np.concatenate([x[:11], np.full((1, 16), 1e3, np.float32)])  # a cluster is relocated
    options = {"n_clusters": 12, "init": start, "tol": 0, "max_iter": 9}
    expected = KMeans(**options).fit(x)
    for given in (torch.tensor(x, device="cuda"), x):
        found.clear()
        emulated_gpu.launches()
        model = KMeans(**options, device="cuda", precision="float16").fit(given)
        launched = Counter(emulated_gpu.launches())
        for name in ("labels_", "cluster_centers_"):
            there = getattr(model, name)
            np.testing.assert_array_equal(
                there.cpu() if given is not x else there, getattr(expected, name)
            )
        assert model.inertia_ == expected.inertia_
        assert all(0 <= row["skipped"] <= 1 for row in model.history_)
        exact = [row["inertia"] for row in expected.history_]
        assert len(found) >= len(exact) > 3
        for (value, error), one in zip(found, exact, strict=False):
            assert abs(value - one) <= error < 1e-9 * one
        # Exact distances: to the mean, for the relocation, for the result, and for open decisions.
        if decided_by == "errors":
            assert launched["distances_kernel"] <= 4
        assert launched["guess_kernel"] <= 2


def test_an_iteration_is_one_sequence_of_kernels(emulated_gpu, monkeypatch):
    """Calls on a GPU have no limit of bytes, and no kernel starts for an empty queue."""
    monkeypatch.setattr(sys.modules["ktfast.ops.kmeans_assign"], "_GPU_SMALL", 0)
    monkeypatch.setattr("ktfast.ops.vectors.CALL_BYTES", 4 * 16 * 128)  # 128 rows
    x, k = mixture(300), 12
    launched = []
    for max_iter in (2, 3):
        there = torch.tensor(x, device="cuda")
        emulated_gpu.launches()
        model = KMeans(k, init=x[:k], tol=0, max_iter=max_iter, precision="float16").fit(there)
        assert model.n_iter_ == max_iter
        launched.append(Counter(emulated_gpu.launches()))
    assert launched[1] - launched[0] == {
        "moves_kernel": 1, "bound_kernel": 1, "wgmma_screen_kernel": 1, "settle_kernel": 1,
        "clear_centers_kernel": 1, "measure_centers_kernel": 1, "code_centers_kernel": 1,
        "count_changes_kernel": 1, "start_kernel": 1, "place_changes_kernel": 1,
        "add_changes_kernel": 1, "means_kernel": 1, "part_totals_kernel": 1, "totals_kernel": 1,
        "costs_kernel": 1,
    }  # fmt: skip


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
