"""The emulated tensor-core screen of Hopper, Ampere and Turing gives only exact labels."""

import sys

import numpy as np
import pytest

from emulation.cuda.device import EmulatedCuda
from emulation.cuda.kmeans_tensor import EmulatedKernels
from ktfast.ops import PreparedCenters, kmeans_assign, kmeans_tensor
from ktfast.ops.kmeans_tensor import CODES, TensorScreen, choose_code
from ktfast.reference import kmeans as reference
from support.kmeans_cases import hard_case
from support.tolerances import SUM_ORDER_FLOAT64

# Hopper: wgmma with bulk copies. Ampere: mma.sync with asynchronous copies. Turing: mma.sync with
# plain copies.
CAPABILITIES = [90, 80, 75]


@pytest.fixture
def kernels(emulated_library, monkeypatch):
    """The emulated kernels, which take arrays of NumPy as arrays on the GPU."""
    kernels = EmulatedKernels(EmulatedCuda(emulated_library))
    kernels.cuda.set()
    monkeypatch.setattr(kmeans_tensor, "native_of", lambda _: kernels)
    monkeypatch.setattr(kmeans_tensor, "stream_of", lambda _: 0)
    return kernels


@pytest.fixture(params=CAPABILITIES)
def device(kernels, request):
    """Every kind of GPU; each runs its threads in a different order."""
    kernels.cuda.set(request.param, request.param)
    return kernels


def mean_of(x):
    finite = np.isfinite(x).all(axis=1)
    return x[finite].mean(axis=0, dtype=np.float64).astype(np.float32) if finite.any() else x[0] * 0


def assign(x, centers, code, *, guess=None, mean=None, **options):
    """Labels, distances and the number of candidates."""
    screen = TensorScreen(mean_of(x) if mean is None else mean, code, like=x)
    labels = np.full(len(x), -9, np.int32) if guess is None else guess.astype(np.int32)
    distances, n_passed = np.full(len(x), np.nan), np.zeros(1, np.int64)
    prepared = screen.prepare(centers)
    options = {"guessed": guess is not None, "n_passed": n_passed, **options}
    screen.assign(x, centers, prepared, labels, distances, **options)
    return labels, distances, int(n_passed[0])


def check(x, centers, code, **options):
    labels, distances, n_passed = assign(x, centers, code, **options)
    expected, nearest = reference.assign(x, centers)
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_allclose(distances, nearest, rtol=SUM_ORDER_FLOAT64)
    return n_passed


@pytest.mark.parametrize("code", CODES)
def test_hard_cases(device, code):
    seed = device.cuda.seed + CODES.index(code)
    generator = np.random.default_rng(seed)
    for case in range(10):
        device.cuda.set(seed + case, device.cuda.capability)
        x, centers = hard_case(generator, case)
        guess = generator.integers(-1, len(centers) + 1, len(x))  # some are no centre
        check(x, centers, code, guess=guess if (case // 2 + seed) % 2 else None)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize(
    ("n", "k", "d"),
    [(1, 1, 1), (129, 257, 33), (260, 40, 129), (3, 600, 64), (9, 20, 700), (40, 30, 0)],
)
def test_sizes(device, code, n, k, d):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(n, d)).astype(np.float32)
    centers = generator.normal(size=(k, d))
    check(x, centers, code)
    check(x, centers, code, guess=generator.integers(0, k, n))


@pytest.mark.parametrize("code", CODES)
def test_rows_that_no_screen_can_decide(device, code):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(20, 10)).astype(np.float32)
    centers = generator.normal(size=(300, 10))
    x[3], x[7, 2], x[9, 4] = np.nan, np.inf, 1e38
    x[11] *= 1e19
    x[13] *= 1e-42
    with np.errstate(all="ignore"):
        expected, nearest = reference.assign(x, centers)
    expected[3] = 0
    for options in ({}, {"guess": expected}, {"certify": False}):
        labels, distances, _ = assign(x, centers, code, **options)
        exact = np.isfinite(nearest) if options.get("certify", True) else [3, 7, 9, 11]
        np.testing.assert_array_equal(labels[exact], expected[exact])
        np.testing.assert_array_equal(labels[[3, 7]], [0, 0])
        assert np.isnan(distances[3])
        assert distances[7] == np.inf


@pytest.mark.parametrize("scale", [1e-25, 1e-13, 1e12, 1e17])
def test_scales_at_the_ends_of_float32(device, scale):
    generator = np.random.default_rng(0)
    x = (generator.normal(size=(20, 12)) * scale).astype(np.float32)
    centers = generator.normal(size=(30, 12)) * scale
    for code in CODES:
        check(x, centers, code)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_centers_that_are_not_numbers(device, bad):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(20, 12)).astype(np.float32)
    centers = generator.normal(size=(30, 12))
    centers[5, 3] = bad
    labels, _, n_passed = assign(x, centers, "int8")
    others = np.delete(centers, 5, axis=0)
    expected, _ = reference.assign(x, others)
    np.testing.assert_array_equal(labels, expected + (expected >= 5))
    assert n_passed == 20 * 30


def test_more_near_ties_than_a_row_has_room_for(device):
    generator = np.random.default_rng(0)
    centers = np.repeat(generator.normal(size=(3, 16)), 100, axis=0)
    x = generator.normal(size=(20, 16)).astype(np.float32)
    for code in CODES:
        assert check(x, centers, code) == 20 * 300


@pytest.mark.parametrize("dtype", ["float64", "float16", "uint8", "int8"])
def test_dtypes(device, dtype):
    generator = np.random.default_rng(0)
    x = (generator.normal(size=(30, 70)) * 20 + 60).astype(dtype)
    centers = generator.normal(size=(60, 70)) * 20 + 60
    for code in CODES:
        check(x, centers, code)


def test_few_centers_pass_where_clusters_are_clear(device):
    generator = np.random.default_rng(0)
    centers = generator.normal(size=(300, 64))
    x = (centers[generator.integers(0, 300, 200)] + 0.1 * generator.normal(size=(200, 64))).astype(
        np.float32
    )
    for code in CODES:
        assert check(x, centers, code) == 200
        assert check(x, centers, code, guess=reference.assign(x, centers)[0]) == 200


def test_without_a_certificate(device):
    generator = np.random.default_rng(0)
    centers = generator.normal(size=(300, 64))
    x = generator.normal(size=(200, 64)).astype(np.float32)
    exact = ((x[:, None].astype(np.float64) - centers) ** 2).sum(axis=2)
    for code, tolerance in zip(CODES, (0.05, 2e-3), strict=True):
        labels, distances, n_passed = assign(x, centers, code, certify=False)
        assert n_passed == 0
        chosen = exact[np.arange(200), labels]
        np.testing.assert_allclose(distances, chosen, rtol=tolerance)
        np.testing.assert_allclose(chosen, exact.min(axis=1), rtol=tolerance)


def test_without_a_certificate_a_guess_does_not_read_the_rows(device):
    """The rows are an empty array, so the emulated device reports every access to them."""
    generator = np.random.default_rng(0)
    n, k, d = 60, 40, 24
    centers = generator.normal(size=(k, d))
    x = generator.normal(size=(n, d)).astype(np.float32)
    for code in CODES:
        expected, distances, _ = assign(x, centers, code, certify=False)
        screen = TensorScreen(mean_of(x), code, like=x)
        codes = screen.empty_codes(n)
        screen.encode(x, codes)
        labels, found = generator.integers(0, k, n).astype(np.int32), np.full(n, np.nan)
        workspace = np.zeros(device.kmeans_tensor_workspace_size(n_rows=n), np.int64)
        device.cuda.call(
            "emulated_tensor_assign", n, k, d, x[:0], 0, centers, CODES.index(code),
            screen.prepare(centers), codes.codes, codes.constants, labels, found,
            1, 0, workspace, None,
        )  # fmt: skip
        np.testing.assert_array_equal(labels, expected)
        np.testing.assert_array_equal(found, distances)


def test_a_clear_case_by_hand(device):
    x = np.array([[0, 0], [3, 4], [10, 0], [-1, 0]], dtype=np.float32)
    centers = np.array([[0.0, 0], [10, 0], [3, 3]])
    for code in CODES:
        labels, distances, _ = assign(x, centers, code, mean=np.zeros(2, np.float32))
        assert labels.tolist() == [0, 2, 1, 0]
        assert distances.tolist() == [0, 1, 0, 1]


def test_blocks_and_codes_change_nothing(kernels, monkeypatch):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(300, 40)).astype(np.float32)
    centers = generator.normal(size=(50, 40))
    screen = TensorScreen(mean_of(x), "int8", like=x)
    codes = screen.empty_codes(300)
    screen.encode(x, codes)
    expected, _ = reference.assign(x, centers)
    assert codes.at(slice(128, 300)).codes.shape == (2, 128 * 128)
    monkeypatch.setattr(kmeans_tensor, "_CALL_ROWS", 128)
    for given in (codes, None):
        for rows in (x, np.asfortranarray(x)):
            labels, distances = np.empty(300, np.int32), np.empty(300)
            screen.assign(rows, centers, screen.prepare(centers), labels, distances, codes=given)
            np.testing.assert_array_equal(labels, expected)


def test_the_choice_of_the_code(kernels):
    generator = np.random.default_rng(0)
    centers = generator.normal(size=(300, 64))
    clear = (centers[:100] + 0.1 * generator.normal(size=(100, 64))).astype(np.float32)
    mean = np.zeros(64, np.float32)
    assert choose_code(clear, centers, mean) == "int8"
    # All centres have the same 8-bit code, and most have the same 16-bit code.
    close = centers[:1] + 1e-3 * centers
    assert choose_code(clear, close - close.mean(axis=0) + 5, mean) == "float32"
    with pytest.raises(ValueError, match="code must be one of int8, float16, got 'int4'"):
        TensorScreen(mean, "int4", like=clear)


def test_errors(kernels):
    x = np.zeros((2, 131073), np.float32)
    screen = TensorScreen(x[0], "int8", like=x)
    with pytest.raises(RuntimeError, match="more features than tensor cores can add up"):
        screen.prepare(np.zeros((1, 131073)))
    none = np.zeros((0, 4), np.float32)
    assert assign(none, np.zeros((1, 4)), "int8", mean=np.zeros(4, np.float32))[2] == 0


def test_precisions_of_the_op(kernels, monkeypatch):
    module = sys.modules["ktfast.ops.kmeans_assign"]
    monkeypatch.setattr(module, "native_of", lambda _: kernels)
    monkeypatch.setattr(module, "_GPU_SMALL", 1)
    generator = np.random.default_rng(0)
    centers = generator.normal(size=(300, 64))
    x = (centers[:100] + 0.1 * generator.normal(size=(100, 64))).astype(np.float32)
    prepared = PreparedCenters(centers)
    expected, nearest = reference.assign(x, centers)
    for precision in ("exact", "int8", "float16", "fast"):
        labels, distances = kmeans_assign(x, prepared, precision=precision)
        np.testing.assert_array_equal(labels, expected)
        # The distances of "fast" have the rounding error of 8 bits at |x| = 8.
        tolerance = {"atol": 0.5} if precision == "fast" else {"rtol": 1e-6}
        np.testing.assert_allclose(distances, nearest, **tolerance)
    with pytest.raises(ValueError, match=r"bfloat16.* needs arrays on a CPU"):
        kmeans_assign(x, prepared, precision="bfloat16")
