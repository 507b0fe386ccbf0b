"""`partial_fit` agrees with scikit-learn's MiniBatchKMeans and keeps its state between batches."""

import pickle
import warnings

import numpy as np
import pytest
from sklearn.cluster import MiniBatchKMeans
from sklearn.metrics import adjusted_rand_score

from ktfast import KMeans
from ktfast.errors import InputError
from ktfast.reference import kmeans as reference
from support.kmeans_cases import assert_same, fewer, mixture
from support.optional import torch
from support.tolerances import FLOAT32_CENTERS, SUM_ORDER_FLOAT64


def batches(x, size=100):
    return np.split(x, range(size, len(x), size))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_agrees_with_scikit_learn_step_by_step(dtype, weighted, device):
    x = mixture(1000, dtype=dtype)
    start = x[:12]
    ours = KMeans(12, init=start, device=device)
    # Starved clusters are placed at random, so both sides switch the placement off.
    theirs = MiniBatchKMeans(12, init=start, n_init=1, reassignment_ratio=0)
    generator = np.random.default_rng(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ktfast.kmeans.minibatch._STARVED", 0)
        for batch in batches(x):
            weight = generator.random(len(batch)) if weighted else None
            ours.partial_fit(batch, sample_weight=weight)
            theirs.partial_fit(batch, sample_weight=weight)
            np.testing.assert_allclose(
                ours.cluster_centers_, theirs.cluster_centers_, rtol=100 * FLOAT32_CENTERS
            )
            np.testing.assert_allclose(ours.counts_, theirs._counts, rtol=FLOAT32_CENTERS)
            np.testing.assert_array_equal(ours.labels_, theirs.labels_)
            assert ours.inertia_ == pytest.approx(theirs.inertia_, rel=FLOAT32_CENTERS)
    assert ours.n_steps_ == theirs.n_steps_ == 10


def test_centres_are_the_means_of_all_they_were_given(device):
    x = mixture(fewer(2000, 600), dtype="float64")
    model = KMeans(12, random_state=0, device=device).partial_fit(x[:100])
    sums, counts = model.cluster_centers_ * model.counts_[:, None], model.counts_
    for batch in batches(x[100:]):
        labels = reference.assign(batch, model.cluster_centers_)[0]
        model.partial_fit(batch)
        step = reference.update(batch, labels, 12)
        sums, counts = sums + step[0], counts + step[1]
    np.testing.assert_allclose(model.counts_, counts)
    np.testing.assert_allclose(
        model.cluster_centers_, sums / counts[:, None], rtol=100 * SUM_ORDER_FLOAT64
    )


def test_many_batches_find_the_clusters_of_a_fit(device):
    x = mixture(fewer(6000, 2000), k=8)
    model = KMeans(8, random_state=0, device=device)
    for batch in batches(x, 200):
        model.partial_fit(batch)
    full = KMeans(8, random_state=0).fit(x)
    assert -model.score(x) < 1.1 * full.inertia_
    assert adjusted_rand_score(model.predict(x), full.labels_) > 0.8


def test_pickled_and_continued_bit_for_bit(device):
    x = mixture(fewer(1500, 450))
    straight = KMeans(20, random_state=0, device=device)
    resumed = KMeans(20, random_state=0, device=device)
    for batch in batches(x, 75):
        straight.partial_fit(batch)
        resumed = pickle.loads(pickle.dumps(resumed)).partial_fit(batch)
        np.testing.assert_array_equal(straight.cluster_centers_, resumed.cluster_centers_)
        np.testing.assert_array_equal(straight.counts_, resumed.counts_)
    state = (straight._batches.random_state, resumed._batches.random_state)
    assert state[0].random_sample() == state[1].random_sample()


@pytest.mark.parametrize("n_threads", [2, 5])
def test_threads_shards_and_torch_change_no_bit(n_threads):
    x = mixture(900)
    models = [KMeans(12, random_state=0, n_threads=n) for n in (1, n_threads, 1, 1)]
    for batch in batches(x):
        for model, same in zip(
            models, (batch, batch, [batch[:7], batch[7:]], torch.from_numpy(batch)), strict=True
        ):
            model.partial_fit(same)
    assert isinstance(models[3].cluster_centers_, torch.Tensor)
    for model in models[1:]:
        np.testing.assert_array_equal(model.cluster_centers_, models[0].cluster_centers_)
        np.testing.assert_array_equal(model.labels_, models[0].labels_)


def test_goes_on_from_a_fit(device):
    x = mixture(fewer(1000, 400))
    model = KMeans(12, random_state=0, device=device).fit(x)
    centers = model.cluster_centers_.astype(np.float64)
    np.testing.assert_array_equal(model.counts_, np.bincount(model.labels_, minlength=12))
    model.partial_fit(x[:50])
    labels = reference.assign(x[:50], centers)[0]
    sums, counts = reference.update(x[:50], labels, 12)
    total = np.bincount(KMeans(12, random_state=0).fit(x).labels_, minlength=12)
    expected = (centers * total[:, None] + sums) / (total + counts)[:, None]
    np.testing.assert_allclose(model.cluster_centers_, expected, rtol=FLOAT32_CENTERS)
    assert model.n_steps_ == 1
    assert_same(model.fit(x), KMeans(12, random_state=0).fit(x))
    assert not hasattr(model, "n_steps_")


@pytest.mark.emulated_gpu
def test_starved_clusters_are_placed_on_rows(device):
    x = mixture(400)
    far = np.full((1, 16), 1e4, np.float32)
    start = np.concatenate([x[:11], far])
    model = KMeans(12, init=start, random_state=0, device=device).partial_fit(x)
    assert model.counts_.min() > 0
    assert (model.cluster_centers_.max(axis=1) < 1e3).all()
    moved = model.cluster_centers_[11]
    assert np.abs(x - moved).max(axis=1).min() < 1e-4
    # If all rows are equal, there is no row to move a starved cluster to.
    constant = KMeans(3, random_state=0, device=device).partial_fit(np.ones((10, 2)))
    assert np.isfinite(constant.cluster_centers_).all()


@pytest.mark.emulated_gpu
def test_feature_names_and_numbers_are_checked(device):
    model = KMeans(3, random_state=0, device=device).partial_fit(mixture(50))
    with pytest.raises(ValueError, match="16 features"):
        model.partial_fit(np.zeros((5, 3)))
    with pytest.raises(InputError, match="16 features"):
        model.partial_fit(torch.zeros(5, 3))
    with pytest.raises(InputError, match="n_samples=2 should be >= n_clusters=3"):
        KMeans(3, device=device).partial_fit(np.zeros((2, 2)))
    with pytest.raises(InputError, match="NaN in row 1"):
        model.partial_fit(np.array([[0.0] * 16, [np.nan] * 16]))
    assert model.n_steps_ == 1
    model.partial_fit(np.ones((1, 16)))
    assert model.n_steps_ == 2
    with pytest.raises(InputError, match="there are 3 centers to go on from"):
        model.set_params(n_clusters=4).partial_fit(mixture(50))


def test_spherical_batches_stay_on_the_sphere(device):
    x = mixture(600)
    model = KMeans(12, spherical=True, random_state=0, device=device)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for batch in batches(x):
            model.partial_fit(batch)
    np.testing.assert_allclose(np.linalg.norm(model.cluster_centers_, axis=1), 1, rtol=1e-6)


def test_centres_that_were_set_between_batches_are_gone_on_from():
    x = mixture(300, dtype="float32")
    kmeans = KMeans(5, random_state=0).partial_fit(x)
    kmeans.cluster_centers_ = x[:5] + 100
    kmeans.partial_fit(x[:20] + 100)
    assert kmeans.counts_.sum() == 20
    assert (kmeans.cluster_centers_ > 50).all()
    steps = kmeans.n_steps_
    assert kmeans.partial_fit(x).n_steps_ == steps + 1


def test_centres_that_were_set_have_named_columns():
    kmeans = KMeans(3)
    kmeans.cluster_centers_ = mixture(3)
    assert kmeans.get_feature_names_out().tolist() == ["kmeans0", "kmeans1", "kmeans2"]
