"""kmeans_assign against float64 brute force: every SIMD level, dtype, layout and device."""

import ctypes
import mmap
import os
import time

import numpy as np
import pytest

from ktfast.native import modules
from ktfast.ops import PreparedCenters, kmeans_assign
from ktfast.ops.kmeans_screen import Screen
from ktfast.ops.vectors import row_blocks
from ktfast.reference import kmeans as reference
from support.optional import torch
from support.simd_levels import LEVELS, available
from support.tolerances import SUM_ORDER_FLOAT64

SIZES = [  # n, d, k
    (0, 3, 2),
    (1, 1, 1),
    (5, 0, 2),
    (2, 1, 40),
    (13, 7, 3),
    (11, 16, 16),
    (12, 17, 32),
    (97, 33, 33),
    (200, 700, 70),
    (25, 1030, 129),
    (300, 2, 500),
]


@pytest.fixture(params=[*LEVELS, "cuda"])
def level(request, monkeypatch):
    """The kernels under test: those of the CPU at one instruction-set level, or those of a GPU."""
    if request.param == "cuda":
        request.getfixturevalue("gpu")
        return "cuda"
    monkeypatch.delenv("KTFAST_SIMD", raising=False)
    if request.param not in available():
        pytest.skip(f"this processor has no {request.param}")
    monkeypatch.setenv("KTFAST_SIMD", request.param)
    return request.param


def example(n, d, k, dtype="float32", seed=0):
    generator = np.random.default_rng(seed)
    x = (generator.normal(size=(n, d)) * 20 + 60).astype(dtype)
    centers = generator.normal(size=(k, d)) * 20 + 60
    return x, centers


def assign(level, x, centers, **options):
    """The result of `kmeans_assign` on this backend, as arrays of NumPy."""
    if level != "cuda":
        return kmeans_assign(x, centers, **options)
    there = [torch.tensor(array, device="cuda") for array in (x, centers)]
    return [array.cpu().numpy() for array in kmeans_assign(*there, **options)]


def check(x, centers, labels, distances, dtype="float64"):
    expected_labels, expected = reference.assign(x, centers)
    np.testing.assert_array_equal(labels, expected_labels)
    rtol = SUM_ORDER_FLOAT64 if dtype == "float64" else np.finfo(np.float32).eps
    np.testing.assert_allclose(distances, expected, rtol=rtol, atol=0)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "uint8", "int8"])
@pytest.mark.parametrize(("n", "d", "k"), SIZES)
def test_agrees_with_brute_force(level, n, d, k, dtype):
    x, centers = example(n, d, k, dtype)
    labels, distances = assign(level, x, centers, distance_dtype="float64")
    assert labels.dtype == np.int32
    check(x, centers, labels, distances)
    labels, distances = assign(level, x, centers.astype(np.float32))
    assert distances.dtype == np.float32
    check(x, centers.astype(np.float32), labels, distances, "float32")


def test_by_hand(level):
    x = np.array([[0, 0], [3, 4], [10, 0], [-1, 0]], dtype=np.float32)
    centers = np.array([[0, 0], [10, 0], [3, 3]], dtype=np.float32)
    labels, distances = assign(level, x, centers)
    np.testing.assert_array_equal(labels, [0, 2, 1, 0])
    np.testing.assert_array_equal(distances, [0, 1, 0, 1])


@pytest.mark.parametrize("k", [2, 16, 17, 33, 100])
def test_ties_go_to_the_lowest_index(level, k):
    generator = np.random.default_rng(1)
    # Small integers give many exact ties, within a panel of centres and across panels.
    x = generator.integers(-2, 3, size=(500, 3)).astype(np.float32)
    centers = generator.integers(-2, 3, size=(k, 3)).astype(np.float32)
    check(x, centers, *assign(level, x, centers, distance_dtype="float64"))
    same = np.repeat(centers[:1], k, axis=0)
    labels, _ = assign(level, x, same)
    assert not labels.any()


def test_near_ties_are_settled_in_float64(level):
    # Centres far from the origin whose differences are below the precision of float32.
    generator = np.random.default_rng(2)
    base = generator.normal(size=64) * 10 + 1000
    centers = base + generator.normal(size=(50, 64)) * 1e-7
    x = (base + generator.normal(size=(200, 64))).astype(np.float64)
    labels, distances = assign(level, x, centers, distance_dtype="float64")
    check(x, centers, labels, distances)
    assert len(np.unique(labels)) > 10


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1e-20, 1.0, 1e15, 1e19, 1e30])
def test_extreme_scales(level, scale):
    x, centers = example(100, 20, 40)
    x = (x * np.float64(scale)).astype(np.float32)
    centers = (centers * scale).astype(np.float32)
    labels, distances = assign(level, x, centers, distance_dtype="float64")
    check(x, centers, labels, distances)


@pytest.fixture
def flush_denormal():
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush subnormal numbers")
    yield
    torch.set_flush_denormal(False)


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@pytest.mark.parametrize("scale", [1e-19, 1e-38])
def test_a_caller_that_flushes_subnormal_numbers(level, scale, request):
    # At 1e-19 the products are subnormal. At 1e-38 the rows are subnormal.
    generator = np.random.default_rng(0)
    x = (generator.normal(size=(500, 16)) * scale).astype(np.float32)
    centers = PreparedCenters(generator.normal(size=(50, 16)) * scale)
    expected = reference.assign(x, centers.centers)
    request.getfixturevalue("flush_denormal")
    for n_threads in (1, 2):
        labels, distances = kmeans_assign(x, centers, n_threads=n_threads, distance_dtype="float64")
        assert labels.tolist() == expected[0].tolist()
        np.testing.assert_allclose(distances, expected[1], rtol=SUM_ORDER_FLOAT64)
    own = PreparedCenters(centers.centers)
    assert kmeans_assign(x, own)[0].tolist() == expected[0].tolist()


def test_offset_of_the_data_costs_no_accuracy(level):
    x, centers = example(300, 40, 30, "float64")
    labels, _ = assign(level, x, centers)
    moved, _ = assign(level, x + 2.0**30, centers + 2.0**30)
    np.testing.assert_array_equal(moved, reference.assign(x + 2.0**30, centers + 2.0**30)[0])
    assert (moved == labels).mean() > 0.99


def test_every_level_thread_count_and_split_gives_the_same_bits(monkeypatch):
    x, centers = example(1000, 130, 75)
    results = []
    for level in available():
        monkeypatch.setenv("KTFAST_SIMD", level)
        for n_threads in (1, 2, 3, 16):
            results.append(kmeans_assign(x, centers, n_threads=n_threads, distance_dtype="float64"))
        parts = [
            kmeans_assign(x[i:j], centers, distance_dtype="float64")
            for i, j in [(0, 1), (1, 14), (14, 500), (500, 1000)]
        ]
        results.append(tuple(np.concatenate(column) for column in zip(*parts, strict=True)))
    for labels, distances in results[1:]:
        np.testing.assert_array_equal(labels, results[0][0])
        np.testing.assert_array_equal(distances, results[0][1])


def layouts(x):
    n, d = x.shape
    unaligned = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(x.dtype).reshape(n, d)
    read_only = x.copy()
    read_only.flags.writeable = False
    wide = np.zeros((2 * n, 2 * d), dtype=x.dtype)
    wide[::2, ::2] = x
    return {
        "fortran": np.asfortranarray(x),
        "reversed": np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1],
        "strided": wide[::2, ::2],
        "columns": np.concatenate([x, x], axis=1)[:, :d],
        "swapped": x.astype(x.dtype.newbyteorder()),
        "read-only": read_only,
        "unaligned": unaligned,
    }


@pytest.mark.parametrize("layout", list(layouts(np.zeros((1, 1), np.float32))))
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_layouts(layout, dtype):
    x, centers = example(50, 21, 9, dtype)
    labels, distances = kmeans_assign(layouts(x)[layout], centers)
    expected = kmeans_assign(x, centers)
    np.testing.assert_array_equal(labels, expected[0])
    np.testing.assert_array_equal(distances, expected[1])


@pytest.mark.emulated_gpu
@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.t().contiguous().t(),
        lambda x: x.repeat_interleave(2, 0).repeat_interleave(3, 1)[::2, ::3],
        lambda x: torch.cat([x, x], 1)[:, : x.shape[1]],
        lambda x: torch.cat([x[:1], x])[1:],
        lambda x: torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape),
        lambda x: x[:1].expand(x.shape),
    ],
    ids=["transposed", "strided", "columns", "after a row", "after an element", "expanded"],
)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "uint8"])
def test_layouts_of_torch(device, change, dtype):
    x, centers = example(150, 21, 9)
    x = change(torch.from_numpy(x).to(device, getattr(torch, dtype)))
    labels, distances = kmeans_assign(x, torch.tensor(centers, device=device))
    expected = kmeans_assign(x.double().cpu().numpy(), centers)
    np.testing.assert_array_equal(labels.cpu(), expected[0])
    np.testing.assert_array_equal(distances.cpu(), expected[1])


def test_memory_map(tmp_path):
    x, centers = example(100, 8, 5)
    x.tofile(tmp_path / "x")
    mapped = np.memmap(tmp_path / "x", dtype=np.float32, mode="r", shape=x.shape)
    check(x, centers, *kmeans_assign(mapped, centers, distance_dtype="float64"))


def resident_pages(array):
    """For each page of an array, whether the page is in memory."""
    low, high = np.lib.array_utils.byte_bounds(array)
    low -= low % mmap.PAGESIZE
    pages = (ctypes.c_ubyte * (-(-(high - low) // mmap.PAGESIZE)))()
    libc = ctypes.CDLL(None)
    assert libc.mincore(ctypes.c_void_p(low), ctypes.c_size_t(high - low), pages) == 0
    return np.frombuffer(pages, np.uint8) & 1


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="pages cannot be dropped here")
def test_memory_maps_are_read_ahead(tmp_path):
    path = tmp_path / "x"
    np.ones((1 << 22,), np.float32).tofile(path)
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    mapped = np.memmap(path, np.float32, mode="r", shape=(1 << 12, 1 << 10))
    if resident_pages(mapped).mean() > 0.5:
        pytest.skip("this file system keeps its pages")
    blocks = row_blocks(mapped, 1 << 11)
    next(blocks)  # the system reads the second half now, before any access
    deadline = time.monotonic() + 20
    while resident_pages(mapped[1 << 11 :]).mean() < 0.9 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert resident_pages(mapped[1 << 11 :]).mean() >= 0.9
    assert resident_pages(mapped[: 1 << 11]).mean() < 0.9


def test_small_calls_and_copies_change_nothing(monkeypatch):
    x, centers = example(300, 10, 20)
    expected = kmeans_assign(x, centers)
    monkeypatch.setattr("ktfast.ops.vectors.COPY_BYTES", 7 * 40)
    monkeypatch.setattr("ktfast.ops.vectors.CALL_BYTES", 11 * 40)
    for array in (x, np.asfortranarray(x)):
        labels, distances = kmeans_assign(array, centers)
        np.testing.assert_array_equal(labels, expected[0])
        np.testing.assert_array_equal(distances, expected[1])


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "uint8", "int8"])
@pytest.mark.parametrize(("n", "d", "k"), [(1, 1, 1), (97, 33, 33), (200, 700, 300), (0, 3, 2)])
def test_torch(device, dtype, n, d, k):
    x, centers = example(n, d, k)
    x = torch.from_numpy(x).to(device, getattr(torch, dtype))
    centers = torch.from_numpy(centers).to(device)
    labels, distances = kmeans_assign(x, centers, distance_dtype="float64")
    assert labels.dtype == torch.int32
    assert labels.device == distances.device == x.device
    check(x.double().cpu().numpy(), centers.cpu().numpy(), labels.cpu(), distances.cpu())


def test_torch_tensor_that_requires_grad():
    x, centers = example(10, 4, 3)
    labels, _ = kmeans_assign(torch.from_numpy(x).requires_grad_(), torch.from_numpy(centers))
    np.testing.assert_array_equal(labels, reference.assign(x, centers)[0])


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("seed", range(20))
def test_gpu_gives_the_cpu_s_bits(seed):
    generator = np.random.default_rng(seed)
    n, d, k = (int(value) for value in generator.integers(1, 400, size=3))
    x, centers = example(n, d, k, seed=seed)
    expected = kmeans_assign(x, centers, distance_dtype="float64")
    actual = kmeans_assign(
        torch.from_numpy(x).cuda(), torch.from_numpy(centers).cuda(), distance_dtype="float64"
    )
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a.cpu(), b)


def test_prepared_centers_and_outputs_are_reused(backend):
    x, centers = example(60, 9, 12)
    prepared = PreparedCenters(backend.array(centers))
    out = backend.array(np.full(60, -1, np.int32)), backend.array(np.full(60, -1.0))
    for _ in range(2):
        labels, distances = kmeans_assign(backend.array(x), prepared, out=out)
        assert labels is out[0]
        assert distances is out[1]
        check(x, centers, backend.numpy(labels), backend.numpy(distances))


def test_rows_that_are_not_finite_do_not_disturb_the_others(level):
    x, centers = example(40, 6, 70)
    expected = assign(level, x, centers)
    x[7, 3], x[20, 0] = np.nan, np.inf
    labels, distances = assign(level, x, centers)
    assert labels[7] == 0
    assert np.isnan(distances[7])
    assert distances[20] == np.inf
    others = np.setdiff1d(np.arange(40), [7, 20])
    np.testing.assert_array_equal(labels[others], expected[0][others])


def test_refusals():
    x, centers = example(4, 3, 2)
    with pytest.raises(ValueError, match="x has 3 features, but centers has 2"):
        kmeans_assign(x, centers[:, :2])
    with pytest.raises(ValueError, match="at least one row"):
        kmeans_assign(x, centers[:0])
    with pytest.raises(ValueError, match=r"x must have shape \[n, d\]"):
        kmeans_assign(x[0], centers)
    with pytest.raises(TypeError, match=r"x must be one of float32.*got int64"):
        kmeans_assign(x.astype(np.int64), centers)
    with pytest.raises(TypeError, match="centers must be one of"):
        kmeans_assign(x, centers.astype(complex))
    with pytest.raises(TypeError, match="expected an array"):
        kmeans_assign(x.tolist(), centers)
    with pytest.raises(TypeError, match="distance_dtype"):
        kmeans_assign(x, centers, distance_dtype="float16")
    with pytest.raises(ValueError, match="n_threads"):
        kmeans_assign(x, centers, n_threads=0)
    with pytest.raises(ValueError, match="labels must have shape"):
        kmeans_assign(x, centers, out=(np.zeros(3, np.int32), np.zeros(4)))
    with pytest.raises(TypeError, match="distances must be float64"):
        kmeans_assign(x, centers, out=(np.zeros(4, np.int32), np.zeros(4, np.float32)))


def test_native_function_checks_its_arguments():
    x, centers = example(4, 3, 2)
    screen = Screen(np.zeros(3, np.float32), "float32", n_threads=1)
    sizes = {"n_features": 3, "n_coordinates": 0}
    size = modules.cpu.kmeans_assign_workspace_size(**sizes, n_threads=1)
    prepared = screen.prepare(centers)
    arguments = {
        "x": x,
        "centers": centers,
        "prepared": prepared,
        "code": "float32",
        "n_coordinates": 0,
        "workspace": np.empty(size, np.float32),
        "labels": np.empty(4, np.int32),
        "distances": np.empty(4),
        "codes": None,
        "subset": None,
        "guessed": False,
        "near": None,
        "epoch": 0,
        "margin": 0.0,
        "n_threads": 1,
    }
    modules.cpu.kmeans_assign(**arguments)
    for name, value, error in [
        ("x", x[:, ::2], ValueError),
        ("x", x.astype(np.int32), TypeError),
        ("x", x[0], ValueError),
        ("centers", centers[:, :2].copy(), ValueError),
        ("prepared", prepared[:10], ValueError),
        ("code", "int4", ValueError),
        ("n_coordinates", 2, ValueError),  # without codes
        ("n_coordinates", -1, ValueError),
        ("workspace", arguments["workspace"][:100], ValueError),
        ("labels", np.empty(5, np.int32), ValueError),
        ("distances", np.empty(4, np.float32), TypeError),
        ("codes", np.empty((4, 4), np.int8), ValueError),
        ("subset", np.array([4]), ValueError),
        ("subset", np.array([-1]), ValueError),
        ("near", np.empty((4, 15), np.int32), ValueError),
        ("n_threads", 0, ValueError),
        ("n_threads", 200, ValueError),  # the workspace is too small for 200 threads
    ]:
        with pytest.raises(error):
            modules.cpu.kmeans_assign(**{**arguments, name: value})
    wrong_guess = {"labels": np.array([0, 1, 2, 0], np.int32), "guessed": True}
    with pytest.raises(ValueError, match="labels"):
        modules.cpu.kmeans_assign(**{**arguments, **wrong_guess})


@pytest.mark.slow
def test_more_than_2_to_31_elements(tmp_path):
    n, d = 70_000, 1 << 15  # 2.3e9 bytes; only the last rows take space on disk
    with open(tmp_path / "x", "wb") as file:
        file.truncate(n * d)
    x = np.memmap(tmp_path / "x", dtype=np.uint8, mode="r+", shape=(n, d))
    x[-2:] = 3
    labels, distances = kmeans_assign(x, np.array([[0.0], [2.0]]).repeat(d, axis=1))
    assert not labels[:-2].any()
    assert not distances[:-2].any()
    np.testing.assert_array_equal(labels[-2:], 1)
    np.testing.assert_array_equal(distances[-2:], d)


def test_more_than_2_to_31_pairs():
    n, k = (1 << 20) + 5, 2049
    x = np.arange(n, dtype=np.float32)[:, None] % 4096
    labels, distances = kmeans_assign(x, 2.0 * np.arange(k)[:, None])
    np.testing.assert_array_equal(labels, x[:, 0].astype(np.int64) // 2)
    np.testing.assert_array_equal(distances, x[:, 0] % 2)
