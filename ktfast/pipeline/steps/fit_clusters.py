"""Fit K-means to stored features and label images, for the stages cluster and evaluate.

The stage cluster uses the run's features. The stage evaluate uses those of an untrained network.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ktfast.config import Config
from ktfast.errors import ConfigError
from ktfast.evaluation.clustering import normalized_mutual_information, purity
from ktfast.features.matching import SelectedRows, align, match_rows
from ktfast.features.store import FeatureStore
from ktfast.features.transform import BLOCK_ROWS, FeatureTransform
from ktfast.images.source import PreparedSet
from ktfast.native.modules import cuda
from ktfast.pipeline.environment import resolve_device
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.steps.image_sets import open_set
from ktfast.pipeline.steps.shared_work import call_helpers

if TYPE_CHECKING:
    from ktfast.kmeans import KMeans

CHECKPOINT = "checkpoint-kmeans.npz"
"""Name of the checkpoint of a fit in the folder of a stage."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Clusters:
    """Clusters of one feature store, and the labels of the images of another feature store.

    Attributes
    ----------
    transform : FeatureTransform
        Transform of the features before clustering.
    kmeans : KMeans
        The fitted estimator.
    labels : array, int [n]
        Cluster of each image, in the order of the labelled images.
    distances : array, float32 [n]
        Squared distance of each image's features to the centre of the image's cluster.
    """

    transform: FeatureTransform
    kmeans: "KMeans"
    labels: npt.NDArray[Any]
    distances: npt.NDArray[np.float32]


def cluster_images(
    run: RunFolder,
    to_fit: Path,
    to_label: Path,
    images: PreparedSet,
    scratch: Path,
    *,
    seed: int | None = None,
) -> Clusters:
    """Fit K-means to one feature store, and label images by another feature store.

    Parameters
    ----------
    run : RunFolder
        The run.
    to_fit : Path
        Feature store that K-means is fitted to.
    to_label : Path
        Feature store of the images that are labelled. It may be `to_fit`.
    images : PreparedSet
        The images that are labelled.
    scratch : Path
        Folder for temporary files, and for the checkpoint from which an interrupted fit continues.
    seed : int, optional
        Seed of K-means. None: the seed of the run.

    Returns
    -------
    clusters : Clusters
        Centres and labels.

    Raises
    ------
    ConfigError
        There are fewer features than clusters.
    DataError
        The features do not belong to the images, or their order is ambiguous.
    """
    from ktfast.kmeans.checkpoint import discard_damaged  # slow to import

    config = run.config.cluster
    store = _store(run, to_fit, to_label, images)
    if store.n < config.n_clusters:
        raise ConfigError(
            f"cluster.n_clusters {config.n_clusters} is more than the {store.n} rows of features; "
            "give fewer clusters"
        )
    transform = _transform(run, store)
    # Fits with other seeds or features share the folder, and each needs a checkpoint of its own.
    own = CHECKPOINT if seed is None else f"checkpoint-{to_fit.name}-seed{seed}.npz"
    checkpoint = scratch / own
    discard_damaged(checkpoint)
    work = Work(to_fit, to_label, transform, scratch, checkpoint, seed)
    call_helpers(run, help_cluster, work)
    kmeans, parts = _fit_and_label(run, work, store)
    checkpoint.unlink(missing_ok=True)
    labels, distances = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    if to_label != to_fit:
        store = FeatureStore.open(to_label, verify=True)
    return Clusters(
        transform,
        kmeans,
        align(labels, store, images),
        align(distances.astype(np.float32), store, images),
    )


@dataclass(frozen=True)
class Work:
    """What the processes of a run need to know to cluster together.

    Attributes
    ----------
    to_fit, to_label, scratch : Path
        As in `cluster_images`.
    transform : FeatureTransform
        Transform of the features before clustering.
    checkpoint : Path
        File of the checkpoint.
    seed : int or None
        Seed of K-means. None: the seed of the run.
    """

    to_fit: Path
    to_label: Path
    transform: FeatureTransform
    scratch: Path
    checkpoint: Path
    seed: int | None


def help_cluster(run: RunFolder, work: Work) -> None:
    """Cluster and label the rows of this process, in a fit that rank 0 leads."""
    store = _store(run, work.to_fit, work.to_label, open_set(run, "transfer"))
    _fit_and_label(run, work, store)


def _store(run: RunFolder, to_fit: Path, to_label: Path, images: PreparedSet) -> FeatureStore:
    """Open the features that K-means is fitted to."""
    store = FeatureStore.open(to_fit, verify=run.team.leads)
    if to_label == to_fit:
        store = match_rows(store, images, run.config.data.folders()["transfer"])
    return store


def _fit_and_label(
    run: RunFolder, work: Work, store: FeatureStore
) -> tuple["KMeans", list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]]:
    """Fit K-means, and label images: each process works on a range of the rows.

    Returns
    -------
    kmeans : KMeans
        The fitted estimator.
    parts : list of (array, array)
        On rank 0, labels and distances of the rows of each process. On other ranks an empty list.
    """
    from ktfast.kmeans import KMeans  # slow to import

    config, ranks = run.config.cluster, run.team.ranks
    rows = _rows(run, store, work.transform, work.scratch)
    kmeans = KMeans(
        config.n_clusters,
        init=config.init,
        n_init=config.n_init,
        max_iter=config.max_iter,
        tol=config.tol,
        random_state=run.config.seed if work.seed is None else work.seed,
        n_threads=run.config.threads or None,
        device=_device(run.config),
        memory_budget=int(config.memory_budget_gb * 1e9) or None,
        checkpoint=work.checkpoint,
        distributed=run.team.communicator,
    )
    kmeans.fit(rows)
    if work.to_label != work.to_fit:
        del rows
        store = FeatureStore.open(work.to_label, verify=ranks.leads)
        rows = _rows(run, store, work.transform, work.scratch)
    return kmeans, ranks.gather(_assigned(kmeans, rows))


def _assigned(
    kmeans: "KMeans", rows: list[npt.NDArray[Any]]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Label the rows of this process, of which there may be none."""
    if not any(map(len, rows)):
        return np.empty(0, np.int32), np.empty(0)
    labels, distances = kmeans.assign(rows)
    return labels, distances


def _device(config: Config) -> str | None:
    """Choose the device of K-means: the run's GPU, or None if the CUDA kernels cannot run there."""
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
    """Fit the transform of the features, or load the transform with which they were stored."""
    config = run.config.cluster
    if "normalize" not in store.meta:
        return FeatureTransform.fit(store, config.normalize, dim=config.pca, seed=run.config.seed)
    stored = [store.meta["normalize"], store.meta["pca"]]
    wanted = [config.normalize, config.pca if config.normalize.startswith("pca") else None]
    if stored != wanted:
        raise ConfigError(
            f"the features in {store.path} were stored for cluster.normalize and cluster.pca "
            f"{stored}, and these options are now {wanted}; run `ktfast features --redo features`"
        )
    return FeatureTransform.load(store.path / "transform.npz")


def _rows(
    run: RunFolder, store: FeatureStore, transform: FeatureTransform, scratch: Path
) -> list[npt.NDArray[Any]]:
    """Load the transformed rows of this process, in one or several matrices.

    The ranges of the processes consist of whole blocks, so that each row has the bits of a single
    process.
    """
    ranks = run.team.ranks
    blocks = -(-store.n // BLOCK_ROWS)
    first, end = (
        min(store.n, blocks * i // ranks.size * BLOCK_ROWS) for i in (ranks.rank, ranks.rank + 1)
    )
    if "normalize" in store.meta:
        if not isinstance(store, SelectedRows):
            return store.between(first, end)
        transform = FeatureTransform("none")
    budget = int(run.config.data.memory_budget_gb * 1e9)
    if ranks.size > 1:
        store = SelectedRows(store, np.arange(first, end), store.sample_ids[first:end])
    return [transform.apply_store(store, scratch, budget)]


def clustering_quality(images: PreparedSet, labels: npt.NDArray[Any]) -> dict[str, float]:
    """Compare clusters with the true labels: NMI and purity in [0, 1]; empty without labels."""
    if not (images.labels >= 0).any():
        return {}
    return {
        "nmi": normalized_mutual_information(images.labels, labels),
        "purity": purity(images.labels, labels),
    }
