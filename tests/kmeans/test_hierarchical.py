"""Hierarchical K-means: scikit-learn's rules, exact labels, same bits, shares, balanced samples."""

import pickle
import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import parametrize_with_checks

from ktfast import HierarchicalKMeans, KMeans
from ktfast.errors import InputError
from ktfast.kmeans import size_balance
from ktfast.kmeans.hierarchical.division import shares_of
from ktfast.kmeans.hierarchical.resampling import closest_rows
from ktfast.kmeans.hierarchical.sampling import allotted
from ktfast.reference import kmeans as reference
from support.kmeans_cases import mixture
from support.optional import torch
from support.tolerances import SUM_ORDER_FLOAT64

LEVELS = (60, 12, 3)


@parametrize_with_checks([HierarchicalKMeans(n_clusters=3, n_resamples=1)])
def test_scikit_learn_s_rules(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def x():
    return mixture(900, 8)


def fit(x, *, n_clusters=LEVELS, n_groups=6, weight=None, **options):
    options = {"n_resamples": 2, "max_iter": 20} | options
    model = HierarchicalKMeans(n_clusters, n_groups=n_groups, random_state=3, **options)
    return model.fit(x, sample_weight=weight)


@pytest.fixture(scope="module")
def model(x):
    return fit(x)


def assert_same(a, b):
    """Check that two fits gave the same bits."""
    assert a.inertia_ == b.inertia_
    for one, other in zip(a.levels_, b.levels_, strict=True):
        np.testing.assert_array_equal(np.asarray(one.centers), np.asarray(other.centers))
        np.testing.assert_array_equal(np.asarray(one.labels), np.asarray(other.labels))
        np.testing.assert_array_equal(one.counts, other.counts)


def assert_exact(model, x, weight=None):
    """Check labels, inertia and sizes of all levels against an exhaustive comparison."""
    points, sizes = np.asarray(x, np.float64), np.ones(len(x)) if weight is None else weight
    for number, level in enumerate(model.levels_):
        labels, distances = reference.assign(points, level.centers)
        np.testing.assert_array_equal(level.labels, labels)
        if number == 0:
            np.testing.assert_array_equal(model.labels_, labels)
            np.testing.assert_array_equal(model.predict(x), labels)
            np.testing.assert_allclose(model.distances_, distances, rtol=SUM_ORDER_FLOAT64)
            total = (distances * sizes).sum()
            assert model.inertia_ == pytest.approx(total, rel=SUM_ORDER_FLOAT64)
        sizes = np.bincount(labels, weights=sizes, minlength=len(level.centers))
        np.testing.assert_array_equal(level.counts, sizes)
        points = np.asarray(level.centers, np.float64)


@pytest.mark.parametrize("options", [{}, {"n_groups": 1}, {"n_resamples": (1, 2, 2)}])
def test_labels_of_all_levels_are_exact(x, options):
    model = fit(x, **options)
    assert_exact(model, x)
    assert [len(level.centers) for level in model.levels_] == list(LEVELS)
    assert model.n_effective_clusters_ == 60
    assert model.cluster_centers_.dtype == np.float32


def test_labels_of_a_level_follow_the_hierarchy(model, x):
    expected = model.labels_
    for number, level in enumerate(model.levels_):
        expected = expected if number == 0 else level.labels[expected]
        np.testing.assert_array_equal(model.labels_of(number), expected)
        np.testing.assert_array_equal(model.predict(x, level=number), expected)
    with pytest.raises(InputError, match="level must be an integer from 0 to 2, got 3"):
        model.labels_of(3)
    labels, distances = model.assign(x)
    np.testing.assert_array_equal(labels, model.labels_)
    np.testing.assert_array_equal(distances, model.distances_)
    assert model.score(x) == -model.inertia_


def test_threads_shards_and_containers_do_not_change_the_bits(model, x, tmp_path):
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for given, threads in ((x, 3), ([x[:100], x[100:]], 2), (mapped, 1), (x[:, ::-1][:, ::-1], 1)):
        assert_same(fit(given, n_threads=threads), model)
    tensor = fit(torch.from_numpy(x))
    assert_same(tensor, model)
    assert tensor.labels_.dtype == torch.int64
    assert tensor.levels_[1].centers.dtype == torch.float32
    assert_same(pickle.loads(pickle.dumps(model)), model)
    assert clone(model).get_params() == model.get_params()


def test_a_device_gives_the_bits_of_the_cpu(x, device):
    options = {"n_clusters": (8, 2), "n_groups": 2, "n_resamples": (1, 1)}
    assert_same(fit(x[:120], device=device, **options), fit(x[:120], **options))


def test_one_group_without_resampling_is_plain_k_means(x):
    model = fit(x, n_clusters=(30,), n_groups=1)
    seed = int(np.random.RandomState(3).randint(2**31 - 1))
    plain = KMeans(30, random_state=np.random.RandomState(seed), max_iter=20).fit(x)
    np.testing.assert_array_equal(model.cluster_centers_, plain.cluster_centers_)
    np.testing.assert_array_equal(model.labels_, plain.labels_)
    assert model.inertia_ == plain.inertia_


def test_groups_come_close_to_one_k_means(x):
    # Measured: 1.01 times the inertia of one K-means.
    assert fit(x).inertia_ < 1.05 * fit(x, n_groups=1).inertia_


def test_weights_count_as_repetitions(x):
    weight = np.random.default_rng(1).integers(0, 4, size=len(x)).astype(np.float64)
    options = {"n_clusters": (20, 4), "n_groups": 3, "n_resamples": 1}
    model = fit(x, weight=weight, **options)
    assert_exact(model, x, weight)
    expected = fit(np.repeat(x, weight.astype(int), axis=0), **options)
    np.testing.assert_array_equal(np.repeat(model.labels_, weight.astype(int)), expected.labels_)
    with pytest.raises(InputError, match="5 rows have a positive sample_weight"):
        fit(x, weight=(np.arange(len(x)) < 5).astype(float))


def test_spherical_clusters_the_directions(x):
    scaled = x.astype(np.float64) / np.sqrt((x.astype(np.float64) ** 2).sum(1, keepdims=True))
    model = fit(x, spherical=True)
    assert_exact(model, scaled.astype(np.float32))
    np.testing.assert_allclose((model.cluster_centers_**2).sum(1), 1, rtol=1e-6)


def test_extreme_magnitudes_and_duplicates(x, model):
    huge = fit(x.astype(np.float64) * 2.0**400)
    np.testing.assert_array_equal(huge.labels_, fit(x.astype(np.float64)).labels_)
    few = np.repeat(np.eye(5), 20, axis=0)
    with pytest.warns(ConvergenceWarning, match="Only 5 of the n_clusters=20 finest clusters"):
        same = fit(few, n_clusters=(20, 3), n_groups=4)
    assert same.n_effective_clusters_ == 5
    assert same.inertia_ == 0
    assert len(same.sample(50)) == 50


def test_resampling_spreads_the_clusters_over_sparse_regions():
    generator = np.random.default_rng(0)
    dense = generator.normal(size=(1800, 2))
    sparse = generator.uniform(-20, 20, size=(200, 2))
    x = np.concatenate([dense, sparse]).astype(np.float32)

    def centers_in_sparse_region(steps):
        model = fit(x, n_clusters=(100,), n_groups=1, n_resamples=(steps,))
        return int((np.abs(model.cluster_centers_).max(axis=1) > 4).sum())

    assert centers_in_sparse_region(5) > centers_in_sparse_region(0)


def test_closest_rows_by_hand():
    labels, distances = np.array([1, 0, 1, 1, 0]), np.array([3.0, 1, 2, 2, 5])
    chosen, weight = closest_rows(labels, distances, None, 2)
    np.testing.assert_array_equal(chosen, [1, 2, 3, 4])
    assert weight is None
    # Of cluster 1, row 2 comes before row 3 and has weight 1.5 of 2.
    chosen, weight = closest_rows(labels, distances, np.array([1, 0.5, 1.5, 1, 4]), 2)
    np.testing.assert_array_equal(chosen, [1, 2, 3, 4])
    np.testing.assert_array_equal(weight, [0.5, 1.5, 0.5, 1.5])


def test_shares_follow_the_weights():
    assert shares_of([60.0, 30, 10], [60, 30, 10], 10) == [6, 3, 1]
    assert shares_of([98.0, 1, 1], [98, 1, 1], 10) == [8, 1, 1]
    assert shares_of([90.0, 10], [3, 10], 10) == [3, 7]  # no group gets more clusters than rows
    assert shares_of([1.0, 1], [2, 2], 3) == [2, 1]


def test_a_limit_divides_a_sample_equally():
    random = np.random.RandomState(0)
    np.testing.assert_array_equal(allotted(np.array([100, 3, 50]), 43, random), [20, 3, 20])
    wanted = allotted(np.array([100, 3, 50]), 44, random)
    assert sorted(wanted) == [3, 20, 21]
    np.testing.assert_array_equal(allotted(np.array([2, 0, 1]), 3, random), [2, 0, 1])


@pytest.mark.parametrize("closest", [False, True])
def test_samples_are_balanced_and_repeatable(model, x, closest):
    rows = model.sample(90, closest=closest)
    assert len(np.unique(rows)) == 90
    np.testing.assert_array_equal(rows, model.sample(90, closest=closest))
    for level in (2, 1, 0):
        labels = model.labels_of(level)
        sizes = np.bincount(labels, minlength=LEVELS[level])
        drawn = np.bincount(labels[rows], minlength=LEVELS[level])
        parents = model.levels_[level + 1].labels if level < 2 else np.zeros(LEVELS[2], int)
        for parent in np.unique(parents):
            below = parents == parent
            most = drawn[below].max()
            # A cluster that gives fewer rows than its neighbours, except for one, gives all.
            assert (drawn[below] >= np.minimum(sizes[below], most - 1)).all()
    if closest:
        for cluster in np.unique(model.labels_[rows]):
            members = np.flatnonzero(model.labels_ == cluster)
            taken = np.isin(members, rows)
            assert model.distances_[members[taken]].max() <= min(
                model.distances_[members[~taken]], default=np.inf
            )
    else:
        assert (rows != model.sample(90, random_state=1)).any()
    np.testing.assert_array_equal(model.sample(len(x), closest=closest), np.arange(len(x)))


@pytest.mark.parametrize("n", [0, 901, 2.5, True])
def test_samples_of_impossible_size_are_refused(model, n):
    with pytest.raises(InputError, match=r"n must be an integer from 1 .*\(900\), got"):
        model.sample(n)


def test_size_balance_by_hand():
    balance = size_balance([2, 2, 0, 4])
    assert balance.entropy == pytest.approx(1.5 * np.log(2) / np.log(4))
    assert balance[1:] == (1, 0, pytest.approx(0.3), 2, pytest.approx(3.7), 4)
    assert size_balance([7]).entropy == 1
    assert size_balance(np.full(9, 3)).entropy == pytest.approx(1)
    for wrong in ([0, 0], [-1, 2], [[1]], []):
        with pytest.raises(InputError, match="counts must be one-dimensional"):
            size_balance(wrong)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_clusters": 0}, "n_clusters must be an integer of at least 1, or"),
        ({"n_clusters": (5, 5)}, "in descending order"),
        ({"n_clusters": ()}, "in descending order"),
        ({"n_clusters": (30, 2.5)}, "in descending order"),
        ({"n_clusters": 901, "n_groups": 1}, "n_samples=900 should be >= n_clusters=901"),
        ({"n_groups": 61}, r"from 1 to the number of clusters of the finest level \(60\), got 61"),
        ({"n_groups": "many"}, 'n_groups must be "auto" or'),
        ({"n_resamples": -1}, "n_resamples must be an integer of at least 0 or a list"),
        ({"n_resamples": (1, 2)}, r"one such integer per level \(3\)"),
        ({"resample_size": 1}, 'resample_size must be "auto", an integer of at least 2'),
        ({"init": np.zeros((60, 8))}, "init must be one of"),
        ({"max_iter": 0}, "max_iter must be"),
        ({"device": "tpu"}, "device must be"),
        ({"n_threads": 0}, "n_threads must be"),
    ],
)
def test_parameters_are_checked(x, options, message):
    with pytest.raises(ValueError, match=message):
        fit(x, **options)


def test_a_failed_fit_leaves_the_estimator_as_it_was(model, x):
    before = dict(vars(model))
    bad = x.copy()
    bad[17, 3] = np.nan
    for weight in (None, np.where(np.arange(len(x)) == 17, 0.0, 1.0)):
        with pytest.raises(ValueError, match="row 17"):
            model.fit(bad, sample_weight=weight)
    assert vars(model).keys() == before.keys()
    assert all(vars(model)[name] is before[name] for name in before)


def test_automatic_levels_and_groups():
    from ktfast.kmeans.hierarchical.plan import plan_of

    plan = plan_of(HierarchicalKMeans(100_000))
    assert plan.n_clusters == (100_000, 317)
    assert plan.n_groups == 317
    assert plan.n_resamples == (0, 10)
    assert plan_of(HierarchicalKMeans(9_999)).n_groups == 1
    assert plan_of(HierarchicalKMeans(1)).n_clusters == (1,)


def test_fits_in_threads_leave_the_threads_of_blas_as_they_were(x):
    from threadpoolctl import threadpool_info

    before = [pool["num_threads"] for pool in threadpool_info()]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(x, n_threads=4)
    assert [pool["num_threads"] for pool in threadpool_info()] == before


def test_centres_that_were_set_are_one_level():
    x = mixture(300)
    fitted = HierarchicalKMeans((20, 4), random_state=0).fit(x)
    given = HierarchicalKMeans((20, 4))
    given.cluster_centers_ = fitted.cluster_centers_
    assert given.predict(x).tolist() == fitted.predict(x).tolist()
    with pytest.raises(InputError, match="from 0 to 0"):
        given.predict(x, level=1)
