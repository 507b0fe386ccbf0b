"""What K-means converts and refuses depends on the values, not on the container or the entrance."""

import functools
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

from ktfast import KMeans, faiss_compat
from ktfast.errors import InputError
from ktfast.kmeans.containers import matrices_of
from support.kmeans_cases import mixture
from support.optional import torch

D, K = 6, 4
DTYPES = (
    *("float64", "float32", "float16", "uint8", "int8"),
    *("int16", "uint16", "int32", "int64", "bool"),
)


class Frame:
    """A data frame: columns, a shape, and a conversion to an array."""

    def __init__(self, x):
        self._x = np.asarray(x)
        self.shape = self._x.shape

    def __array__(self, dtype=None, copy=None):
        return self._x.astype(dtype or self._x.dtype)


class Foreign:
    """An array of a library that ktfast does not know, with DLPack's interface."""

    def __init__(self, x):
        self._x = np.ascontiguousarray(x)
        self.shape, self.dtype = self._x.shape, self._x.dtype

    def __dlpack__(self, **options):
        return self._x.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._x.__dlpack_device__()


def mapped(x, folder):
    path = folder / "x.npy"
    np.save(path, x)
    return np.load(path, mmap_mode="r")


def as_torch(x, _):
    return torch.from_numpy(np.ascontiguousarray(x))


CONTAINERS = {
    "array": lambda x, _: x,
    "fortran": lambda x, _: np.asfortranarray(x),
    "map": mapped,
    "torch": as_torch,
    "shards": lambda x, _: [x[:7], x[7:]],
    "maps": lambda x, folder: [mapped(x, folder)[:7], mapped(x, folder)[7:]],
    "torch shards": lambda x, _: [as_torch(x[:7], _), as_torch(x[7:], _)],
    "torch rows": lambda x, _: list(as_torch(x, _)),
    "lists": lambda x, _: [row.tolist() for row in x],
    "frame": lambda x, _: Frame(x),
    "foreign": lambda x, _: Foreign(x),
    "objects": lambda x, _: x.astype(object),
}
# Lists and arrays of objects hold Python's numbers, which become float64.
READS_ANY_DTYPE = [name for name in CONTAINERS if name not in ("lists", "objects")]


@functools.cache
def fitted():
    x = data("float32")
    kmeans = KMeans(K, init=x[:K]).fit(x)
    peer = faiss_compat.Kmeans(D, K, niter=4)
    peer.train(x, init_centroids=x[:K])
    return kmeans, peer


def data(dtype):
    x = mixture(60, D, k=K)
    x = x - x.min()
    if dtype == "bool":
        return x > np.median(x)
    return np.round(x * 4).astype(dtype) if np.dtype(dtype).kind in "iu" else x.astype(dtype)


def start():
    return data("float32")[:K]


def trained(x):
    kmeans = faiss_compat.Kmeans(D, K, niter=4)
    kmeans.train(x, init_centroids=start())
    return kmeans.centroids


def added(x):
    index = faiss_compat.IndexFlatL2(D)
    index.add(x)
    return index.reconstruct_n()


def clustered(x):
    clustering, index = faiss_compat.Clustering(D, K), faiss_compat.IndexFlatL2(D)
    clustering.train(x, index)
    return clustering.centroids


def continued(x):
    return KMeans(K, init=start(), random_state=0).partial_fit(x).cluster_centers_


DOORS = {
    "fit": lambda x: KMeans(K, init=start()).fit(x).labels_,
    "fit_predict": lambda x: KMeans(K, init=start()).fit_predict(x),
    "fit_transform": lambda x: KMeans(K, init=start()).fit_transform(x),
    "partial_fit": lambda x: (
        KMeans(K, init=start(), random_state=0).partial_fit(x).cluster_centers_
    ),
    "predict": lambda x: fitted()[0].predict(x),
    "transform": lambda x: fitted()[0].transform(x),
    "score": lambda x: fitted()[0].score(x),
    "assign": lambda x: fitted()[0].assign(x)[1],
    "faiss train": trained,
    "faiss assign": lambda x: fitted()[1].assign(x)[0],
    "index add": added,
    "index search": lambda x: fitted()[1].index.search(x, 1)[0],
    "index search 2": lambda x: fitted()[1].index.search(x, 2)[0],
    "index assign": lambda x: fitted()[1].index.assign(x, 3),
    "Clustering": clustered,
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("door", DOORS)
def test_every_container_gives_the_array_s_result(door, dtype, tmp_path):
    x = data(dtype)
    expected = np.asarray(DOORS[door](x))
    for container in CONTAINERS if dtype in ("float64", "int64") else READS_ANY_DTYPE:
        found = np.asarray(DOORS[door](CONTAINERS[container](x, tmp_path)))
        np.testing.assert_array_equal(found, expected, err_msg=container)


@pytest.mark.parametrize("door", DOORS)
def test_bfloat16_is_read(door):
    x = torch.from_numpy(data("float32")).bfloat16()
    expected = np.asarray(DOORS[door](x.float()))
    np.testing.assert_array_equal(np.asarray(DOORS[door](x)), expected)


def with_value(value):
    x = data("float32")
    x[3, 1] = value
    return x


FAULTS = {
    "1-D": (lambda: data("float32")[:, 0], ValueError, "1D array|1-D|2 dim"),
    "1-D integers": (lambda: data("int64")[:, 0], ValueError, "1D array"),
    "3-D": (lambda: data("float32")[None], ValueError, "dim 3"),
    "no rows": (lambda: data("float32")[:0], ValueError, "minimum of 1|fewer than"),
    "no features": (lambda: data("float32")[:, :0], ValueError, "0 feature|have shape"),
    "NaN": (lambda: with_value(np.nan), ValueError, "NaN in row 3"),
    "infinity": (lambda: with_value(-np.inf), ValueError, "infinity in row 3"),
    "complex": (lambda: data("float32") * 1j, ValueError, "Complex data not supported"),
    "features": (lambda: data("float32")[:, :3], ValueError, "3 features|does not match|, 6"),
}
EMPTY_IS_FINE = {"index add", "index search", "index search 2", "index assign", "faiss assign"}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("door", DOORS)
def test_every_fault_is_one_sentence_whatever_the_container(door, fault, tmp_path):
    make, kind, message = FAULTS[fault]
    x = make()
    if fault == "no rows" and door in EMPTY_IS_FINE:
        assert len(DOORS[door](x)) == 0
        return
    containers = {"array", "map", "torch", "shards", "frame", "foreign"}
    if x.size == 0:
        containers -= {"map"}  # an empty file cannot be mapped
    if x.ndim != 2:
        containers -= {"shards"}  # a list of vectors is a matrix
    for container in sorted(containers):
        with pytest.raises(kind, match=message):
            DOORS[door](CONTAINERS[container](x, tmp_path))


@pytest.mark.parametrize("door", DOORS)
def test_sparse_masked_and_text_are_refused(door):
    x = data("float32")
    for sparse in (
        scipy.sparse.csr_matrix(x),
        scipy.sparse.coo_array(x),
        torch.from_numpy(x).to_sparse(),
        [torch.from_numpy(x).to_sparse()],
    ):
        with pytest.raises(TypeError, match=r"[Ss]parse data was passed"):
            DOORS[door](sparse)
    with pytest.raises(InputError, match="masked"):
        DOORS[door](np.ma.masked_greater(x, x.mean()))
    with pytest.raises(ValueError, match="convert"):
        DOORS[door](np.full((60, D), "a"))


def test_an_array_on_an_unknown_library_s_gpu_goes_through_torch(monkeypatch):
    class OnGpu(Foreign):
        def __dlpack_device__(self):
            return 2, 0

    x = data("float32")
    monkeypatch.setattr(torch, "from_dlpack", lambda given: torch.from_numpy(given._x))
    (matrix,) = matrices_of(OnGpu(x))
    np.testing.assert_array_equal(matrix.numpy(), x)
    monkeypatch.delitem(__import__("sys").modules, "torch")
    with pytest.raises(TypeError, match="import torch or cupy"):
        matrices_of(OnGpu(x))


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy, list, np.ndarray.tolist])
@pytest.mark.parametrize("rows", [np.asarray, torch.from_numpy, np.ndarray.tolist])
def test_centres_that_were_stored_without_a_fit_serve_every_door(kind, rows):
    x = data("float32")
    expected = KMeans(K, init=start(), max_iter=1).fit(x)
    model = KMeans(K)
    model.cluster_centers_ = kind(np.array(expected.cluster_centers_))
    np.testing.assert_array_equal(np.asarray(model.predict(rows(x))), expected.predict(x))
    np.testing.assert_array_equal(
        np.asarray(model.transform(rows(x))).argmin(1), expected.predict(x)
    )
    assert model.score(rows(x)) == expected.score(x)
    with pytest.raises(InputError, match="3 features"):
        model.predict(rows(np.array(x[:, :3])))
    model.partial_fit(rows(x))
    assert model.counts_.sum() == len(x)
    model.cluster_centers_[0][0] = np.nan
    with pytest.raises(InputError, match="cluster_centers_ contains NaN"):
        model.predict(rows(x))


def test_labels_have_the_dtype_of_the_library():
    x = data("float32")
    assert fitted()[0].labels_.dtype == fitted()[0].predict(x).dtype == np.int32
    model = KMeans(K, init=start()).fit(torch.from_numpy(x))
    for labels in (
        model.labels_,
        model.predict(torch.from_numpy(x)),
        model.assign(torch.from_numpy(x))[0],
        model.partial_fit(torch.from_numpy(x)).labels_,
    ):
        assert labels.dtype == torch.int64
        torch.nn.functional.cross_entropy(torch.zeros(len(x), K), labels)


@pytest.mark.parametrize("scale", [1e-60, 1e60])
def test_the_faiss_interface_names_values_that_float32_cannot_hold(scale):
    with pytest.raises(InputError, match="which float32 cannot hold"):
        faiss_compat.Kmeans(D, K).train(data("float64") * scale)


def test_a_tensor_that_torch_negates_lazily_is_read_as_its_values():
    """The memory of the imaginary part of a conjugate holds the negated values."""
    x = torch.from_numpy(data("float32"))
    lazy = torch.complex(x, -x).conj().imag
    assert lazy.is_neg()
    for door, run in DOORS.items():
        assert np.array_equal(np.asarray(run(lazy)), np.asarray(run(x))), door
    weights = {"sample_weight": lazy[:, 0].abs() + 1}
    model = KMeans(K, init=lazy[:K], max_iter=3).fit(lazy, **weights)
    expected = KMeans(K, init=x[:K], max_iter=3).fit(x, **weights)
    assert torch.equal(model.cluster_centers_, expected.cluster_centers_)


@pytest.mark.parametrize("door", ["fit", "predict", "faiss train", "index search"])
def test_lists_of_one_length_in_arrow_and_memory_views_are_matrices(door):
    pyarrow = pytest.importorskip("pyarrow")
    x = data("float32")
    rows = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(x.ravel()), D)
    chunks = pyarrow.chunked_array([rows[:7], rows[:0], rows[7:]])
    for given in (rows, chunks, memoryview(x)):
        assert np.array_equal(np.asarray(DOORS[door](given)), np.asarray(DOORS[door](x)))
    with pytest.raises(InputError, match="1 rows without a list"):
        DOORS[door](pyarrow.array([[1.0] * D, None], rows.type))
    with pytest.raises(InputError, match="cells that hold lists"):
        DOORS[door](pyarrow.array([[1.0] * D] * 60))


NO_ROWS = {
    "None": (lambda x: None, InputError, "is None; give an array"),
    "text": (lambda x: "x.npy", InputError, "'x.npy', a text or a path; read the file first"),
    "path": (lambda x: Path("x.npy"), InputError, "a text or a path"),
    "generator": (lambda x: iter(x), TypeError, r"must be an array \[n, d\].*iterator"),
    "dict": (lambda x: {"x": x}, TypeError, r"must be an array \[n, d\].*got dict"),
    "nested": (lambda x: torch.nested.nested_tensor([torch.ones(2, D)]), TypeError, "dense"),
}


@pytest.mark.parametrize("given", NO_ROWS)
@pytest.mark.parametrize("door", ["fit", "score", "faiss train", "index add"])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_what_holds_no_rows_is_one_sentence(door, given):
    make, kind, message = NO_ROWS[given]
    with pytest.raises(kind, match=f"^[Xx] .*{message}"):
        DOORS[door](make(data("float32")))


def test_a_bad_row_of_a_shard_is_named_by_its_place_and_file(tmp_path):
    x = with_value(np.nan)
    np.save(tmp_path / "part.npy", x)
    part = np.load(tmp_path / "part.npy", mmap_mode="r")
    for spherical in (False, True):
        with pytest.raises(InputError, match=r"NaN in row 63 \(row 3 of X\[1\], .*part\.npy\)"):
            KMeans(K, spherical=spherical).fit([data("float32"), part])
    with pytest.raises(InputError, match=r"NaN in row 3;"):
        KMeans(K).fit(part)
