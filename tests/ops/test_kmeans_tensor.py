"""The tensor-core screen of Hopper, Ampere and Turing gives only exact labels.

The kernels are emulated. On a machine with a GPU the real kernels run instead, in every way to
multiply codes.
"""

import sys

import numpy as np
import pytest

from emulation.cuda.device import EmulatedCuda
from emulation.cuda.kmeans_tensor import EmulatedKernels
from ktfast.native import modules
from ktfast.ops import PreparedCenters, kmeans_assign, kmeans_tensor
from ktfast.ops.kmeans_tensor import CODES, TensorScreen, choose_code
from ktfast.reference import kmeans as reference
from support.hardware_kernels import MODULES, PLACES, HardwareKernels, kernels_at
from support.kmeans_cases import hard_case
from support.tolerances import SUM_ORDER_FLOAT64

ON_HARDWARE = modules.has_cuda()
# Hopper: wgmma with bulk copies. Ampere: mma.sync with asynchronous copies.
DEVICES = PLACES if ON_HARDWARE else [90, 80]
# Turing: mma.sync with plain copies. Emulated products and decisions are those of Ampere, so only
# the tests of sizes run on an emulated Turing.
ALL_DEVICES = PLACES if ON_HARDWARE else [90, 80, 75]


def use(kernels, monkeypatch):
    monkeypatch.setattr(kmeans_tensor, "native_of", lambda _: kernels)
    monkeypatch.setattr(kmeans_tensor, "stream_of", lambda _: 0)


@pytest.fixture
def kernels(emulated_library, monkeypatch):
    """The emulated kernels, which take arrays of NumPy as arrays on the GPU."""
    kernels = EmulatedKernels(EmulatedCuda(emulated_library))
    kernels.cuda.set()
    use(kernels, monkeypatch)
    return kernels


@pytest.fixture(params=DEVICES)
def device(monkeypatch, request):
    """Every way to multiply codes of a real GPU, or every kind of emulated GPU.

    Each emulated GPU runs its threads in a different order.
    """
    if ON_HARDWARE:
        kernels = kernels_at(request.param, modules.cuda())
        if kernels is None:
            pytest.skip(f"no build for {request.param}; set {MODULES}")
        use(kernels, monkeypatch)
        return kernels
    kernels = request.getfixturevalue("kernels")
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
    seed = (90 if ON_HARDWARE else device.cuda.seed) + CODES.index(code)
    generator = np.random.default_rng(seed)
    for case in range(10):
        if not ON_HARDWARE:
            device.cuda.set(seed + case, device.cuda.capability)
        x, centers = hard_case(generator, case)
        guess = generator.integers(-1, len(centers) + 1, len(x))  # some are no centre
        check(x, centers, code, guess=guess if (case // 2 + seed) % 2 else None)


@pytest.mark.parametrize("device", ALL_DEVICES, indirect=True)
@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize(
    ("n", "k", "d"),
    [(1, 1, 1), (129, 257, 33), (130, 40, 129), (3, 520, 64), (9, 20, 390), (40, 30, 0)],
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
    centers = generator.normal(size=(40, 10))
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
    centers = np.repeat(generator.normal(size=(3, 16)), 40, axis=0)
    x = generator.normal(size=(6, 16)).astype(np.float32)
    for code in CODES:
        assert check(x, centers, code) == 6 * 120


@pytest.mark.parametrize("dtype", ["float64", "float16", "uint8", "int8"])
def test_dtypes(device, dtype):
    generator = np.random.default_rng(0)
    x = (generator.normal(size=(30, 70)) * 20 + 60).astype(dtype)
    centers = generator.normal(size=(60, 70)) * 20 + 60
    for code in CODES:
        check(x, centers, code)


def test_few_centers_pass_where_clusters_are_clear(device):
    generator = np.random.default_rng(0)
    centers = generator.normal(size=(260, 64))
    x = centers[generator.integers(0, 260, 50)] + 0.1 * generator.normal(size=(50, 64))
    x = x.astype(np.float32)
    for code in CODES:
        assert check(x, centers, code) == 50
        assert check(x, centers, code, guess=reference.assign(x, centers)[0]) == 50


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


@pytest.mark.skipif(ON_HARDWARE, reason="only the emulated device reports reads out of bounds")
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
            1, 0, 0, None, None, 0, workspace, None, None,
        )  # fmt: skip
        np.testing.assert_array_equal(labels, expected)
        np.testing.assert_array_equal(found, distances)


@pytest.mark.parametrize("code", CODES)
def test_bounds_follow_the_centers(device, code):
    """Labels are exact in every pass. Distances are upper bounds, and exact after comparisons.

    `others` are lower bounds of the distances to the centres but the nearest.
    """
    x, centers = mixed(40, 260, 70)
    screen = TensorScreen(mean_of(x), code, like=x)
    labels, bounds = np.full(len(x), -9, np.int32), np.full(len(x), np.nan)
    others = np.full(len(x), np.nan)
    generator, former = np.random.default_rng(3), None
    for step in (0, 1e-3, 0.3, 1e-6, 0):
        centers = centers + step * generator.normal(size=centers.shape)
        moves = None
        if former is not None:
            moves = screen.moves(centers, former)
            exact = np.linalg.norm(centers - former, axis=1)
            exact = np.append(exact, exact.max())
            np.testing.assert_allclose(moves, exact, rtol=1e-11)
            assert (moves >= exact * (1 - 1e-15)).all()
        options = {"guessed": former is not None, "bounds": True, "moves": moves}
        options["others"] = others
        screen.assign(x, centers, screen.prepare(centers), labels, bounds, **options)
        expected, nearest = reference.assign(x, centers)
        np.testing.assert_array_equal(labels, expected)
        assert (bounds >= nearest * (1 - 1e-13)).all()
        assert (bounds <= nearest + 0.1 * (x**2).sum(axis=1)).all()
        second = np.partition(np.linalg.norm(x[:, None] - centers, axis=2), 1, axis=1)[:, 1]
        assert (others <= second * (1 + 1e-13)).all()
        assert (others > 0.9 * second).any() == (former is not None)
        former = centers
    exact = np.empty(len(x))
    screen.exact_distances(x, centers, labels, exact)
    np.testing.assert_allclose(exact, nearest, rtol=SUM_ORDER_FLOAT64)
    screen.exact_distances(x, centers, None, exact)
    np.testing.assert_allclose(exact, ((x - centers[0]) ** 2).sum(axis=1), rtol=1e-12)


@pytest.mark.parametrize("code", CODES)
def test_tiles_of_rows_that_keep_their_labels_cost_no_product(device, code):
    """Three tiles of rows near clear centres. A row of the second tile is near two centres."""
    generator = np.random.default_rng(0)
    n, k, d = 260, 40, 24
    centers = generator.normal(size=(k, d))
    truth = generator.integers(2, k, n)
    x = (centers[truth] + 0.05 * generator.normal(size=(n, d))).astype(np.float32)
    x[200] = (centers[0] + centers[1]) / 2
    screen = TensorScreen(mean_of(x), code, like=x)
    codes = screen.empty_codes(n)
    screen.encode(x, codes)
    labels, bounds, others = np.full(n, -9, np.int32), np.empty(n), np.empty(n)
    multiplied, former, intact = [], None, codes.codes.copy()
    for step in (0, 1e-3, 1e-3, 1e-4, 10):
        centers = centers + step * generator.normal(size=centers.shape) / d
        moves = None if former is None else screen.moves(centers, former)
        n_multiplied = np.zeros(1, np.int64)
        screen.assign(
            x, centers, screen.prepare(centers), labels, bounds, codes=codes, others=others,
            guessed=former is not None, bounds=True, moves=moves, n_multiplied=n_multiplied,
        )  # fmt: skip
        np.testing.assert_array_equal(labels, reference.assign(x, centers)[0])
        assert (bounds >= reference.assign(x, centers)[1] * (1 - 1e-13)).all()
        multiplied.append(int(n_multiplied[0]))
        former = centers
        # Nothing reads the codes of tiles that are skipped.
        codes.codes[[0, 2]] = 0x55 if len(multiplied) in (2, 3) else intact[[0, 2]]
    # The first pass has no guesses. The second one finds the bounds of the other distances.
    assert multiplied == [3, 3, 1, 1, 3]


@pytest.mark.skipif(ON_HARDWARE, reason="only the emulated device reports reads out of bounds")
@pytest.mark.parametrize("code", CODES)
def test_bounds_do_not_read_the_rows(kernels, code):
    """The rows are an empty array, so the emulated device reports every access to them."""
    generator = np.random.default_rng(0)
    n, k, d = 60, 40, 64
    centers = generator.normal(size=(k, d))
    x = (centers[np.arange(n) % k] + 0.1 * generator.normal(size=(n, d))).astype(np.float32)
    screen = TensorScreen(mean_of(x), code, like=x)
    codes, n_passed = screen.empty_codes(n), np.zeros(1, np.int64)
    screen.encode(x, codes)
    labels, bounds = (np.arange(n) % k).astype(np.int32), np.full(n, 0.5 * d)
    workspace = np.zeros(kernels.kmeans_tensor_workspace_size(n_rows=n), np.int64)
    for guessed in (0, 1):
        kernels.cuda.call(
            "emulated_tensor_assign", n, k, d, x[:0], 0, centers, CODES.index(code),
            screen.prepare(centers), codes.codes, codes.constants, labels, bounds,
            guessed, 1, 1, np.zeros(k + 1), None, 0, workspace, n_passed, None,
        )  # fmt: skip
        np.testing.assert_array_equal(labels, np.arange(n) % k)
        assert n_passed == 0
        assert (bounds >= reference.assign(x, centers)[1]).all()


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


def far_apart(offset):
    """Rows near one of 300 centres, far from all others, and the mean that the screen subtracts.

    A large value in one feature makes the codes coarse. The screen looks at the first 256 centres
    first, and no row is near one of them.
    """
    generator = np.random.default_rng(0)
    centers = generator.normal(size=(300, 120))
    centers[:, 0] = offset
    x = centers[260:290] + 0.1 * generator.normal(size=(30, 120))
    return x.astype(np.float32), centers, np.zeros(120, np.float32)


def test_the_code_of_a_fit_follows_its_guessed_passes(kernels):
    """int8 leaves two candidates without guesses, and one with guesses."""
    _, centers, mean = far_apart(5)
    x = centers[:30].astype(np.float32)
    # The score of a row's second centre exceeds the least score by more than one error of int8, and
    # by less than two.
    direction = np.random.default_rng(1).normal(size=(30, 120))
    centers[30:60] = centers[:30] + direction / np.linalg.norm(direction, axis=1)[:, None] * 3.0
    screen = TensorScreen(mean, "int8", like=x)
    assert screen.passed(x, centers) > 1.5
    assert screen.passed(x, centers, passes=20) < 1.1
    assert choose_code(x, centers, mean) == "float16"
    assert choose_code(x, centers, mean, passes=20) == "int8"


def test_the_first_pass_can_decide_the_code_of_a_fit(kernels):
    """Without guesses, int8 leaves so many candidates that rows are compared with every centre."""
    x, centers, mean = far_apart(24)
    screen = TensorScreen(mean, "int8", like=x)
    assert screen.passed(x, centers) > 250
    assert choose_code(x, centers, mean, passes=20) == "float16"


def mixed(n, k, d):
    """Rows of overlapping clusters, of which a screen leaves a few candidates each."""
    generator = np.random.default_rng(5)
    centers = generator.normal(size=(k, d))
    x = 0.2 * centers[generator.integers(0, k, n)] + generator.normal(size=(n, d))
    return x.astype(np.float32), centers


# Right labels do not prove the products, because undecided rows are compared exactly. The numbers
# are those of the emulated GPU.
CANDIDATES = {
    ("int8", False): 305, ("int8", True): 196, ("float16", False): 132, ("float16", True): 131,
}  # fmt: skip


@pytest.mark.parametrize(("code", "guessed"), CANDIDATES)
def test_the_number_of_candidates(device, code, guessed):
    x, centers = mixed(130, 300, 70)
    labels, _ = reference.assign(x, centers)
    n_passed = check(x, centers, code, guess=labels if guessed else None)
    # Products of float16, and fused operations, are rounded differently on each GPU.
    assert n_passed == pytest.approx(CANDIDATES[code, guessed], abs=2)


def test_the_kernels_of_an_assignment(kernels):
    """No kernel is launched for undecided rows, and the path of other GPUs can be chosen."""
    x, centers = mixed(30, 20, 10)
    for code in CODES:
        for path, product in (("fastest", "wgmma_screen_kernel"), ("mma", "mma_screen_kernel")):
            for certify, last in ((True, "settle_kernel"), (False, "accept_kernel")):
                kernels.cuda.launches()
                labels, *_ = assign(x, centers, code, path=path, certify=certify)
                names = [name for name, _ in kernels.cuda.launches()]
                assert names[-3:] == ["guess_kernel", product, last]
                np.testing.assert_array_equal(labels, reference.assign(x, centers)[0])


def test_the_hardware_tests_force_each_path(emulated_gpu, monkeypatch):
    """The adapter for real GPUs, with the emulated GPU that torch holds."""
    x, centers = mixed(30, 20, 10)
    for place in ("fastest", "mma"):
        use(kernels_at(place, emulated_gpu), monkeypatch)
        emulated_gpu.launches()
        check(x, centers, "int8")
        assert f"{'wg' if place == 'fastest' else ''}mma_screen_kernel" in emulated_gpu.launches()
    monkeypatch.delenv(MODULES, raising=False)
    assert kernels_at("jit80", emulated_gpu) is None


def test_modules_of_other_builds_are_loaded_by_their_path(tmp_path, monkeypatch):
    (tmp_path / "jit75").mkdir()
    (tmp_path / "jit75" / "_cuda.py").write_text("architectures = '75-virtual'\n")
    monkeypatch.setenv(MODULES, str(tmp_path))
    kernels = kernels_at("jit75", None)
    assert isinstance(kernels, HardwareKernels)
    assert (kernels.module.architectures, kernels.path) == ("75-virtual", "mma")


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
