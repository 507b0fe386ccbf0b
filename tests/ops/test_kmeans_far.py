"""A few large values: the labels stay exact, and the screen excludes as many centres as before."""

import numpy as np
import pytest

from ktfast import KMeans
from ktfast.kmeans.assignment.assigner import make_assigner
from ktfast.kmeans.data.rows import Rows
from ktfast.ops import kmeans_assign
from ktfast.ops.kmeans_assign import PreparedCenters
from ktfast.ops.kmeans_rows import DistanceBounds
from ktfast.ops.kmeans_screen import CODES, Screen
from ktfast.ops.middle import middle_of
from ktfast.reference import kmeans as reference
from support.tolerances import SUM_ORDER_FLOAT64


def groups(n=4000, d=48, k=200):
    generator = np.random.default_rng(0)
    centers = generator.normal(size=(k, d)) * 1.2
    x = centers[generator.integers(k, size=n)] + generator.normal(size=(n, d))
    return x.astype(np.float32), centers


def work(x, centers, code, *, guessed=False):
    """Candidates and comparisons per row."""
    screen = Screen(PreparedCenters(centers).mean, code, n_threads=1)
    labels, distances = np.zeros(len(x), np.int32), np.empty(len(x))
    prepared = screen.prepare(centers)
    if guessed:
        screen.assign(x, centers, prepared, labels, distances)
    return screen.assign(x, centers, prepared, labels, distances, guessed=guessed) / len(x)


@pytest.mark.parametrize("guessed", [False, True])
@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("far", [1e4, 1e7, 1e16, np.inf])
def test_far_centers_leave_the_screen_as_it_was(code, far, guessed):
    x, centers = groups(n=2000, k=450)
    clean = work(x, centers, code, guessed=guessed)
    centers[3, 7] = far
    centers[150] = -far
    assert work(x, centers, code, guessed=guessed) <= 1.1 * clean + 1


@pytest.mark.parametrize("far", [1e4, 1e7, 1e16])
def test_a_far_center_among_few_leaves_the_rows_decided(far):
    x, centers = groups(k=40)
    assert work(x, centers, "float32") < 0.1
    centers[3, 7] = far
    assert work(x, centers, "float32") < 0.1  # a row that is not decided counts 40 comparisons


def comparisons_of_a_fit(x, centers, monkeypatch, precision):
    counts = []
    assign = Screen.assign
    monkeypatch.setattr(
        Screen, "assign", lambda *a, **b: counts.append(assign(*a, **b)) or counts[-1]
    )
    rows = Rows([x], n_threads=1)
    mean = x.mean(axis=0, dtype=np.float64)
    assigner = make_assigner(rows, mean, len(centers), None, precision=precision)
    found = [array.copy() for array in assigner.assign(centers)]
    monkeypatch.undo()
    return counts[-1], found


@pytest.mark.parametrize("k", [40, 450])
@pytest.mark.parametrize("precision", ["exact", "float32", "int8"])
def test_one_large_value_leaves_the_screen_as_it_was(k, precision, monkeypatch):
    x, centers = groups(k=k)
    clean, _ = comparisons_of_a_fit(x, centers, monkeypatch, precision)
    x[1234, 5] = 1e7  # of 192,000 numbers; moves the mean by 2,500
    count, (labels, distances) = comparisons_of_a_fit(x, centers, monkeypatch, precision)
    assert count <= 1.1 * clean + 100 * k  # a block of few rows is compared with every centre
    expected, nearest = reference.assign(x, centers)
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_allclose(distances, nearest, rtol=SUM_ORDER_FLOAT64)


def far_case(seed):
    """Rows and centres, some of which are far; k passes the edges of panels and of few centres."""
    generator = np.random.default_rng(seed)
    k = int(generator.choice([2, 3, 8, 63, 64, 65, 67, 128, 129, 144, 200]))
    d = int(generator.choice([1, 5, 33, 700]))
    far = int(generator.integers(0, min(k, 20)))
    scale = 10.0 ** generator.choice([1.0, 2.0, 4.0, 7.0, 12.0, 15.5])
    x, centers = generator.normal(size=(70, d)), generator.normal(size=(k, d))
    chosen = generator.choice(k, far, replace=False)
    centers[chosen] *= scale * generator.uniform(0.5, 50, size=(far, 1))
    centers[chosen[: far // 2], :-1] = 0  # far in one direction
    if far:  # rows that are as far as a centre, near it, and half the way to it
        x[::9] = centers[chosen[0]] * generator.uniform(0.4, 1.1, size=(len(x[::9]), 1))
        x[4::9] = centers[chosen[-1]] + x[4::9]
    return x.astype(np.float32), centers


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("level", ["scalar", None])
def test_labels_and_bounds_hold_with_far_centers(code, level, monkeypatch):
    if level:
        monkeypatch.setenv("KTFAST_SIMD", level)
    for seed in range(20 if level else 60):
        x, centers = far_case(seed)
        expected, nearest = reference.assign(x, centers)
        screen = Screen(PreparedCenters(centers).mean, code, n_threads=1)
        prepared = screen.prepare(centers)
        generator = np.random.default_rng(seed)
        for guessed in (False, True):
            for bounds in (None, DistanceBounds.empty(len(x))):
                labels = generator.integers(0, len(centers), len(x)).astype(np.int32)
                distances = np.empty(len(x))
                options = {"guessed": guessed, "bounds": bounds, "margin": float(seed % 3)}
                screen.assign(x, centers, prepared, labels, distances, **options)
                assert labels.tolist() == expected.tolist(), seed
                np.testing.assert_allclose(distances, nearest, rtol=SUM_ORDER_FLOAT64)
                if bounds is not None:
                    check_bounds(bounds, x, centers)


def check_bounds(bounds, x, centers):
    exact = np.sqrt(((x.astype(np.float64)[:, None] - centers) ** 2).sum(axis=2))
    for row, distances in enumerate(exact):
        named = bounds.near[row][bounds.near[row] >= 0]
        assert (bounds.near_bounds[row][: len(named)] <= distances[named] * (1 + 1e-12)).all()
        rest = np.delete(distances, named)
        assert (bounds.rest_bound[row] <= rest * (1 + 1e-12)).all()


@pytest.mark.parametrize("far", [1e20, np.inf, np.nan])
def test_centers_beyond_the_range_of_the_screen(far):
    x, centers = groups(n=100)
    expected, _ = kmeans_assign(x, np.delete(centers, 199, axis=0))
    centers[199, 0] = far
    for precision in (*CODES, "exact"):
        labels, _ = kmeans_assign(x, centers, precision=precision)
        np.testing.assert_array_equal(labels, expected)
    centers[199] = np.where(np.arange(centers.shape[1]) == 0, 3e15, 0)
    x[7] = centers[199]
    assert kmeans_assign(x, centers)[0][7] == 199


def test_the_middle_is_the_mean_unless_large_values_moved_the_mean():
    x, _ = groups()
    x = x.astype(np.float64)
    mean = x.mean(axis=0)
    assert middle_of(x.__getitem__, len(x), mean) is mean
    skewed = np.random.default_rng(0).lognormal(sigma=2, size=(1000, 30))
    for plain in (skewed, skewed > 1, np.zeros((50, 3)), np.eye(7), np.empty((0, 3)), x[:1]):
        mean = plain.mean(axis=0) if len(plain) else np.zeros(3)
        assert middle_of(plain.__getitem__, len(plain), mean) is mean
    x[5, 1] = 1e9
    middle = middle_of(x.__getitem__, len(x), x.mean(axis=0))
    np.testing.assert_allclose(middle, np.median(x, axis=0), atol=0.5)


def test_a_fit_with_a_large_value_equals_the_fit_of_float32():
    x, centers = groups()
    x[1234, 5] = 1e7
    fits = [
        KMeans(200, init=centers, max_iter=4, n_threads=1, precision=precision).fit(x)
        for precision in ("exact", "float32", "int8")
    ]
    for other in fits[1:]:
        np.testing.assert_array_equal(other.labels_, fits[0].labels_)
        np.testing.assert_array_equal(other.cluster_centers_, fits[0].cluster_centers_)
