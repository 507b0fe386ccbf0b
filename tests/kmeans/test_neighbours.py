"""All entrances that return distances or neighbours agree with the labels, on every input."""

import numpy as np
import pytest

from ktfast import KMeans, faiss_compat
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.transform import squared_distances
from ktfast.ops import kmeans_assign
from support.kmeans_cases import fewer
from support.optional import torch

INPUTS = ("plain", "far", "ties", "equal centres", "tiny", "nearly equal", "one feature")


def problem(kind, dtype, n=200, d=7, k=11):
    generator = np.random.default_rng(5)
    d = 1 if kind == "one feature" else d
    x, centers = generator.normal(size=(n, d)), generator.normal(size=(k, d))
    if kind == "far":
        x, centers = x + 1e6, centers + 1e6
    elif kind == "ties":
        x, centers = np.round(x), np.round(centers)
    elif kind == "equal centres":
        centers[3::2] = centers[1]
    elif kind == "tiny":
        x, centers = x * 1e-30, centers * 1e-30
    elif kind == "nearly equal":  # centres that differ by one bit
        centers[:] = centers[0]
        for i in range(1, k):
            centers[i] = np.nextafter(centers[i - 1].astype(dtype), -10)
    return x.astype(dtype), centers.astype(dtype)


def model_of(centers, **options):
    model = KMeans(len(centers), **options)
    model.cluster_centers_ = centers
    return model


@pytest.mark.emulated_gpu
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", INPUTS)
def test_the_first_least_distance_belongs_to_the_label(kind, dtype, device):
    x, centers = problem(kind, dtype, n=fewer(200, 20))
    model = model_of(centers, device=device)
    labels, squares = model.assign(x)
    distances = model.transform(x)
    np.testing.assert_array_equal(distances.argmin(1), labels)
    # The square root of the emulated GPU is not rounded correctly.
    rounding = 0 if device == "cpu" else np.finfo(dtype).eps
    np.testing.assert_allclose(distances.min(1), np.sqrt(squares).astype(dtype), rtol=rounding)
    x64, c64 = x.astype(np.float64), centers.astype(np.float64)
    exact = np.sqrt(((x64[:, None] - c64) ** 2).sum(-1))
    np.testing.assert_allclose(distances, exact, rtol=1e-6 if dtype == "float32" else 1e-14)
    tensor = model.transform(torch.from_numpy(x))
    np.testing.assert_allclose(tensor.numpy(), distances, rtol=rounding)
    np.testing.assert_allclose(model.transform([x[:3], x[3:]]), distances, rtol=rounding)


@pytest.mark.parametrize("kind", INPUTS)
def test_every_k_finds_the_same_neighbours(kind):
    x, centers = problem(kind, "float32")
    index = faiss_compat.IndexFlatL2(x.shape[1])
    index.add(centers)
    labels, squares = model_of(centers).assign(x)
    every, numbers = index.search(x, len(centers))
    np.testing.assert_array_equal(numbers[:, 0], labels)
    for k in (1, 2, 5):
        scores, found = index.search(x, k)
        np.testing.assert_array_equal(found, numbers[:, :k])
        np.testing.assert_array_equal(scores, every[:, :k])
    np.testing.assert_array_equal(every[:, 0], squares.astype(np.float32))
    # Of equally near vectors, the lowest number comes first.
    ((_, table),) = squared_distances(Rows([x]), centers.astype(np.float64))
    np.testing.assert_array_equal(numbers, np.argsort(table, axis=1, kind="stable"))


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("rows", [1, 3, 200])
def test_inner_products_of_equal_vectors_are_equal(kind, rows):
    x, centers = problem(kind, "float32")
    centers = np.concatenate([centers, centers])
    index = faiss_compat.IndexFlatIP(x.shape[1])
    index.add(centers)
    scores, numbers = index.search(x[:rows], len(centers))
    for k in (1, 2, 7):
        np.testing.assert_array_equal(index.search(x[:rows], k)[1], numbers[:, :k])
    by_number = np.empty_like(scores)
    np.put_along_axis(by_number, numbers, scores, axis=1)
    half = len(centers) // 2
    np.testing.assert_array_equal(by_number[:, :half], by_number[:, half:])
    place = numbers.argsort(axis=1)  # of two equal vectors, the lower number comes first
    assert (place[:, :half] < place[:, half:]).all()


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "uint8", "int8"])
@pytest.mark.parametrize(("n", "k", "d"), [(1, 1, 1), (5, 300, 3), (300, 5, 40), (17, 33, 129)])
def test_all_distances_have_the_bits_of_the_assignment(n, k, d, dtype, n_threads):
    generator = np.random.default_rng(n)
    x = (generator.normal(size=(n, d)) * 20).clip(0, 100).astype(dtype)
    centers = generator.normal(size=(k, d)) * 20
    for place, table in squared_distances(Rows([x], n_threads=n_threads), centers):
        for j in range(k):
            expected = kmeans_assign(x[place], centers[j : j + 1], distance_dtype="float64")[1]
            np.testing.assert_array_equal(table[:, j], expected)


def test_levels_change_no_bit(monkeypatch):
    x, centers = problem("plain", "float64", d=40)
    expected = model_of(centers).transform(x)
    monkeypatch.setenv("KTFAST_SIMD", "scalar")
    np.testing.assert_array_equal(model_of(centers).transform(x), expected)
