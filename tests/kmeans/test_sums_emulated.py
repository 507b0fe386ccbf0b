"""The emulated CUDA kernels of integer sums give the bits of the CPU kernels."""

import numpy as np
import pytest

from emulation.cuda.kmeans_sums import EmulatedSums
from ktfast.native.modules import cpu

DTYPES = ["float32", "float64", "float16", "uint8", "int8"]


@pytest.fixture
def on_gpu(emulated):
    return EmulatedSums(emulated)


def example(n, d, k, dtype, seed=0):
    generator = np.random.default_rng(seed)
    x = (generator.normal(size=(n, d)) * 20 + 60).astype(dtype)
    labels = [generator.integers(0, k, size=n).astype(np.int32) for _ in range(2)]
    still = generator.random(n) < 0.7
    labels[1][still] = labels[0][still]
    return x, *labels, np.full(d, 2.0**30)


def move(native, x, before, after, scale, sums, counts, *, low=None, sample_weight=None):
    size = native.kmeans_move_workspace_size(n_rows=len(x), n_clusters=len(sums))
    native.kmeans_move(
        x=x,
        before=before,
        after=after,
        sample_weight=sample_weight,
        scale=scale,
        workspace=np.full(size, -7, np.int64),
        sums=sums,
        low=low,
        counts=counts,
        n_threads=2,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("n", "d", "k"),
    [(0, 3, 2), (1, 1, 1), (300, 130, 3), (700, 5, 40), (60, 2, 500), (900, 3, 1), (40, 1, 2500)],
)
def test_moves(on_gpu, n, d, k, dtype):
    x, first, second, scale = example(n, d, k, dtype)
    results = []
    for native in (cpu, on_gpu):
        sums, counts = np.zeros((k, d), np.int64), np.zeros(k, np.int64)
        move(native, x, None, first, scale, sums, counts)
        results.append((sums.copy(), counts.copy()))
        move(native, x, first, second, scale, sums, counts)
        results.append((sums, counts))
    for i, labels in ((0, first), (1, second)):
        units = np.rint(x.astype(np.float64) * scale).astype(np.int64)
        exact = np.zeros((k, d), np.int64)
        np.add.at(exact, labels, units)
        for sums, counts in (results[i], results[i + 2]):
            np.testing.assert_array_equal(sums, exact)
            np.testing.assert_array_equal(counts, np.bincount(labels, minlength=k))


def exact_sums(x, weight, labels, scale, k):
    """Sums in units of ``2**-44 / scale``, as integers of Python."""
    values = weight[:, None] * x.astype(np.float64) * scale
    whole = np.rint(values)
    parts = np.zeros((2, k, x.shape[1]), np.int64)
    for part, numbers in zip(parts, (whole, np.rint((values - whole) * 2.0**44)), strict=True):
        np.add.at(part, labels, numbers.astype(np.int64))
    return parts[0].astype(object) * 2**44 + parts[1]


@pytest.mark.parametrize(
    ("dtype", "weighted"), [("float32", True), ("float64", False), ("uint8", True)]
)
@pytest.mark.parametrize(("n", "d", "k"), [(1, 1, 1), (90, 130, 100), (300, 5, 40), (60, 2, 500)])
def test_moves_with_two_limbs(on_gpu, n, d, k, dtype, weighted):
    x, first, second, _ = example(n, d, k, dtype)
    scale = 2.0 ** np.arange(20 - d % 7, 20 + d)[:d].clip(max=36)
    weight = np.random.default_rng(3).exponential(size=n) if weighted else np.ones(n)
    for native in (cpu, on_gpu):
        sums, low = np.zeros((2, k, d), np.int64)
        counts = np.zeros(k, np.int64)
        given = {"low": low, "sample_weight": weight if weighted else None}
        for before, after in ((None, first), (first, second)):
            move(native, x, before, after, scale, sums, counts, **given)
            np.testing.assert_array_equal(counts, np.bincount(after, minlength=k))
            assert low.min() >= 0
            assert low.max() < 2**44
            whole = sums.astype(object) * 2**44 + low
            np.testing.assert_array_equal(whole, exact_sums(x, weight, after, scale, k))


def test_weights_need_two_limbs_and_limbs_hold_few_rows(on_gpu):
    x, first, _, scale = example(50, 3, 4, "float32")
    many, zeros = np.zeros((2**18 + 1, 1), np.uint8), np.zeros(2**18 + 1, np.int32)
    sums, column = np.zeros((4, 3), np.int64), np.zeros((4, 1), np.int64)
    counts = np.zeros(4, np.int64)
    for native in (cpu, on_gpu):
        with pytest.raises((ValueError, RuntimeError), match="sample_weight needs low"):
            move(native, x, None, first, scale, sums, counts, sample_weight=np.ones(50))
        with pytest.raises((ValueError, RuntimeError), match="at most 2"):
            move(native, many, None, zeros, scale[:1], column, counts, low=column.copy())


def test_a_whole_block_finds_where_the_clusters_begin(on_gpu):
    x, first, _, scale = example(50, 3, 4, "float32")
    on_gpu.cuda.launches()
    move(on_gpu, x, None, first, scale, np.zeros((4, 3), np.int64), np.zeros(4, np.int64))
    assert dict(on_gpu.cuda.launches())["start_kernel"] == 1024


def test_moves_skip_labels_out_of_range(on_gpu):
    x, first, _, scale = example(50, 3, 4, "float32")
    wrong = first.copy()
    wrong[7], wrong[9] = -1, 4
    expected, actual = (
        [np.zeros((4, 3), np.int64), np.zeros(4, np.int64)],
        [np.zeros((4, 3), np.int64), np.zeros(4, np.int64)],
    )
    rest = np.delete(np.arange(50), [7, 9])
    move(cpu, x[rest], None, first[rest], scale, *expected)
    move(on_gpu, x, None, wrong, scale, *actual)
    np.testing.assert_array_equal(actual[0], expected[0])
    np.testing.assert_array_equal(actual[1], expected[1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "d"), [(0, 3), (1, 1), (1500, 130), (2100, 3)])
def test_ranges(on_gpu, n, d, dtype):
    x = example(n, d, 2, dtype)[0]
    if dtype.startswith("float") and n > 1 and d > 2:
        x[n // 2, 1], x[n - 1, 2] = np.nan, -np.inf
    found = [np.full(d, 0.5) for _ in range(2)]
    cpu.kmeans_ranges(x=x, largest=found[0], n_threads=2)
    on_gpu.kmeans_ranges(x=x, largest=found[1])
    magnitudes = np.abs(x.astype(np.float64))
    magnitudes[np.isnan(magnitudes)] = np.inf
    expected = magnitudes.max(axis=0, initial=0.5)
    for largest in found:
        np.testing.assert_array_equal(largest, expected)


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize(("k", "d"), [(1, 1), (9, 33), (40, 5), (3, 100)])
def test_means_of_two_limbs(on_gpu, k, d, narrow):
    generator = np.random.default_rng(0)
    sums = generator.integers(-(2**61), 2**61, size=(k, d)) >> generator.integers(0, 60, (k, d))
    low = generator.integers(0, 2**44, size=(k, d))
    weights = generator.exponential(size=k) * (generator.random(k) < 0.8)
    previous = generator.normal(size=(k, d))
    step = 2.0 ** -generator.integers(60, 90, size=d).astype(np.float64)
    results = []
    for native in (cpu, on_gpu):
        centers, shifts = np.empty((k, d)), np.empty(k)
        native.kmeans_means(
            sums=sums,
            low=low,
            counts=np.zeros(k, np.int64),
            weights=weights,
            step=step,
            previous=previous,
            narrow=narrow,
            centers=centers,
            shifts=shifts,
            n_threads=2,
        )
        results.append((centers, shifts))
    whole = (sums.astype(object) * 2**44 + low).astype(np.float64)  # rounded once
    with np.errstate(divide="ignore", invalid="ignore"):
        exact = whole * step / weights[:, None]
    exact = exact.astype(np.float32 if narrow else np.float64)
    exact = np.where(weights[:, None] > 0, exact, previous)
    for centers, shifts in results:
        np.testing.assert_array_equal(centers, exact)
        np.testing.assert_allclose(shifts, ((exact - previous) ** 2).sum(axis=1), rtol=1e-13)
    assert results[0][1].tobytes() == results[1][1].tobytes()


@pytest.mark.parametrize(("k", "d"), [(1, 1), (9, 33), (40, 5), (3, 100)])
def test_means(on_gpu, k, d):
    generator = np.random.default_rng(0)
    sums = generator.integers(-(2**55), 2**55, size=(k, d))
    counts = generator.integers(0, 4, size=k)
    previous = generator.normal(size=(k, d))
    step = 2.0 ** -generator.integers(20, 60, size=d).astype(np.float64)
    results = []
    for native in (cpu, on_gpu):
        centers, shifts = np.empty((k, d)), np.empty(k)
        native.kmeans_means(
            sums=sums,
            low=None,
            counts=counts,
            weights=None,
            step=step,
            previous=previous,
            narrow=True,
            centers=centers,
            shifts=shifts,
            n_threads=2,
        )
        results.append((centers, shifts))
    with np.errstate(divide="ignore", invalid="ignore"):
        exact = (sums * step / counts[:, None]).astype(np.float32)
    exact = np.where(counts[:, None] > 0, exact, previous)
    for centers, shifts in results:
        np.testing.assert_array_equal(centers, exact)
        np.testing.assert_allclose(shifts, ((exact - previous) ** 2).sum(axis=1), rtol=1e-13)
    assert results[0][1].tobytes() == results[1][1].tobytes()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n", [0, 1, 255, 4096, 4097, 20_000])
def test_totals(on_gpu, n, weighted):
    generator = np.random.default_rng(n)
    distances = generator.exponential(size=n)
    weight = generator.random(n) if weighted else None
    before, after = generator.integers(0, 2, size=(2, n)).astype(np.int32)
    for known in (before, None):
        results = []
        for native in (cpu, on_gpu):
            totals = np.full(2, np.nan)
            size = native.kmeans_totals_workspace_size(n_rows=n)
            native.kmeans_totals(
                distances=distances,
                sample_weight=weight,
                before=known,
                after=after,
                workspace=np.full(size, np.nan),
                totals=totals,
                n_threads=2,
            )
            results.append(totals)
        assert results[0].tobytes() == results[1].tobytes()
        exact = (distances if weight is None else distances * weight).sum()
        assert results[0][0] == pytest.approx(exact, rel=1e-13)
        assert results[0][1] == (0 if known is None else (before != after).sum())
