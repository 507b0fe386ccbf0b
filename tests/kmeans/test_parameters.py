"""Parameters are validated by scikit-learn's rules, and verbose prints scikit-learn's lines."""

import re

import numpy as np
import pytest
from sklearn.cluster import KMeans as SklearnKMeans
from sklearn.utils._param_validation import InvalidParameterError

import ktfast
from ktfast import KMeans
from ktfast.errors import InputError
from support.kmeans_cases import mixture
from support.optional import torch

BAD = {
    "n_clusters": [None, "2", 2.0, True, 0],
    "init": ["best", 3, None],
    "n_init": [None, 1.5, "2", 0, True, np.nan],
    "max_iter": [None, 10.0, "10", 0],
    "tol": [None, "0", -1, np.nan, [1e-4]],
    "verbose": [None, "yes", -1, 0.5],
    "random_state": ["0", 1.5, -1, np.random.default_rng(0)],
    "copy_x": [None, "no", 1],
    "algorithm": ["elkan", None],
    "spherical": ["yes", None, 1],
    "precision": ["double", None, 32],
    "n_threads": ["2", 0, 1.5, True],
    "device": ["gpu", 0, "cuda:x"],
    "memory_budget": ["1", 0, 1.5, True],
    "size_min": ["1", 0, 1.5, True],
    "size_max": ["1", 0, 1.5, True],
    "distributed": ["gloo", 2, True],
    "checkpoint": [3, True],
    "checkpoint_seconds": [None, "60", -1, np.nan, True],
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in BAD.items() for v in values])
def test_wrong_types_and_values_are_one_sentence(name, value):
    x, message = mixture(100), f"^{name} must be .*got {re.escape(repr(value))}$"
    for fit in (KMeans.fit, KMeans.partial_fit, KMeans.fit_predict):
        model = KMeans(2).set_params(**{name: value})
        with pytest.raises(InputError, match=message) as e:
            fit(model, x)
        assert isinstance(e.value, InvalidParameterError)
        assert isinstance(e.value, TypeError)
        assert isinstance(e.value, ValueError)


def test_every_parameter_is_checked_and_numpy_s_numbers_serve():
    assert BAD.keys() == KMeans().get_params().keys()
    model = KMeans(
        np.int64(2), n_init=np.int32(2), tol=np.float32(0), verbose=np.bool_(False),
        spherical=np.bool_(False), n_threads=np.int64(1), max_iter=np.int8(3),
    )  # fmt: skip
    model.fit(mixture(50))


def test_verbose_prints_scikit_learn_s_lines(capsys):
    x = mixture(2000).astype(np.float64)
    for tol in (0, 1e-2):
        KMeans(12, init=x[:12], tol=tol, verbose=1).fit(x)
        ours = capsys.readouterr().out
        SklearnKMeans(12, init=x[:12], n_init=1, tol=tol, verbose=1).fit(x)
        theirs = capsys.readouterr().out
        assert shape(ours) == shape(theirs)
        np.testing.assert_allclose(numbers(ours), numbers(theirs), rtol=1e-6)
    KMeans(12, init=x[:12]).fit(x)
    assert capsys.readouterr().out == ""


def shape(text):
    return re.sub(r"\d+\.?\d*(e[+-]\d+)?\.?", "#", text)


def numbers(text):
    return [float(n) for n in re.findall(r"\d+\.?\d*(?:e[+-]\d+)?", text)]


@pytest.mark.parametrize("tol", [1e-4, 1e-2, 1e-1])
def test_weights_leave_the_tolerance_as_scikit_learn_does(tol):
    x = mixture(2000, dtype="float64")
    weight = np.random.default_rng(0).random(len(x)) ** 8
    weight[np.abs(x).max(1) > np.median(np.abs(x).max(1))] *= 1e-3  # a much smaller variance
    ours = KMeans(12, init=x[:12], tol=tol).fit(x, sample_weight=weight)
    theirs = SklearnKMeans(12, init=x[:12], n_init=1, tol=tol).fit(x, sample_weight=weight)
    assert ours.n_iter_ == theirs.n_iter_
    np.testing.assert_array_equal(ours.labels_, theirs.labels_)


@pytest.mark.parametrize("scale", [2.0**-990, 2.0**-600, 1e-200, 2.0**70, 1e50, 2.0**450])
def test_float64_of_any_magnitude_is_clustered(scale):
    x = mixture(300, dtype="float64")
    x /= np.abs(x).max()
    weight = np.random.default_rng(0).random(300)
    expected = KMeans(8, random_state=0).fit(x, sample_weight=weight)
    exact = np.log2(scale) % 1 == 0
    for same in (x * scale, torch.from_numpy(x * scale), [x[:9] * scale, x[9:] * scale]):
        model = KMeans(8, random_state=0).fit(same, sample_weight=weight)
        np.testing.assert_array_equal(np.asarray(model.labels_), expected.labels_)
        np.testing.assert_array_equal(np.asarray(model.predict(same)), expected.labels_)
        centers = np.asarray(model.cluster_centers_) / scale
        distances = np.asarray(model.transform(same)) / scale
        batch = KMeans(8, random_state=0).partial_fit(same).partial_fit(same)
        peer = KMeans(8, random_state=0).partial_fit(x).partial_fit(x)
        np.testing.assert_allclose(
            np.asarray(batch.cluster_centers_) / scale, peer.cluster_centers_
        )
        if exact:
            np.testing.assert_array_equal(centers, expected.cluster_centers_)
            np.testing.assert_array_equal(distances, expected.transform(x))
            with np.errstate(under="ignore"):
                assert model.inertia_ == expected.inertia_ * scale * scale
    given = KMeans(8, init=x[:8] * scale).fit(x * scale)
    np.testing.assert_array_equal(given.labels_, KMeans(8, init=x[:8]).fit(x).labels_)


def test_float64_beyond_its_squares_is_refused():
    x = mixture(100, dtype="float64")
    model = KMeans(3, random_state=0).fit(x)
    x[7, 2] = 1e160
    for call in (model.predict, model.transform, model.score, KMeans(3).fit, KMeans(3).partial_fit):
        with pytest.raises(InputError, match=r"up to 1e\+160: squares of values above 1e150"):
            call(x)


def test_namespaces_show_public_names_only():
    assert dir(ktfast) == sorted([*ktfast.__all__, "faiss_compat"])
    assert dir(ktfast.kmeans) == ["HierarchicalKMeans", "KMeans", "faiss", "size_balance"]
    for module in (ktfast.ops, ktfast.faiss_compat, ktfast.kmeans.faiss):
        assert dir(module) == sorted(module.__all__)
        assert all(getattr(module, name) is not None for name in module.__all__)


@pytest.mark.parametrize("weight", [np.float32(2), np.int64(2), np.array(2.0)])
def test_one_weight_of_numpy_counts_for_all_rows(weight):
    x = mixture(100)
    fits = [KMeans(4, random_state=0).fit(x, sample_weight=w) for w in (weight, 2.0)]
    assert fits[0].inertia_ == fits[1].inertia_


@pytest.mark.parametrize(
    "weight", [np.ones(100, complex), [np.ones(40), np.ones(60)]], ids=["complex", "parts"]
)
def test_weights_of_another_kind_are_named(weight):
    with pytest.raises(InputError, match=r"sample_weight must be None, one number or numbers"):
        KMeans(4).fit(mixture(100), sample_weight=weight)


@pytest.mark.skipif(torch is None, reason="torch is not installed")
def test_a_device_of_torch_is_a_device():
    x = mixture(100)
    fits = [KMeans(4, random_state=0, device=d).fit(x) for d in (torch.device("cpu"), "cpu")]
    assert fits[0].inertia_ == fits[1].inertia_
