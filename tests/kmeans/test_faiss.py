"""`ktfast.kmeans.faiss` and faiss find the same clusters and objective from the same start."""

import inspect
import logging

import numpy as np
import pytest

from ktfast.errors import InputError
from ktfast.kmeans import faiss as faiss_compat
from ktfast.native import modules
from support.kmeans_cases import fewer, mixture
from support.optional import torch
from support.tolerances import FAISS_FLOAT32


@pytest.fixture(scope="module")
def faiss():
    module = pytest.importorskip("faiss", reason="faiss is not installed")
    module.omp_set_num_threads(1)
    return module


def points(n=4000, d=16, dtype="float32"):
    return mixture(n, d).astype(dtype)


@pytest.mark.parametrize("spherical", [False, True])
def test_the_same_start_gives_the_same_result(spherical, faiss, device):
    x = points(fewer(4000, 600))
    options = {"niter": 8, "spherical": spherical}
    ours = faiss_compat.Kmeans(16, 20, gpu=device == "cuda", **options)
    theirs = faiss.Kmeans(16, 20, max_points_per_centroid=10**9, **options)
    final = ours.train(x, init_centroids=x[:20])
    assert final == pytest.approx(theirs.train(x, init_centroids=x[:20].copy()), rel=FAISS_FLOAT32)
    assert final == ours.obj[-1]
    np.testing.assert_allclose(ours.obj, theirs.obj, rtol=FAISS_FLOAT32)
    np.testing.assert_allclose(ours.centroids, theirs.centroids, rtol=1e-3, atol=1e-4)
    assert ours.centroids.dtype == np.float32
    for a, b in zip(ours.iteration_stats, theirs.iteration_stats, strict=True):
        assert a.keys() == b.keys()
        for name in ("obj", "imbalance_factor", "nsplit"):
            assert a[name] == pytest.approx(b[name], rel=FAISS_FLOAT32)
    distances, labels = ours.assign(x)
    np.testing.assert_array_equal(labels, theirs.assign(x)[1])
    np.testing.assert_allclose(distances, theirs.assign(x)[0], rtol=1e-3)


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize("k", [1, 3, 25])
def test_search_answers_as_faiss_does(spherical, k, faiss):
    x = points(500)
    ours = faiss_compat.Kmeans(16, 20, niter=3, spherical=spherical)
    ours.train(x)
    index = (faiss.IndexFlatIP if spherical else faiss.IndexFlatL2)(16)
    index.add(ours.centroids)
    assert (ours.index.ntotal, ours.index.d) == (20, 16)
    found, expected = ours.index.search(x, k), index.search(x, k)
    for a, b in zip(found, expected, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4, atol=1e-3)
    assert (found[1] == expected[1]).mean() > 0.999
    np.testing.assert_array_equal(ours.index.assign(x, k), found[1])


def test_every_option_of_faiss_is_known(faiss):
    parameters = faiss.ClusteringParameters()
    names = {n for n in dir(parameters) if not n.startswith("_")} - {"this", "thisown"}
    own = set(inspect.signature(faiss_compat.Kmeans).parameters)
    for name in names - own:
        faiss_compat.Kmeans(4, 2, **{name: getattr(parameters, name)})
    assert own - {"options"} <= names | {"d", "k", "gpu"}


@pytest.mark.parametrize(
    "options",
    [
        {"frozen_centroids": True},
        {"int_centroids": True},
        {"use_super_kmeans": True},
        {"early_stop_threshold": 0.1},
        {"progressive_dim_steps": 3},
        {"init_method": 2},
        {"niter": 0},
        {"k": 0},
    ],
)
def test_what_is_not_there_is_named(options):
    with pytest.raises(InputError, match=next(iter(options))):
        faiss_compat.Kmeans(**{"d": 4, "k": 2, **options})
    with pytest.raises(TypeError, match="no option 'n_iter'"):
        faiss_compat.Kmeans(4, 2, n_iter=3)


def test_repetitions_weights_and_seeds(device):
    gpu = device == "cuda"
    x = points(fewer(2000, 400))
    weights = np.random.default_rng(0).integers(0, 3, size=len(x))
    one, best = (faiss_compat.Kmeans(16, 20, niter=5, nredo=n, gpu=gpu) for n in (1, 5))
    assert best.train(x) <= one.train(x)
    same = faiss_compat.Kmeans(16, 20, niter=5, gpu=gpu)
    same.train(x)
    np.testing.assert_array_equal(same.centroids, one.centroids)
    other = faiss_compat.Kmeans(16, 20, niter=5, seed=5, init_method=1, gpu=gpu)
    other.train(x)
    assert (other.centroids != one.centroids).any()
    one.train(x, weights=weights, init_centroids=x[:20])
    same.train(np.repeat(x, weights, axis=0), init_centroids=x[:20])
    np.testing.assert_allclose(one.centroids, same.centroids, rtol=FAISS_FLOAT32)
    assert one.obj[-1] == pytest.approx(same.obj[-1])


@pytest.mark.emulated_gpu
def test_iterations_after_convergence_repeat_the_objective(device):
    x = np.repeat(np.eye(4, dtype=np.float32), 50, axis=0)
    kmeans = faiss_compat.Kmeans(4, 4, niter=12, gpu=device == "cuda")
    assert kmeans.train(x) == 0
    assert len(kmeans.obj) == len(kmeans.iteration_stats) == 12
    assert not kmeans.obj.any()


def test_nothing_is_left_out_unless_asked(caplog):
    x = points(3000, dtype="float64").tolist()
    kmeans = faiss_compat.Kmeans(16, 2, niter=2)
    assert kmeans.train(x, init_centroids=np.array(x[:2])) == pytest.approx(
        ((np.array(x)[:, None] - kmeans_start(x, kmeans)) ** 2).sum(-1).min(1).sum(), rel=1e-5
    )
    sampled = faiss_compat.Kmeans(16, 2, niter=2, max_points_per_centroid=100)
    assert sampled.train(x) < 0.2 * kmeans.obj[-1]
    with caplog.at_level(logging.WARNING, "ktfast"):
        faiss_compat.Kmeans(16, 100, niter=1).train(x)
    assert "give at least 3900 points" in caplog.text


def kmeans_start(x, kmeans):
    """Compute the centroids at the start of the second iteration."""
    first = faiss_compat.Kmeans(kmeans.d, kmeans.k, niter=1)
    first.train(x, init_centroids=np.array(x[:2]))
    return first.centroids


def test_torch_and_reset(device):
    x = points(1000)
    kmeans = faiss_compat.Kmeans(16, 5, niter=4, gpu=device == "cuda")
    kmeans.train(torch.from_numpy(x))
    centroids = kmeans.centroids
    kmeans.reset(7)
    assert kmeans.centroids is None
    assert kmeans.index.ntotal == 0
    with pytest.raises(InputError, match="train first"):
        kmeans.assign(x)
    kmeans.reset(5)
    kmeans.train(x)
    np.testing.assert_array_equal(kmeans.centroids, centroids)
    distances, labels = kmeans.index.search(torch.from_numpy(x), 1)
    assert distances.shape == labels.shape == (1000, 1)


@pytest.mark.emulated_gpu
def test_wrong_points_are_refused(device):
    kmeans = faiss_compat.Kmeans(16, 5, gpu=device == "cuda")
    with pytest.raises(InputError, match=r"shape \[n, 16\], because d is 16; got \[10, 3\]"):
        kmeans.train(np.zeros((10, 3)))
    with pytest.raises(InputError, match="4 points are fewer than the 5 centroids"):
        kmeans.train(np.zeros((4, 16)))
    bad = points(100)
    bad[3] = np.nan
    with pytest.raises(InputError, match="NaN in row 3"):
        kmeans.train(bad)
    with pytest.raises(InputError, match="initial centers"):
        kmeans.train(points(100), init_centroids=np.zeros((2, 16)))


@pytest.mark.skipif(modules.has_cuda(), reason="there is a GPU")
def test_a_missing_gpu_is_named():
    with pytest.raises(RuntimeError, match="CUDA"):
        faiss_compat.Kmeans(16, 5, gpu=True).train(points(100))


@pytest.mark.emulated_gpu
@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.usefixtures("gpu")
def test_the_gpu_gives_the_cpu_s_clusters(spherical):
    x = points(fewer(1000, 300))
    options = {"niter": 4, "spherical": spherical}
    cpu, gpu = (faiss_compat.Kmeans(16, 5, gpu=where, **options) for where in (False, True))
    assert gpu.train(x) == pytest.approx(cpu.train(x))
    np.testing.assert_allclose(gpu.centroids, cpu.centroids, rtol=FAISS_FLOAT32)
