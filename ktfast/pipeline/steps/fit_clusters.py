"""Fit K-means to stored features and bring labels into the order of the images."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ktfast.config import Config
from ktfast.errors import ConfigError
from ktfast.evaluation.clustering import normalized_mutual_information, purity
from ktfast.features.store import FeatureStore
from ktfast.features.transform import FeatureTransform
from ktfast.images.source import PreparedSet
from ktfast.kmeans.estimator import KMeans
from ktfast.native.modules import cuda
from ktfast.pipeline.environment import resolve_device
from ktfast.pipeline.run_folder import RunFolder

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Clusters:
    """Clusters of one store of features, and where they put the images of another.

    Attributes
    ----------
    labels, distances : int [n] and squared distance float32 [n] to the centre, in the order of
        the images that were labelled.
    """

    transform: FeatureTransform
    kmeans: KMeans
    labels: npt.NDArray[Any]
    distances: npt.NDArray[np.float32]


def cluster_images(
    run: RunFolder, to_fit: Path, to_label: Path, images: PreparedSet, scratch: Path
) -> Clusters:
    """Fit K-means to the features in `to_fit`; label `images` by those in `to_label`."""
    config, seed = run.config.cluster, run.config.seed
    store = FeatureStore.open(to_fit)
    if store.n < config.n_clusters:
        raise ConfigError(
            f"cluster.n_clusters {config.n_clusters} is more than the {store.n} rows of features"
        )
    transform = _transform(run, store)
    rows = _rows(run, store, transform, scratch)
    kmeans = KMeans(
        config.n_clusters,
        init=config.init,
        n_init=config.n_init,
        max_iter=config.max_iter,
        tol=config.tol,
        random_state=seed,
        n_threads=run.config.threads or None,
        device=_device(run.config),
        memory_budget=int(config.memory_budget_gb * 1e9) or None,
    )
    kmeans.fit(rows)
    if to_label != to_fit:
        del rows
        store = FeatureStore.open(to_label)
        rows = _rows(run, store, transform, scratch)
    labels, distances = kmeans.assign(rows)
    return Clusters(
        transform,
        kmeans,
        align_labels(labels, store, images),
        align_labels(distances.astype(np.float32), store, images),
    )


def _device(config: Config) -> str | None:
    """Where K-means works: on the run's GPU if its kernels can, else where the features are."""
    chosen = resolve_device(config.device)
    if not chosen.startswith("cuda"):
        return None
    try:
        cuda(int(chosen.partition(":")[2] or 0))
    except RuntimeError as error:
        _logger.warning("k-means runs on the CPU: %s", error)
        return None
    return chosen


def _transform(run: RunFolder, store: FeatureStore) -> FeatureTransform:
    """What the features to cluster need, or what was done to them when they were stored."""
    config = run.config.cluster
    if "normalize" not in store.meta:
        return FeatureTransform.fit(store, config.normalize, dim=config.pca, seed=run.config.seed)
    stored = [store.meta["normalize"], store.meta["pca"]]
    wanted = [config.normalize, config.pca if config.normalize.startswith("pca") else None]
    if stored != wanted:
        raise ConfigError(
            f"the features in {store.path} were stored for cluster.normalize and cluster.pca "
            f"{stored}, which are now {wanted}; run `ktfast features --redo features`"
        )
    return FeatureTransform.load(store.path / "transform.npz")


def _rows(
    run: RunFolder, store: FeatureStore, transform: FeatureTransform, scratch: Path
) -> list[npt.NDArray[Any]]:
    """The rows to cluster, in one or several matrices."""
    if "normalize" in store.meta:
        return store.shards
    budget = int(run.config.data.memory_budget_gb * 1e9)
    return [transform.apply_store(store, scratch, budget)]


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
    if not (images.labels >= 0).any():
        return {}
    return {
        "nmi": normalized_mutual_information(images.labels, labels),
        "purity": purity(images.labels, labels),
    }
