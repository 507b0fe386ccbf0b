"""Transforms of features equal plain formulas, in memory and on disk."""

import weakref

import numpy as np
import pytest
import torch

from ktfast.errors import ConfigError, DataError
from ktfast.features import covariance
from ktfast.features.store import FeatureStore
from ktfast.features.transform import FeatureTransform
from ktfast.features.writer import FeatureWriter
from support.tolerances import FLOAT32_PRODUCTS

CHOICES = ("none", "l2", "pca-l2", "pca-whiten-l2")


@pytest.fixture
def rows(rng):
    """Features with a decaying spectrum, float32 [300, 12]."""
    return (rng.normal(size=(300, 12)) * 0.6 ** np.arange(12) + 3).astype(np.float32)


def fitted(rows: np.ndarray, choice: str, dim: int = 4) -> FeatureTransform:
    return FeatureTransform.fit_blocks([torch.from_numpy(rows)], choice, dim=dim, seed=0)


def expected(rows: np.ndarray, choice: str, dim: int) -> np.ndarray:
    """The transform in float64, by an eigendecomposition."""
    values = rows.astype(np.float64)
    if choice.startswith("pca"):
        values = values - values.mean(axis=0)
        spectrum, axes = np.linalg.eigh(np.cov(values.T))
        values = values @ axes[:, ::-1][:, :dim]
        if "whiten" in choice:
            values /= np.sqrt(spectrum[::-1][:dim])
    if choice != "none":
        values = values / np.linalg.norm(values, axis=1, keepdims=True)
    return values


@pytest.mark.parametrize("choice", CHOICES)
def test_rows_are_transformed_by_the_formula(rows, choice):
    transform = fitted(rows, choice)
    ours, theirs = transform.apply(rows), expected(rows, choice, 4)
    assert ours.dtype == np.float32
    # PCA determines its axes up to their sign.
    signs = np.sign((ours * theirs).sum(axis=0))
    np.testing.assert_allclose(ours * signs, theirs, rtol=0, atol=FLOAT32_PRODUCTS)
    assert transform.dim == (4 if choice.startswith("pca") else None)


@pytest.mark.parametrize("choice", CHOICES)
def test_a_transform_comes_back(rows, choice, tmp_path):
    transform = fitted(rows, choice)
    transform.save(tmp_path / "transform.npz")
    again = FeatureTransform.load(tmp_path / "transform.npz")
    assert again.choice == choice
    np.testing.assert_array_equal(again.apply(rows), transform.apply(rows))


def test_a_damaged_transform_is_named(rows, tmp_path):
    path = tmp_path / "transform.npz"
    fitted(rows, "pca-l2").save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"transform\.npz cannot be read"):
        FeatureTransform.load(path)


def test_a_store_and_its_rows_give_the_same(rows, tmp_path):
    writer = FeatureWriter(tmp_path, dim=12, dtype="float32", shard_rows=70)
    writer.append(rows, np.arange(300))
    writer.close()
    store = FeatureStore.open(tmp_path)
    transform = FeatureTransform.fit(store, "pca-l2", dim=4, seed=0)
    direct = fitted(rows, "pca-l2").apply(rows)
    for budget in (1 << 30, 0):
        np.testing.assert_array_equal(transform.apply_store(store, tmp_path, budget), direct)


@pytest.mark.parametrize("sizes", [(300,), (1, 299), (100, 7, 193), (60,) * 5])
def test_a_pca_does_not_depend_on_the_blocks(rows, sizes):
    """The precision also survives float16 features and a mean far from zero."""
    blocks = torch.from_numpy(rows + 1000).split(list(sizes))
    ours = FeatureTransform.fit_blocks(blocks, "pca-whiten-l2", dim=4, seed=0)
    theirs = expected(rows, "pca-whiten-l2", 4)
    found = ours.apply(rows + 1000)
    signs = np.sign((found * theirs).sum(axis=0))
    # float32 holds values near 1000 to 6e-5.
    np.testing.assert_allclose(found * signs, theirs, rtol=0, atol=2e-3)
    halves = [block.half() for block in torch.from_numpy(rows).split(list(sizes))]
    half = FeatureTransform.fit_blocks(halves, "pca-l2", dim=4, seed=0)
    assert half.mean.dtype == half.projection.dtype == np.float32


def test_the_blocks_of_a_pca_are_not_kept():
    """At most one block is in memory, for any number of blocks."""
    alive = []

    def blocks():
        for seed in range(20):
            block = torch.randn(50, 8, generator=torch.Generator().manual_seed(seed))
            alive.append(weakref.ref(block))
            yield block
            del block
            assert sum(ref() is not None for ref in alive) <= 1

    FeatureTransform.fit_blocks(blocks(), "pca-l2", dim=3, seed=0)
    assert len(alive) == 20


def test_features_too_long_for_a_covariance_are_refused(monkeypatch):
    monkeypatch.setattr(covariance, "MOST_FEATURES", 11)
    with pytest.raises(ConfigError, match=r"features of 12 numbers are too long .* features\.pool"):
        FeatureTransform.fit_blocks([torch.ones(2, 12)], "pca-l2", dim=1, seed=0)


def test_rows_of_zeros_stay_zero():
    zeros = np.zeros((2, 12), np.float32)
    assert not FeatureTransform("l2").apply(zeros).any()
    half = torch.zeros(2, 12, dtype=torch.float16)
    assert FeatureTransform("l2").apply_tensor(half).dtype == torch.float32


def test_more_dimensions_than_there_are_is_an_error(rows):
    with pytest.raises(ConfigError, match=r"cluster\.pca 13 is more than the 12"):
        fitted(rows, "pca-l2", dim=13)
