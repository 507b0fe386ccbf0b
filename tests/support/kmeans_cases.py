"""Data and comparisons that the K-means tests share."""

import itertools

import numpy as np
import pytest
from sklearn.datasets import make_blobs

from ktfast.errors import InputError
from ktfast.kmeans.data.memory_plan import make_plan
from ktfast.native import modules
from ktfast.reference import kmeans as reference
from support.tolerances import SUM_ORDER_FLOAT64


def mixture(n=3000, d=16, k=12, seed=0, dtype="float32"):
    """Draw rows [n, d] from overlapping clusters."""
    x, _ = make_blobs(n, d, centers=k, cluster_std=2.5, random_state=seed)
    return x.astype(dtype)


def fewer(full, few):
    """Choose the size of a test: `few` if the slow emulated GPU is used, else `full`."""
    return few if getattr(modules.cuda_module(), "is_emulated", False) else full


def hard_case(generator, seed):
    """Draw rows and centres of one of ten kinds that are hard for a screen."""
    n, k = (int(value) for value in generator.integers(1, (60, 150)))
    d = int(generator.integers(1, 90))
    x = generator.normal(size=(n, d))
    centers = generator.normal(size=(k, d))
    kind = seed % 10
    if kind == 1:  # near-ties
        centers = centers[:1] + 1e-6 * centers
    elif kind == 2:  # duplicates, exact ties
        x, centers = np.round(x), np.round(centers)
    elif kind == 3:  # outlying rows and centres
        x[::7] *= 1e3
        centers[::11] *= 1e4
    elif kind == 4:  # one large feature hides the others
        x[:, 0] *= 1e4
        centers[:, 0] *= 1e4
    elif kind == 5:  # rows that are centres
        centers[: min(n, k)] = x[: min(n, k)]
    elif kind == 6:  # far from the origin
        x, centers = x + 1e3, centers + 1e3
    elif kind == 7:  # most numbers are 0
        x[generator.random(x.shape) < 0.9] = 0
        centers[generator.random(centers.shape) < 0.9] = 0
    elif kind in (8, 9):
        scale = 10.0 ** generator.integers(-30, 17)
        x, centers = x * scale, centers * scale
    return x.astype(np.float32), centers.astype(np.float32).astype(np.float64)


def assert_consistent(model, x, weight=None):
    """Check that labels, inertia and history of a model belong to its centres."""
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
    """Check that two fits gave the same bits."""
    np.testing.assert_array_equal(a.cluster_centers_, b.cluster_centers_)
    np.testing.assert_array_equal(a.labels_, b.labels_)
    assert a.inertia_ == b.inertia_
    assert a.n_iter_ == b.n_iter_


def least_budget(x, k, row_bytes=None):
    """Find the smallest memory budget with which rows x are clustered on a GPU.

    `row_bytes` is the size of a streamed row; 0 means that the rows lie on the GPU. None means
    that all of x is streamed.
    """
    with pytest.raises(InputError, match="at least") as refusal:
        make_plan(*x.shape, x[0].nbytes if row_bytes is None else row_bytes, k, 1)
    return int(str(refusal.value).split("at least ")[1].split(";")[0].replace(",", ""))
