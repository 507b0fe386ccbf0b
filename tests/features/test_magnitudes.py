"""Features of any magnitude give the groups and accuracies that they give at scale one."""

import numpy as np
import pytest
import torch

from ktfast import KMeans
from ktfast.errors import DataError, InputError
from ktfast.evaluation.knn import knn_accuracy
from ktfast.evaluation.linear import linear_probe
from ktfast.features.store import FeatureStore
from ktfast.features.transform import FeatureTransform
from ktfast.ops.unit_rows import unit_rows

GROUPS = np.repeat(np.arange(4), 50)
SCALES = {
    "float32": (2.0**-120, 1e-30, 2.0**66, 1e20, 1e37),
    "float64": (1e-300, 1e-160, 1e-50, 2.0**-80, 1e20, 1e50, 1e160, 1e300),
}
CASES = [(dtype, scale) for dtype, scales in SCALES.items() for scale in scales]


@pytest.fixture
def rows(rng):
    """Four clear groups, float64 [200, 12]."""
    centers = rng.normal(size=(4, 12))
    return centers[GROUPS] + rng.normal(size=(200, 12)) * 0.05


def labels_of(x, tmp_path, choice):
    """Cluster a feature file as the stage cluster does."""
    np.save(tmp_path / "x.npy", x)
    store = FeatureStore.open(tmp_path / "x.npy")
    fitted = FeatureTransform.fit(store, choice, dim=3, seed=0)
    fitted.save(tmp_path / "transform.npz")
    transform = FeatureTransform.load(tmp_path / "transform.npz")
    found = transform.apply_store(store, tmp_path, 1 << 30)
    np.testing.assert_array_equal(found, fitted.apply(x))
    return KMeans(4, init="k-means++", n_init=5, random_state=0).fit(found).labels_


@pytest.mark.parametrize("choice", ["none", "l2", "pca-l2", "pca-whiten-l2"])
@pytest.mark.parametrize(("dtype", "scale"), CASES)
def test_the_groups_are_those_at_scale_one(dtype, scale, choice, rows, tmp_path):
    if choice == "none" and dtype == "float32" and scale > 1e18:
        with pytest.raises(InputError, match="too large to cluster"):
            labels_of((rows * scale).astype(dtype), tmp_path, choice)
        return
    expected = labels_of(rows.astype(dtype), tmp_path, choice)
    np.testing.assert_array_equal(expected, expected[::50].repeat(50))
    found = labels_of((rows * scale).astype(dtype), tmp_path, choice)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("dtype", "scale"), CASES)
def test_the_probes_are_those_at_scale_one(dtype, scale, rows):
    x = (rows * scale).astype(dtype)
    assert knn_accuracy(x, GROUPS, x, GROUPS, k=5).top1 == 1
    if dtype == "float32":  # the linear probe takes float32 and float16
        assert linear_probe(x, GROUPS, x, GROUPS, n_classes=4, epochs=20).top1 == 1


def test_ordinary_rows_keep_their_bits_and_zeros_stay_zero(rng):
    rows = torch.from_numpy(rng.normal(size=(50, 7)).astype(np.float32))
    rows[3] = 0
    expected = torch.nn.functional.normalize(rows, dim=1)
    assert torch.equal(unit_rows(rows), expected)
    rows[7] *= 2.0**100
    rows[9] *= 2.0**-100
    assert torch.equal(unit_rows(rows), expected)


@pytest.mark.parametrize("choice", ["none", "pca-l2"])
@pytest.mark.parametrize("factor", [1e-150, 1e150])
def test_rows_that_float32_cannot_hold_together_are_refused(factor, choice, rows, tmp_path):
    rows[::2] *= factor
    with pytest.raises(DataError, match="float32 cannot hold together"):
        labels_of(rows, tmp_path, choice)
    expected = labels_of(rows[::2] / factor, tmp_path, "l2")
    np.testing.assert_array_equal(labels_of(rows, tmp_path, "l2")[::2], expected)
