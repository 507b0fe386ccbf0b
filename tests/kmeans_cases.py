"""Data and comparisons that the K-means tests share."""

import itertools

import numpy as np
import pytest
from sklearn.datasets import make_blobs
from tolerances import SUM_ORDER_FLOAT64

from ktfast.errors import InputError
from ktfast.kmeans_streaming import make_plan
from ktfast.reference import kmeans as reference


def mixture(n=3000, d=16, k=12, seed=0, dtype="float32"):
    """Overlapping clusters [n, d]."""
    x, _ = make_blobs(n, d, centers=k, cluster_std=2.5, random_state=seed)
    return x.astype(dtype)


def assert_consistent(model, x, weight=None):
    """Labels are those of the centres, and the inertia is theirs."""
    labels, distances = reference.assign(np.asarray(x, np.float64), model.cluster_centers_)
    np.testing.assert_array_equal(model.labels_, labels)
    np.testing.assert_array_equal(model.predict(x), labels)
    total = distances.sum() if weight is None else (distances * weight).sum()
    assert model.inertia_ == pytest.approx(total, rel=SUM_ORDER_FLOAT64)
    assert model.n_effective_clusters_ == len(np.unique(labels))
    inertia = [row["inertia"] for row in model.history_]
    assert all(b <= a for a, b in itertools.pairwise(inertia))
    assert model.inertia_ <= inertia[-1]
    assert len(inertia) == model.n_iter_


def assert_same(a, b):
    """Two fits gave the same bits."""
    np.testing.assert_array_equal(a.cluster_centers_, b.cluster_centers_)
    np.testing.assert_array_equal(a.labels_, b.labels_)
    assert a.inertia_ == b.inertia_
    assert a.n_iter_ == b.n_iter_


def least_budget(x, k):
    """The smallest memory budget with which rows x are clustered on a GPU."""
    with pytest.raises(InputError, match="at least") as refusal:
        make_plan(*x.shape, x[0].nbytes, k, 1)
    return int(str(refusal.value).split("at least ")[1].split(";")[0].replace(",", ""))
