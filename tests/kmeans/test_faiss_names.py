"""The calls of faiss's users beside `Kmeans`: Clustering, flat indexes, files, threads."""

import copy
import importlib
import pickle

import numpy as np
import pytest

from ktfast import faiss_compat as faiss
from ktfast.errors import DataError, InputError
from ktfast.native import modules
from support.kmeans_cases import mixture
from support.optional import torch

D, K = 8, 5


@pytest.fixture
def x():
    return mixture(400, D)


def filled(x, make=faiss.IndexFlatL2):
    index = make(x.shape[1])
    index.add(x[:20])
    return index


def test_deepcluster_s_call(x):
    clus = faiss.Clustering(D, K)
    clus.seed = 7
    clus.niter = 6
    clus.max_points_per_centroid = 10_000_000
    index = faiss.IndexFlatL2(D)
    clus.train(x, index)
    _, numbers = index.search(x, 1)
    stats = clus.iteration_stats
    losses = np.array([stats.at(i).obj for i in range(stats.size())])
    centroids = faiss.vector_float_to_array(clus.centroids).reshape(K, D)
    kmeans = faiss.Kmeans(D, K, niter=6, seed=7)
    kmeans.train(x)
    np.testing.assert_array_equal(centroids, kmeans.centroids)
    np.testing.assert_array_equal(index.reconstruct_n(0, K), kmeans.centroids)
    np.testing.assert_array_equal(numbers[:, 0], kmeans.assign(x)[1])
    np.testing.assert_array_equal(losses, kmeans.obj)
    np.testing.assert_array_equal(faiss.vector_to_array(clus.obj), kmeans.obj)


def test_clustering_goes_on_from_centroids_and_takes_parameters_and_weights(x):
    cp = faiss.ClusteringParameters()
    cp.niter = 3
    clus = faiss.Clustering(D, K, cp)
    clus.centroids = x[:K].ravel()
    clus.train(x, faiss.IndexFlatL2(D), np.ones(len(x)))
    kmeans = faiss.Kmeans(D, K, niter=3)
    kmeans.train(x, init_centroids=x[:K])
    np.testing.assert_array_equal(clus.centroids, kmeans.centroids.ravel())
    spherical = faiss.Clustering(D, K)
    spherical.spherical = True
    spherical.train(x, faiss.IndexFlatIP(D))
    np.testing.assert_allclose(np.linalg.norm(spherical.centroids.reshape(K, D), axis=1), 1, 1e-6)


def test_the_parameters_of_kmeans_are_read_and_changed(x):
    kmeans = faiss.Kmeans(D, K, niter=7)
    assert kmeans.cp.niter == 7
    kmeans.cp.niter = 2
    kmeans.cp.spherical = True
    kmeans.train(x)
    assert len(kmeans.obj) == 2
    assert kmeans.index.metric_type == faiss.METRIC_INNER_PRODUCT
    with pytest.raises(AttributeError, match="no 'n_iter'"):
        _ = kmeans.cp.n_iter


def test_wrong_settings_are_named(x):
    clus = faiss.Clustering(D, K)
    with pytest.raises(TypeError, match="no option 'n_iter'"):
        clus.n_iter = 3
    with pytest.raises(InputError, match="does not support int_centroids"):
        clus.int_centroids = True
    with pytest.raises(InputError, match="does not support frozen_centroids"):
        faiss.ClusteringParameters().frozen_centroids = True
    for index, message in (
        (object(), "must be a flat index"),
        (faiss.IndexFlatL2(D + 1), "dimension 9, not 8"),
        (faiss.IndexFlatIP(D), "needs spherical=True"),
    ):
        with pytest.raises(InputError, match=message):
            clus.train(x, index)
    for name, value in (("niter", "3"), ("niter", 0), ("nredo", 1.5), ("init_method", 9)):
        with pytest.raises(InputError, match=f"{name} must be"):
            faiss.Kmeans(D, K, **{name: value})
    for name, value in (
        ("max_points_per_centroid", 0),
        ("max_points_per_centroid", "a"),
        ("min_points_per_centroid", None),
        ("seed", None),
        ("seed", 2**40),
        ("spherical", "yes"),
    ):
        with pytest.raises(InputError, match=f"^{name} must be"):
            faiss.Kmeans(D, K, **{name: value})
    negative, positive = (faiss.Kmeans(D, K, niter=2, seed=seed) for seed in (-1, 2**32 - 1))
    assert negative.train(x) == positive.train(x)  # faiss takes seeds of 32 bits, with a sign
    with pytest.raises(InputError, match="k must be"):
        filled(x).search(x, 0)
    with pytest.raises(InputError, match="metric must be"):
        faiss.IndexFlat(D, 3)


def test_an_index_gives_its_vectors_back(x):
    index = filled(x)
    assert index.is_trained
    assert (index.ntotal, index.d, index.metric_type) == (20, D, faiss.METRIC_L2)
    index.train(x)
    np.testing.assert_array_equal(index.reconstruct(3), x[3])
    np.testing.assert_array_equal(index.reconstruct_n(), x[:20])
    np.testing.assert_array_equal(index.reconstruct_n(5, 4), x[5:9])
    index.reconstruct_n()[:] = 0  # a copy
    np.testing.assert_array_equal(index.reconstruct(0), x[0])
    for first, count in ((-1, 1), (20, 1), (3, 18)):
        with pytest.raises(InputError, match="the index holds 20 vectors"):
            index.reconstruct_n(first, count)
    for bad in (np.nan, np.inf):
        with pytest.raises(InputError, match="in row 0"):
            index.add(np.full((1, D), bad))
        with pytest.raises(InputError, match="in row 0"):
            index.search(np.full((1, D), bad), 1)


@pytest.mark.parametrize("make", [faiss.IndexFlatL2, faiss.IndexFlatIP])
def test_an_index_comes_back_from_its_file(make, x, tmp_path):
    index = filled(x, make)
    faiss.write_index(index, tmp_path / "x.index")
    again = faiss.read_index(tmp_path / "x.index")
    assert again.metric_type == index.metric_type
    np.testing.assert_array_equal(again.reconstruct_n(), index.reconstruct_n())
    faiss.write_index(make(3), tmp_path / "empty.index")
    assert faiss.read_index(tmp_path / "empty.index").ntotal == 0


def test_faiss_reads_and_writes_the_same_bytes(x, tmp_path):
    peer = pytest.importorskip("faiss", reason="faiss is not installed")
    for make, theirs in (
        (faiss.IndexFlatL2, peer.IndexFlatL2(D)),
        (faiss.IndexFlatIP, peer.IndexFlatIP(D)),
    ):
        theirs.add(x[:20])
        faiss.write_index(filled(x, make), tmp_path / "ours")
        peer.write_index(theirs, str(tmp_path / "theirs"))
        assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_damaged_files_and_other_indexes_are_named(x, tmp_path):
    path = tmp_path / "x.index"
    faiss.write_index(filled(x), path)
    whole = path.read_bytes()
    for length in (0, 3, 4, 20, 40, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"x\.index"):
            faiss.read_index(path)
    path.write_bytes(b"IwFl" + whole[4:])
    with pytest.raises(DataError, match="use faiss for other indexes"):
        faiss.read_index(path)
    with pytest.raises(DataError, match="does not exist"):
        faiss.read_index(tmp_path / "none.index")


def test_threads_change_no_bit(x):
    expected = filled(x).search(x, 3)
    try:
        faiss.omp_set_num_threads(3)
        assert faiss.omp_get_max_threads() == 3
        for a, b in zip(filled(x).search(x, 3), expected, strict=True):
            np.testing.assert_array_equal(a, b)
        with pytest.raises(InputError, match="number of threads"):
            faiss.omp_set_num_threads(0)
    finally:
        importlib.import_module("ktfast.kmeans.faiss.index").threads.wanted = None


def test_what_faiss_has_and_ktfast_lacks_is_refused_by_name():
    for module in (faiss, importlib.import_module("ktfast.kmeans.faiss")):
        for name in ("IndexIVFFlat", "PCAMatrix", "index_factory"):
            assert not hasattr(module, name)
            with pytest.raises(AttributeError, match=f"no faiss.{name}: it offers K-means"):
                getattr(module, name)


def test_what_faiss_s_objects_have_and_ktfast_s_lack_is_refused_by_name(x):
    kmeans = faiss.Kmeans(D, K)
    kmeans.train(x)
    for owner, name, has in (
        (kmeans, "set_index", "assign"),
        (faiss.Clustering(D, K), "post_process_centroids", "iteration_stats"),
        (filled(x), "range_search", "reconstruct_n"),
    ):
        kind = type(owner).__name__
        assert not hasattr(owner, name)
        with pytest.raises(AttributeError, match=rf"ktfast's {kind} has no {name}, .*{has}"):
            getattr(owner, name)
        again = pickle.loads(pickle.dumps(copy.deepcopy(owner)))
        assert vars(again).keys() == vars(owner).keys()


def test_verbose_prints_faiss_s_lines(x, capsys):
    faiss.Kmeans(D, K, niter=3, verbose=True).train(x)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[1].startswith("  Iteration 1 (")
    assert "objective=" in lines[1]
    faiss.Kmeans(D, K, niter=3).train(x)
    assert capsys.readouterr().out == ""


@pytest.mark.skipif(modules.has_cuda(), reason="there is a GPU")
def test_a_gpu_index_without_a_gpu_is_one_sentence(x):
    config = faiss.GpuIndexFlatConfig()
    for call in (
        lambda: faiss.GpuIndexFlatL2(faiss.StandardGpuResources(), D, config),
        lambda: faiss.GpuIndexFlatIP(faiss.StandardGpuResources(), D),
        lambda: faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, filled(x)),
    ):
        with pytest.raises(RuntimeError, match="CUDA"):
            call()
    config.useFloat16 = True
    with pytest.raises(InputError, match="useFloat16 False"):
        faiss.GpuIndexFlatL2(faiss.StandardGpuResources(), D, config)


def test_shards_are_sampled_as_one_matrix(x):
    whole, parts, tensor = (faiss.Kmeans(D, K, max_points_per_centroid=20) for _ in range(3))
    whole.train(x)
    parts.train([x[:100], x[100:101], x[101:]])
    tensor.train(torch.from_numpy(x))
    np.testing.assert_array_equal(whole.centroids, parts.centroids)
    np.testing.assert_array_equal(whole.centroids, tensor.centroids)
