"""Hard inputs are either clustered correctly or refused with an error that names the problem."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score

import ktfast
from ktfast import KMeans
from ktfast.errors import InputError
from support.kmeans_cases import assert_consistent, assert_same, fewer, mixture
from support.optional import torch

INITS = ("k-means||", "k-means++", "random")


def fit(x, n_clusters=12, **options):
    return KMeans(n_clusters, random_state=3, **options).fit(x)


def run(program):
    """Run a program that uses ktfast, and return what the program prints within a minute."""
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd="/",  # the ktfast of the checkout may not be built
        env=os.environ | {"PYTHONPATH": str(Path(ktfast.__file__).parents[1])},
    ).stdout


@pytest.mark.emulated_gpu
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
def test_bad_values_are_named(value, message, device):
    x = mixture(100)
    model = fit(x, device=device)
    x[57, 3] = value
    x = np.concatenate([x, x[:10]])
    for same in (x, [x[:30], x[30:]], torch.from_numpy(x)):
        with pytest.raises(InputError, match=message):
            fit(same, device=device)
        if not abs(value) < np.inf:
            with pytest.raises(InputError, match=message):
                model.predict(same)


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", [1e-30, 1e12, 1e18])
def test_values_at_the_edge_are_clustered(scale, dtype, init, device):
    x = mixture(fewer(600, 200))
    x /= np.abs(x).max()
    scaled = (x * scale).astype(dtype)
    model = fit(scaled, init=init, n_init=1, device=device)
    assert_consistent(model, scaled)
    alike = fit(x.astype(dtype), init=init, n_init=1)
    assert adjusted_rand_score(alike.labels_, model.labels_) > 0.99


def test_negative_zeros_and_subnormal_numbers(device):
    x = mixture(fewer(3000, 400))
    x[::2, 0], x[0, 1] = -0.0, 1e-45
    assert_consistent(fit(x, device=device), x)
    tiny = (mixture(300) * 1e-42).astype(np.float32)
    assert fit(tiny, 3, device=device).n_effective_clusters_ == 3


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize(
    ("n", "d", "k"), [(1, 1, 1), (1, 5, 1), (2, 3, 2), (50, 1, 7), (50, 3, 1), (64, 77, 64)]
)
def test_smallest_sizes(n, d, k, init, device):
    x = np.random.default_rng(n).normal(size=(n, d)).astype(np.float32)
    model = fit(x, k, init=init, device=device)
    assert_consistent(model, x)
    if n == k:
        assert model.inertia_ == 0
    if k == 1:
        np.testing.assert_allclose(model.cluster_centers_[0], x.mean(axis=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("init", INITS)
def test_constant_data_and_duplicates(init, device):
    for x, distinct in (
        (np.full((40, 3), 7.0), 1),
        (np.zeros((40, 3)), 1),
        (np.repeat(np.eye(5), [1, 2, 30, 4, 500], axis=0), 5),
    ):
        with pytest.warns(ConvergenceWarning, match="distinct clusters"):
            model = fit(x, 6, init=init, device=device)
        assert model.n_effective_clusters_ == distinct
        assert model.inertia_ == 0
        assert np.isfinite(model.cluster_centers_).all()


@pytest.mark.parametrize("dtype", ["float16", "int8", "uint8", "int16", "int64", "bool", ">f4"])
def test_every_dtype_gives_the_values_clusters(dtype, device):
    x = mixture(400)
    x = (x > 0).astype(dtype) if dtype == "bool" else np.round(np.abs(x) * 4).astype(dtype)
    read_as = "float32" if dtype in ("float16", "int8", "uint8") else "float64"
    assert_same(fit(x, device=device), fit(x.astype(read_as)))


@pytest.mark.emulated_gpu
@pytest.mark.parametrize(
    "change",
    [
        np.asfortranarray,
        lambda x: np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1],
        lambda x: np.repeat(np.repeat(x, 2, axis=0), 3, axis=1)[::2, ::3],
        lambda x: np.frombuffer(b"." + x.tobytes(), np.float32, offset=1).reshape(x.shape),
        lambda x: [x[:0], x[:3], x[3:3], x[3:]],
        lambda x: torch.from_numpy(x).requires_grad_(),
    ],
    ids=["fortran", "reversed", "strided", "unaligned and read-only", "empty shards", "gradient"],
)
def test_layouts_change_no_bit(change, device):
    x = mixture(500)
    model = fit(change(x), device=device)
    model.cluster_centers_ = np.asarray(model.cluster_centers_)
    assert_same(model, fit(x))


@pytest.mark.emulated_gpu
@pytest.mark.parametrize(
    "make",
    [
        lambda: np.zeros((0, 3)),
        lambda: np.zeros((5, 0)),
        lambda: torch.zeros(0, 3),
        lambda: torch.zeros(5, 0),
        list,
    ],
)
def test_nothing_to_cluster(make, device):
    empty = make()
    with pytest.raises(ValueError, match=r"minimum of 1|Expected 2D array"):
        fit(empty, device=device)


@pytest.mark.parametrize("init", INITS)
def test_weights(init, device):
    x = mixture(300)
    weight = np.zeros(300)
    weight[:100] = np.random.default_rng(0).random(100)
    options = {"init": init, "n_init": 1, "random_state": 3, "device": device}
    model = KMeans(12, **options)
    zeroed = KMeans(12, **options).fit(x, sample_weight=weight)
    assert_consistent(zeroed, x, weight)
    few = np.zeros(300)
    few[:5] = 1e-300
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        alone = KMeans(12, **options).fit(x, sample_weight=few)
    assert np.isfinite(alone.cluster_centers_).all()
    for bad, message in (
        (-1.0, "Negative values"),
        (np.nan, "NaN"),
        (np.inf, "infinity"),
    ):
        weight[7] = bad
        with pytest.raises(ValueError, match=message):
            model.fit(x, sample_weight=weight)
    with pytest.raises(ValueError, match="at least one non-zero"):
        model.fit(x, sample_weight=np.zeros(300))
    with pytest.raises(ValueError, match="expected"):
        model.fit(x, sample_weight=np.ones(299))


def test_a_child_forked_after_a_fit_in_threads():
    program = """
import os, numpy as np
from ktfast import KMeans
x = np.random.default_rng(0).normal(size=(5000, 16)).astype(np.float32)
fit = lambda: KMeans(80, random_state=0, n_threads=4, max_iter=3).fit(x).inertia_
before = fit() if {FITTED} else None
if os.fork() == 0:
    print("child", fit(), flush=True)
    os._exit(0)
os.wait()
print("parent", fit())
"""
    for fitted in ("False", "True"):
        child, parent = run(program.replace("{FITTED}", fitted)).split("\n")[:2]
        assert child.split()[1] == parent.split()[1]


def test_more_threads_than_any_machine_has():
    x = mixture(3000)
    assert_same(fit(x, n_threads=100_000), fit(x, n_threads=1))


@pytest.mark.slow
def test_more_than_2_to_32_elements(device, tmp_path):
    if fewer(False, True):
        pytest.skip("too many elements for the emulated GPU")
    n, d = 66_000, 1 << 16  # 4.3e9 elements of one byte; the disk stores only two rows
    with open(tmp_path / "x", "wb") as file:
        file.truncate(n * d)
    x = np.memmap(tmp_path / "x", dtype=np.uint8, mode="r+", shape=(n, d))
    x[-2:] = 3
    start = np.array([[0.0], [2.0]]).repeat(d, axis=1)
    model = KMeans(2, init=start, max_iter=1, device=device).fit(x)
    assert [row["inertia"] for row in model.history_] == [2 * d]
    np.testing.assert_array_equal(model.cluster_centers_, np.array([[0], [3]]).repeat(d, axis=1))
    assert not model.labels_[:-2].any()
    np.testing.assert_array_equal(model.labels_[-2:], 1)
