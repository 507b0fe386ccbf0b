"""The screen's certificate and the bounds across iterations: never a label but the exact one."""

import functools
import itertools
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from ktfast import KMeans
from ktfast.kmeans.assignment.cpu import BoundedAssigner
from ktfast.kmeans.assignment.screen import Outlook, later_screen, principal_directions
from ktfast.kmeans.data.rows import Rows
from ktfast.native import modules
from ktfast.ops import kmeans_assign, kmeans_screen
from ktfast.ops.kmeans_drift import kmeans_drift
from ktfast.ops.kmeans_rows import NEAR_CENTERS, DistanceBounds
from ktfast.ops.kmeans_screen import CODES, Screen
from ktfast.reference import kmeans as reference
from support.kmeans_cases import assert_consistent, assert_same, hard_case, mixture
from support.optional import torch
from support.simd_levels import LEVELS, available
from support.tolerances import SUM_ORDER_FLOAT64


@pytest.fixture(params=LEVELS)
def level(request, monkeypatch):
    monkeypatch.delenv("KTFAST_SIMD", raising=False)
    if request.param not in available():
        pytest.skip(f"this processor has no {request.param}")
    monkeypatch.setenv("KTFAST_SIMD", request.param)
    return request.param


def distances_between(x, centers):
    x = np.asarray(x, np.float64)
    return np.array([((row - centers) ** 2).sum(axis=1) for row in x]).reshape(len(x), -1)


def basis_of(d, m, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(d, m)))[0].astype(np.float32)


def assign(screen, x, centers, **options):
    labels = options.pop("guess", np.zeros(len(x), np.int32)).copy()
    distances = np.empty(len(x))
    codes = screen.empty_codes(len(x))
    screen.encode(x, codes)
    screen.assign(x, centers, screen.prepare(centers), labels, distances, codes=codes, **options)
    return labels, distances


@functools.cache
def hard_cases(code):
    """400 cases of a code: rows, centres, a guess, and the exact labels and distances."""
    generator = np.random.default_rng(CODES.index(code))
    cases = []
    for seed in range(400):
        x, centers = hard_case(generator, seed)
        guess = generator.integers(0, len(centers), len(x)).astype(np.int32)
        cases.append((x, centers, guess, *reference.assign(x, centers)))
    return cases


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("with_basis", [False, True])
def test_thousands_of_hard_cases(level, code, with_basis):
    generator = np.random.default_rng(0)
    cases = hard_cases(code)[: 60 if level == "scalar" else 400]
    for seed, (x, centers, guess, expected, nearest) in enumerate(cases):
        d = x.shape[1]
        basis = basis_of(d, int(generator.integers(1, d + 1)), seed) if with_basis else None
        screen = Screen(x.mean(axis=0), code, basis, n_threads=1)
        for options in ({}, {"guessed": True, "guess": guess}):
            labels, distances = assign(screen, x, centers, **options)
            assert labels.tolist() == expected.tolist(), (seed, code)
            np.testing.assert_allclose(distances, nearest, rtol=SUM_ORDER_FLOAT64)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("d", [8, 16, 97, 2100])
def test_products_as_large_as_can_be(level, code, d):
    """Rows of numbers alike in size meet a centre of the same signs: sums of products that are too
    narrow for that lose the nearest centre."""
    generator = np.random.default_rng(d)
    signs = generator.choice([-1.0, 1.0], size=(12, d)).astype(np.float32)
    signs[0] = 1
    some = np.arange(d) % 16 < 8  # in some kernels, only these meet
    signs[1, ~some] = 0
    signs[2, some] = 0
    signs[3:5] *= generator.uniform(0.9, 1, (2, d)).astype(np.float32)
    centers = np.concatenate([signs.astype(np.float64), -signs, 0.99 * signs])
    screen = Screen(np.zeros(d, np.float32), code, n_threads=1)
    expected, _ = reference.assign(signs, centers)
    for guess in (expected, expected[::-1].copy()):
        assert assign(screen, signs, centers)[0].tolist() == expected.tolist()
        labels, _ = assign(screen, signs, centers, guessed=True, guess=guess.astype(np.int32))
        assert labels.tolist() == expected.tolist()


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("with_basis", [False, True])
def test_bounds_are_bounds(code, with_basis):
    generator = np.random.default_rng(1)
    for seed in range(120):
        x, centers = hard_case(generator, seed)
        n, d = x.shape
        basis = basis_of(d, int(generator.integers(1, d + 1)), seed) if with_basis else None
        screen = Screen(x.mean(axis=0), code, basis, n_threads=1)
        bounds = DistanceBounds.empty(n)
        labels, _ = assign(screen, x, centers, bounds=bounds, margin=[0.0, 0.3, 3.0][seed % 3])
        exact = np.sqrt(distances_between(x, centers))
        for row, distances in enumerate(exact):
            named = bounds.near[row][bounds.near[row] >= 0]
            assert len(np.unique(named)) == len(named)
            least = bounds.near_bounds[row][: len(named)]
            assert (least <= distances[named] * (1 + 1e-12)).all()
            rest = np.setdiff1d(np.arange(len(centers)), named)
            assert (bounds.rest_bound[row] <= distances[rest] * (1 + 1e-12)).all()
            assert labels[row] in named or bounds.rest_bound[row] == 0


def test_a_clear_case_by_hand():
    x = np.array([[0, 0], [3, 4], [10, 0], [-1, 0]], dtype=np.float32)
    centers = np.array([[0.0, 0], [10, 0], [3, 3]])
    for code in CODES:
        screen = Screen(np.zeros(2, np.float32), code, n_threads=1)
        bounds = DistanceBounds.empty(4)
        labels, distances = assign(screen, x, centers, bounds=bounds, margin=100.0)
        assert labels.tolist() == [0, 2, 1, 0]
        assert distances.tolist() == [0, 1, 0, 1]
        # Of three centres each row can name all that lie within its margin.
        assert sorted(bounds.near[1][:3].tolist()) == [0, 1, 2]
        np.testing.assert_allclose(
            bounds.near_bounds[1][np.argsort(bounds.near[1][:3])], [5, 65**0.5, 1], rtol=0.1
        )


def test_every_precision_gives_the_same_bits():
    x, centers = hard_case(np.random.default_rng(0), 0)
    results = [
        kmeans_assign(x, centers, precision=precision) for precision in (*CODES, "exact", "fast")
    ]
    for labels, distances in results[1:]:
        np.testing.assert_array_equal(labels, results[0][0])
        np.testing.assert_array_equal(distances, results[0][1])
    with pytest.raises(ValueError, match="precision must be one of exact, fast"):
        kmeans_assign(x, centers, precision="auto")
    with pytest.raises(ValueError, match=r"float16.* needs arrays on a GPU"):
        kmeans_assign(x, centers, precision="float16")


@pytest.mark.parametrize(("code", "most"), [("float32", 1.01), ("bfloat16", 1.3), ("int8", 2.5)])
@pytest.mark.parametrize("with_basis", [False, True])
def test_few_centers_but_the_nearest_pass(level, code, most, with_basis):
    """A screen that lets all of them pass would give exact labels, too."""
    generator = np.random.default_rng(0)
    n, d, k = 300, 40, 200
    centers = generator.normal(size=(k, d))
    x = (centers[generator.integers(0, k, n)] + 2 * generator.normal(size=(n, d))).astype("f4")
    basis = basis_of(3 * d, d) if with_basis else None
    if with_basis:
        x, centers = x @ basis.T, centers @ basis.T.astype(np.float64)
    screen = Screen(x.mean(axis=0), code, basis, n_threads=1)
    labels, distances, codes = np.zeros(n, np.int32), np.empty(n), screen.empty_codes(n)
    screen.encode(x, codes)
    prepared = screen.prepare(centers)
    screen.assign(x, centers, prepared, labels, distances, codes=codes)
    passed = screen.assign(x, centers, prepared, labels, distances, codes=codes, guessed=True)
    assert passed <= most * n


@pytest.mark.parametrize("d", [1, 16, 77])
def test_codes_are_the_nearest_numbers(level, d):
    """Others would also give exact labels, with more centres to compare."""
    x = np.random.default_rng(d).normal(size=(40, d)).astype(np.float32)
    x[0] = 1 + 2.0**-8  # half-way: to the even one
    x[1] = 1 + 3 * 2.0**-8
    upper = {}
    for code in ("float32", "bfloat16"):
        screen = Screen(np.zeros(d, np.float32), code, n_threads=1)
        codes = screen.empty_codes(len(x))
        screen.encode(x, codes)
        words = codes.codes.view(np.uint32 if code == "float32" else np.uint16)[:, :d]
        upper[code] = words.astype(np.uint32) << (0 if code == "float32" else 16)
    np.testing.assert_array_equal(upper["float32"].view(np.float32), x)
    rounded = torch.from_numpy(x).bfloat16().float().numpy()
    np.testing.assert_array_equal(upper["bfloat16"].view(np.float32), rounded)


@pytest.mark.parametrize("precision", ["exact", *CODES])
@pytest.mark.parametrize(("n", "d", "k"), [(700, 256, 150), (300, 1764, 70), (2000, 77, 37)])
def test_every_level_fits_with_the_same_bits(level, precision, n, d, k, monkeypatch):
    x = mixture(n, d, k)
    model = short_fit(x, k, precision)
    assert_consistent(model, x)
    monkeypatch.setenv("KTFAST_SIMD", "scalar")
    assert_same(model, scalar_fit(n, d, k))


def short_fit(x, k, precision):
    options = {"init": "random", "n_init": 1, "random_state": 0, "max_iter": 4, "tol": 0.0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return KMeans(k, precision=precision, **options).fit(x)


@functools.cache
def scalar_fit(n, d, k):
    """A fit that every level repeats. KTFAST_SIMD must be "scalar"."""
    return short_fit(mixture(n, d, k), k, "float32")


def steps(generator, x, k, n_steps):
    """Centres as a fit has them, and some that a fit has not: jumps, standstills, returns.

    With the centres come the exact labels and distances.
    """
    centers = x[generator.choice(len(x), k, replace=False)].astype(np.float64)
    for step in range(n_steps + 1):
        labels, nearest = reference.assign(x, centers)
        yield centers, labels, nearest
        following = centers.copy()
        for cluster in np.unique(labels):
            following[cluster] = x[labels == cluster].mean(axis=0, dtype=np.float64)
        if step % 4 == 2:
            following[generator.integers(0, k, 3)] = x[generator.integers(0, len(x), 3)]
        if step % 4 == 3:
            following = centers.copy()
        centers = following.astype(np.float32).astype(np.float64)


@functools.cache
def passes_of_a_fit(case):
    """Rows, and 13 passes of `steps`."""
    generator = np.random.default_rng(case)
    n, d, k = [(700, 8, 80), (900, 40, 150), (600, 3, 90), (1500, 70, 140)][case]
    x = generator.normal(size=(n, d)) + 3 * generator.normal(size=(30, d))[np.arange(n) % 30]
    x = x.astype(["float32", "float64", "float16", "float32"][case])
    return x, list(steps(generator, x, k, 12))


@pytest.mark.usefixtures("early_bounds")
@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("case", range(4))
def test_assignments_that_follow_one_another(level, code, case):
    x, passes = passes_of_a_fit(case)
    rows = Rows([x[:200], x[200:]], n_threads=2)
    assigner = BoundedAssigner(rows, x.mean(axis=0, dtype=np.float64), code)
    skipped = []
    for centers, expected, nearest in passes:
        labels, distances = assigner.assign(centers)
        np.testing.assert_array_equal(labels, expected)
        np.testing.assert_allclose(distances, nearest, rtol=SUM_ORDER_FLOAT64)
        skipped.append(assigner.skipped)
    assert all(0 <= share <= 1 for share in skipped)
    assert skipped[:2] == [0, 0]
    assert max(skipped) > 0.5  # a standstill costs nothing


@pytest.mark.usefixtures("early_bounds")
def test_snapshots_are_replaced_when_they_run_out(monkeypatch):
    monkeypatch.setattr("ktfast.kmeans.assignment.snapshots._SHARE", 0)
    monkeypatch.setattr("ktfast.kmeans.assignment.snapshots._LEAST_BYTES", int(2.1 * 4 * 70 * 12))
    generator = np.random.default_rng(0)
    x = generator.normal(size=(1000, 12)).astype(np.float32)
    assigner = BoundedAssigner(Rows([x], n_threads=1), x.mean(axis=0), "float32")
    for centers, expected, _ in steps(generator, x, 70, 15):
        labels, _ = assigner.assign(centers)
        np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize(
    ("step", "d", "pays"),
    [
        (0.05, 256, True),  # bounds will hold, and products are dear
        (0.05, 4, False),  # products are cheap
        (5.0, 256, False),  # bounds would not outlast the next pass
        (0.0, 256, True),
    ],
)
def test_bounds_pay_once_centres_move_little(step, d, pays, monkeypatch):
    monkeypatch.setenv("KTFAST_SIMD", "scalar")
    generator = np.random.default_rng(0)
    x = (generator.normal(size=(2000, d)) / d**0.5).astype(np.float32)
    centers = generator.normal(size=(300, d)) / d**0.5 * 3
    _, distances = reference.assign(x, centers)
    steps = generator.normal(size=centers.shape)
    steps *= step / np.linalg.norm(steps, axis=1, keepdims=True)
    outlook = Outlook(Screen(x.mean(axis=0), "float32", n_threads=1), Rows([x]))
    assert outlook.bounds_pay(centers, centers + steps, distances) == pays
    assert not outlook.bounds_pay(centers, centers + 1e160, distances)  # overflows


def test_snapshots_say_how_far_they_may_be_off():
    centers = np.array([[1.0, 2], [1 + 2**-25, 1e-60], [3, -(1 + 3 * 2**-26)]])
    snapshot = np.empty((3, 2), np.float32)
    error = modules.cpu.kmeans_snapshot(centers=centers, snapshot=snapshot, n_threads=2)
    np.testing.assert_array_equal(snapshot, centers.astype(np.float32))
    farthest = np.linalg.norm(snapshot - centers, axis=1).max()
    assert farthest < error < farthest * (1 + 1e-5)
    exact = np.zeros((3, 2))
    assert modules.cpu.kmeans_snapshot(centers=exact, snapshot=snapshot, n_threads=1) == 0


def test_known_drift_is_kept_where_centers_stand_still():
    generator = np.random.default_rng(0)
    previous = generator.normal(size=(40, 6))
    centers = np.where(np.arange(40)[:, None] % 2, previous, generator.normal(size=(40, 6)))
    snapshots = generator.normal(size=(3, 40, 6)).astype(np.float32)
    measure = functools.partial(kmeans_drift, n_threads=2)
    none = np.zeros(3, np.float32)
    expected = measure(centers, previous, snapshots, none)
    drift = measure(previous, previous, snapshots, none).drift.copy()
    drift[1] = -1  # not known
    known = np.array([True, False, True])
    found = measure(centers, previous, snapshots, none, drift=drift, known=known)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_drift_by_hand():
    snapshots = np.zeros((2, 3, 2), np.float32)
    snapshots[1, 2] = 5
    centers = np.array([[3.0, 4], [0, 0], [5, 5]])
    drift = kmeans_drift(
        centers,
        np.array([[0.0, 0], [0, 0], [5, 5]]),
        snapshots,
        np.array([0, 1], np.float32),
        n_threads=2,
    )
    assert drift.moved.tolist() == [1, 0, 0]
    np.testing.assert_allclose(drift.drift, [[5, 0, 50**0.5], [6, 1, 1]], rtol=1e-5)
    assert (drift.drift[0] >= [5, 0, 50**0.5]).all()
    assert drift.farthest[0, :4].tolist() == [2, 0, 1, -1]
    assert drift.farthest_moved[0, :2].tolist() == [0, -1]


def test_principal_directions_span_the_data():
    generator = np.random.default_rng(0)
    for d in (100, 600):
        x = generator.normal(size=(3000, 20)) @ generator.normal(size=(20, d)) + 5
        rows = Rows([x.astype(np.float32)])
        directions = principal_directions(rows, x.mean(axis=0), 32)
        np.testing.assert_allclose(
            directions.T @ directions, np.eye(directions.shape[1]), atol=1e-6
        )
        shifted = x - x.mean(axis=0)
        left = shifted - shifted @ directions[:, :20] @ directions[:, :20].T
        assert np.linalg.norm(left) < 1e-3 * np.linalg.norm(shifted)


def test_a_basis_is_chosen_where_few_directions_matter(monkeypatch):
    monkeypatch.setattr("ktfast.kmeans.assignment.screen._BASIS_DISTANCES", 1)
    monkeypatch.setenv("KTFAST_SIMD", "scalar")  # whose products are worth saving
    generator = np.random.default_rng(0)
    for decays, expected in ((True, {32, 64}), (False, {0})):
        spectrum = 0.8 ** np.arange(256) if decays else np.ones(256)
        x = (generator.normal(size=(4000, 256)) * spectrum).astype(np.float32)
        centers = x[:400].astype(np.float64)
        labels, _ = kmeans_assign(x, centers)
        screen, margin, _ = later_screen(Rows([x]), x.mean(axis=0), centers, labels, "exact")
        assert screen.n_coordinates in expected
        assert margin > 0


# Rows of one or more groups of 96 and of none; words of whole tiles, with some left, of two chains.
@pytest.mark.parametrize(("n", "d"), [(96, 64), (95, 64), (300, 256), (200, 333), (97, 2100)])
@pytest.mark.parametrize("level", ["amx"], indirect=True)
def test_tiles_let_the_same_centres_pass(level, n, d, monkeypatch):
    generator = np.random.default_rng(n)
    x = generator.normal(size=(n, d)).astype(np.float32)
    centers = generator.normal(size=(150, d)) * generator.uniform(0.5, 2, (150, 1))
    screen = Screen(x.mean(axis=0), "int8", n_threads=1)
    prepared = screen.prepare(centers)
    passed = {}
    for name in ("avx512", level):
        monkeypatch.setenv("KTFAST_SIMD", name)
        labels, distances = np.zeros(n, np.int32), np.empty(n)
        passed[name] = screen.assign(x, centers, prepared, labels, distances)
        np.testing.assert_array_equal(labels, reference.assign(x, centers)[0])
    assert passed["avx512"] == passed[level] > n


@pytest.mark.parametrize("code", CODES)
def test_subsets_and_splits(code):
    x, centers = hard_case(np.random.default_rng(4), 0)
    x = np.concatenate([x] * 20)
    screen = Screen(x.mean(axis=0), code, n_threads=2)
    expected, _ = reference.assign(x, centers)
    subset = np.flatnonzero(np.arange(len(x)) % 3 == 1)
    labels = np.full(len(x), -1, np.int32)
    distances = np.full(len(x), -1.0)
    screen.assign(x, centers, screen.prepare(centers), labels, distances, subset=subset)
    np.testing.assert_array_equal(labels[subset], expected[subset])
    others = np.setdiff1d(np.arange(len(x)), subset)
    assert (labels[others] == -1).all()
    assert (distances[others] == -1).all()


def test_more_near_ties_than_the_screen_has_room_for():
    generator = np.random.default_rng(0)
    centers = np.repeat(generator.normal(size=(3, 16)), 300, axis=0)
    x = generator.normal(size=(50, 16)).astype(np.float32)
    expected, _ = reference.assign(x, centers)
    for code, noting in itertools.product(CODES, (False, True)):
        screen = Screen(x.mean(axis=0), code, n_threads=1)
        bounds = DistanceBounds.empty(len(x)) if noting else None
        labels, _ = assign(screen, x, centers, bounds=bounds, margin=0.5)
        np.testing.assert_array_equal(labels, expected)
    assert NEAR_CENTERS < 300


@pytest.mark.parametrize(("rate", "codes"), [(0.5, ["float32", "int8"]), (2, list(CODES))])
def test_bfloat16_is_chosen_from_only_where_it_is_no_slower(monkeypatch, rate, codes):
    """Intel's AVX-512 multiplies it at half of float32's rate, AMD's at twice that."""
    processor = SimpleNamespace(
        simd_level=lambda: "avx512",
        kmeans_has_fast=lambda code: True,
        machine_peak=lambda kind, seconds, n_threads: {"fp32": 1.0, "bf16": rate}[kind],
    )
    monkeypatch.setattr(kmeans_screen, "cpu", processor)
    kmeans_screen._fast_codes.cache_clear()
    try:
        assert kmeans_screen.codes_for("exact") == codes
        assert kmeans_screen.codes_for("bfloat16") == ["bfloat16"]
    finally:
        kmeans_screen._fast_codes.cache_clear()
