"""Fit K-means to stored features and bring labels into the order of the images."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ktfast.data.feature_store import FeatureStore
from ktfast.data.source import PreparedSet
from ktfast.data.transform import FeatureTransform
from ktfast.errors import ConfigError
from ktfast.evaluation.clustering import normalized_mutual_information, purity
from ktfast.kmeans import KMeans
from ktfast.stages.artifacts import Run


def fit_clusters(
    run: Run, store: FeatureStore, folder: Path
) -> tuple[FeatureTransform, KMeans, npt.NDArray[np.float32]]:
    """Fit the transform and K-means; returns them and the transformed rows."""
    config, seed = run.config.cluster, run.config.seed
    if store.n < config.n_clusters:
        raise ConfigError(
            f"cluster.n_clusters {config.n_clusters} is more than the {store.n} rows of features"
        )
    transform = FeatureTransform.fit(store, config.normalize, dim=config.pca, seed=seed)
    budget = int(run.config.data.memory_budget_gb * 1e9)
    rows = transform.apply_store(store, folder / "scratch.npy", budget)
    kmeans = KMeans(
        config.n_clusters,
        init=config.init,
        n_init=config.n_init,
        max_iter=config.max_iter,
        tol=config.tol,
        random_state=seed,
        n_threads=run.config.threads or None,
    )
    kmeans.fit(rows)
    return transform, kmeans, rows


def align_labels(
    values: npt.NDArray[Any], store: FeatureStore, images: PreparedSet
) -> npt.NDArray[Any]:
    """Bring values in the order of a feature store into the order of the images.

    A bare .npy has no sample ids: its rows are then the images in order of their paths.
    """
    if np.array_equal(store.sample_ids, images.sample_ids):
        return values
    if store.n == images.n and np.array_equal(store.sample_ids, np.arange(store.n)):
        return values
    order = np.argsort(store.sample_ids)
    place = np.searchsorted(store.sample_ids[order], images.sample_ids)
    found = order[np.minimum(place, store.n - 1)]
    if not np.array_equal(store.sample_ids[found], images.sample_ids):
        missing = int((store.sample_ids[found] != images.sample_ids).sum())
        raise ConfigError(
            f"the features ({store.n} rows) lack {missing} of the {images.n} images of "
            "data.transfer; extract them from the same images, or give one row per image in "
            "order of the paths"
        )
    return values[found]


def clustering_quality(images: PreparedSet, labels: npt.NDArray[Any]) -> dict[str, float]:
    """NMI and purity against the true labels, where the images have some."""
    if not images.classes:
        return {}
    return {
        "nmi": normalized_mutual_information(images.labels, labels),
        "purity": purity(images.labels, labels),
    }
