"""Boxes around groups of centres: passes over many centres skip groups, and never the nearest."""

import numpy as np
import pytest

from ktfast import KMeans
from ktfast.kmeans.assignment import boxes as module
from ktfast.kmeans.assignment.boxes import Boxes, make_boxes
from ktfast.kmeans.assignment.snapshots import epochs_that_fit
from ktfast.kmeans.data.rows import Rows
from ktfast.ops.kmeans_rows import DistanceBounds, Grouped
from ktfast.ops.kmeans_screen import CODES, Screen
from ktfast.reference import kmeans as reference
from support.kmeans_cases import hard_case
from support.simd_levels import LEVELS, available


@pytest.fixture(params=LEVELS)
def level(request, monkeypatch):
    monkeypatch.delenv("KTFAST_SIMD", raising=False)
    if request.param not in available():
        pytest.skip(f"this processor has no {request.param}")
    monkeypatch.setenv("KTFAST_SIMD", request.param)
    return request.param


def kinds_of_rows(n, d, seed=0):
    """Rows of 40 kinds on a decaying spectrum, so that groups of centres lie apart."""
    generator = np.random.default_rng(seed)
    spectrum = (1 + np.arange(d)) ** -0.7
    kinds = 4 * generator.normal(size=(40, d))
    x = kinds[generator.integers(40, size=n)] + generator.normal(size=(n, d))
    return (x * spectrum).astype(np.float32)


def screened(screen, x, centers, guess, **options):
    """Assign with boxes; returns labels and distances."""
    rows = Rows([x], n_threads=1)
    with np.errstate(all="ignore"):
        boxes = Boxes(rows, screen.mean.astype(np.float64))
    prepared = screen.prepare(centers, boxes.group(centers))
    labels, distances = guess.astype(np.int32), np.empty(len(x))
    screen.assign(
        x,
        centers,
        prepared,
        labels,
        distances,
        subset=boxes.order(labels, None),
        places=boxes.places,
        guessed=True,
        **options,
    )
    return labels, distances


@pytest.mark.parametrize("code", CODES)
def test_hard_cases_with_boxes(level, code):
    generator = np.random.default_rng(CODES.index(code))
    for seed in range(20 if level == "scalar" else 60):
        x, centers = hard_case(generator, seed)
        screen = Screen(x.mean(axis=0), code, n_threads=1)
        expected, _ = reference.assign(x, centers)
        guess = generator.integers(0, len(centers), len(x))
        labels, _ = screened(screen, x, centers, guess)
        assert labels.tolist() == expected.tolist(), (seed, code)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_many_groups_and_far_centers(level, code, offset):
    x = kinds_of_rows(700, 24) + np.float32(offset)
    centers = kinds_of_rows(400, 24, seed=1).astype(np.float64) + offset
    centers[7] = 1e6  # a far centre, which has a panel of its own
    centers[200] = centers[30]  # a tie
    screen = Screen(x.mean(axis=0), code, n_threads=1)
    expected, nearest = reference.assign(x, centers)
    for guess in (expected, np.full(len(x), 7), np.arange(len(x)) % len(centers)):
        labels, distances = screened(screen, x, centers, guess)
        np.testing.assert_array_equal(labels, expected)
        np.testing.assert_allclose(distances, nearest, rtol=1e-12)


@pytest.mark.parametrize("code", CODES)
def test_bounds_recorded_with_boxes_are_bounds(code):
    x = kinds_of_rows(300, 24)
    centers = kinds_of_rows(300, 24, seed=1).astype(np.float64)
    bounds = DistanceBounds.empty(len(x))
    screen = Screen(x.mean(axis=0), code, n_threads=1)
    screened(screen, x, centers, np.zeros(len(x)), bounds=bounds, margin=0.3)
    exact = np.sqrt(((x.astype(np.float64)[:, None] - centers) ** 2).sum(axis=2))
    for row, distances in enumerate(exact):
        named = bounds.near[row][bounds.near[row] >= 0]
        assert (bounds.near_bounds[row][: len(named)] <= distances[named] * (1 + 1e-12)).all()
        rest = np.setdiff1d(np.arange(len(centers)), named)
        assert bounds.rest_bound[row] <= distances[rest].min() * (1 + 1e-12)
    assert (bounds.near >= 0).sum() > len(x)


@pytest.mark.parametrize("offset", [0.0, 1e4, 1e7])
def test_the_distance_of_places_is_at_most_the_distance(offset):
    x = kinds_of_rows(200, 700).astype(np.float64) + offset
    boxes = Boxes(Rows([x], n_threads=1), x.mean(axis=0))
    places = boxes.places.astype(np.float64)
    between = np.sqrt(((places[:, None] - places) ** 2).sum(axis=2))
    exact = np.sqrt(((x[:, None] - x) ** 2).sum(axis=2))
    length = np.sqrt(((x - x.mean(axis=0)) ** 2).sum(axis=1))
    slack = 2e-6 * (length[:, None] + length)  # csrc: place_error
    assert (between <= exact + slack).all()
    assert (between > 0.5 * exact)[exact > 0].mean() > 0.5  # the bound is of use


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_fit_with_boxes_has_the_bits_of_one_without(monkeypatch):
    x = kinds_of_rows(4000, 24)
    fits = []
    for least in (1 << 30, 64):
        monkeypatch.setattr(module, "_LEAST_CLUSTERS", least)
        fits.append(KMeans(300, init="random", random_state=0, max_iter=12, tol=0).fit(x))
    np.testing.assert_array_equal(fits[0].labels_, fits[1].labels_)
    np.testing.assert_array_equal(fits[0].cluster_centers_, fits[1].cluster_centers_)
    assert fits[0].inertia_ == fits[1].inertia_


def test_a_row_reaches_a_falling_share_of_more_groups():
    x = kinds_of_rows(8000, 24)
    rows = Rows([x], n_threads=1)
    shares = []
    for k in (256, 1024, 4096):
        centers = x[:k].astype(np.float64)
        boxes = Boxes(rows, x.mean(axis=0, dtype=np.float64))
        shares.append(boxes.reached(rows, centers, boxes.group(centers)))
    assert shares[0] > 1.5 * shares[1] > 1.5**2 * shares[2]


def test_no_boxes_where_they_skip_nothing(monkeypatch):
    monkeypatch.setattr(module, "_LEAST_CLUSTERS", 64)
    x = np.random.default_rng(0).normal(size=(2000, 64)).astype(np.float32)  # no structure
    rows, mean = Rows([x], n_threads=1), x.mean(axis=0, dtype=np.float64)
    assert make_boxes(rows, mean, x[:500].astype(np.float64)) is None
    few = kinds_of_rows(2000, 24)
    rows, mean = Rows([few], n_threads=1), few.mean(axis=0, dtype=np.float64)
    assert make_boxes(rows, mean, few[:500].astype(np.float64)) is not None


def test_an_order_that_repeats_a_center_is_refused():
    centers = kinds_of_rows(70, 24).astype(np.float64)
    grouped = Grouped(np.zeros(70, np.int32), np.zeros((70, 9), np.float32))
    with pytest.raises(ValueError, match="order must hold every number"):
        Screen(np.zeros(24, np.float32), "float32", n_threads=1).prepare(centers, grouped)


def test_many_clusters_leave_memory_for_two_snapshots():
    assert epochs_that_fit(1_000_000, 65_536, 768) == 2
    assert epochs_that_fit(200_000, 65_536, 768) == 0
    assert epochs_that_fit(100_000, 2_000, 256) == 8
