"""Inputs that break other K-means: each is clustered, or refused by a sentence that names it."""

import numpy as np
import pytest
import torch
from kmeans_cases import assert_consistent, mixture
from sklearn.metrics import adjusted_rand_score

from ktfast import KMeans
from ktfast.errors import InputError


def fit(x, **options):
    return KMeans(12, random_state=3, **options).fit(x)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "NaN in row 57"),
        (np.inf, "infinity in row 57"),
        (-np.inf, "infinity in row 57"),
        (3e38, r"up to 3e\+38 in row 57"),
        (2e19, r"up to 2e\+19 in row 57"),
    ],
)
def test_bad_values_are_named(value, message):
    x = mixture(100)
    model = fit(x)
    x[57, 3] = value
    x = np.concatenate([x, x[:10]])
    for same in (x, [x[:30], x[30:]], torch.from_numpy(x)):
        with pytest.raises(InputError, match=message):
            fit(same)
        if not abs(value) < np.inf:
            with pytest.raises(InputError, match=message):
                model.predict(same)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_at_the_edge_are_clustered(dtype):
    x = mixture(dtype=dtype)
    for scale in (1e-30, 1e12):
        scaled = (x * scale).astype(dtype)
        model = KMeans(12, init=scaled[:12], tol=0).fit(scaled)
        assert (
            adjusted_rand_score(KMeans(12, init=x[:12], tol=0).fit(x).labels_, model.labels_) > 0.99
        )
        assert_consistent(model, scaled)
    x[::2, 0], x[0, 1] = -0.0, 1e-45
    assert_consistent(fit(x), x)
