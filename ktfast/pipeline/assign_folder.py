"""Give new photographs the clusters of a finished run: `ktfast assign`."""

import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ktfast.errors import ConfigError, DataError, shown
from ktfast.features.store import FeatureStore
from ktfast.features.transform import FeatureTransform
from ktfast.images.index import SkippedImage
from ktfast.images.prepare import prepare
from ktfast.images.source import PreparedSet
from ktfast.images.tars import scan_images
from ktfast.pipeline.chain import check_centers
from ktfast.pipeline.environment import resolve_device
from ktfast.pipeline.run_folder import RunFolder, read_run
from ktfast.pipeline.steps.extract_features import then_transform, write_features
from ktfast.pipeline.steps.image_sets import open_feed, progress_line, set_name
from ktfast.pipeline.steps.model_facts import feature_crop
from ktfast.pipeline.steps.prepared_images import decoding_of
from ktfast.pipeline.steps.teacher import build_teacher, check_trust
from ktfast.readers import read_npy
from ktfast.tables import write_assignments

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Assignments:
    """Clusters of photographs.

    Attributes
    ----------
    paths : tuple of str
        Path of each photograph, relative to its folder.
    clusters : array, int32 [n]
        Nearest cluster of each photograph.
    distances : array, float64 [n]
        Squared distance of each photograph's features to the centre of its cluster.
    skipped : tuple of SkippedImage
        Photographs that could not be decoded, each with the reason.
    """

    paths: tuple[str, ...]
    clusters: npt.NDArray[np.int32]
    distances: npt.NDArray[np.float64]
    skipped: tuple[SkippedImage, ...]

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the columns path, cluster and distance, which is not squared, to a CSV file."""
        write_assignments(path, self.paths, self.clusters, self.distances)


def assign_folder(
    folder: str | os.PathLike[str],
    photographs: str | os.PathLike[str],
    *,
    trust_source: bool = False,
) -> Assignments:
    """Find the nearest cluster of a finished run for every photograph below a folder.

    The photographs pass through the run's own steps: they are prepared, the run's teacher computes
    their features, and the features are transformed as the run's features were. The photographs
    that the run clustered get the clusters that the run gave them.

    Parameters
    ----------
    folder : path
        Run folder with a finished stage cluster.
    photographs : path
        Folder of photographs, at any depth, or what else `data.pretext` takes: tar files, Parquet
        files or a URL.
    trust_source : bool
        Whether the function that the run's `features.source` names may be imported and called.

    Returns
    -------
    assignments : Assignments
        The clusters.

    Raises
    ------
    DataError
        The run has no finished clusters, or no photograph can be decoded.
    ConfigError
        The run clustered a file of features, and ktfast does not know how they were computed. Or
        the teacher is no longer the one whose features were clustered.
    """
    run = read_run(folder, trust_source=trust_source)
    run.result("cluster")
    check_trust(run)
    if run.config.cluster.features is not None:
        raise ConfigError(
            f"{shown(folder)} clustered the features in {shown(run.config.cluster.features)}, and "
            "how they were computed is unknown; compute the features of the new photographs "
            "alike, and call ktfast.ops.kmeans_assign with the run's cluster/centers.npy"
        )
    check_centers(run)
    index = scan_images(photographs, labels="none")
    data, threads = run.config.data, run.config.threads or None
    with tempfile.TemporaryDirectory(prefix="ktfast-assign-") as name:
        with progress_line("prepare") as progress:
            images = prepare(
                index,
                Path(name) / "images",
                short_side=data.short_side,
                quality=data.quality,
                max_pixels=data.max_pixels,
                decoding=decoding_of(run, set_name(run, "cluster")),
                n_threads=threads,
                progress=progress,
            )
        for skip in images.skipped:
            _logger.warning("%s is left out: %s", shown(skip.path), skip.reason)
        if images.n == 0:
            raise DataError(f"{shown(photographs)} holds no photograph that can be decoded")
        labels, distances = _nearest(run, images, Path(name))
    return Assignments(tuple(images.paths), labels, distances, images.skipped)


def _nearest(
    run: RunFolder, images: PreparedSet, scratch: Path
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
    """Compute features of prepared images, and compare them with the run's centres."""
    config, threads = run.config, run.config.threads or None
    transform = FeatureTransform.load(run.artifact("cluster", "transform.npz"))
    path = run.artifact("cluster", "centers.npy")
    centers = read_npy(path, "run `ktfast cluster` again")
    stored = config.features.normalized and config.cluster.normalize != "none"
    teacher = build_teacher(run, run.stage(f"features/{set_name(run, 'cluster')}"))
    with (
        open_feed(
            run,
            images,
            size=feature_crop(config),
            batch_size=config.features.batch_size,
            shuffle=False,
        ) as feed,
        progress_line("features") as progress,
    ):
        write_features(
            then_transform(teacher, transform) if stored else teacher,
            feed,
            scratch / "features",
            device=torch.device(resolve_device(config.device)),
            dtype=config.features.dtype,
            meta={},
            progress=progress,
        )
    store = FeatureStore.open(scratch / "features")
    budget = int(config.data.memory_budget_gb * 1e9)
    rows = store.shards if stored else transform.apply_store(store, scratch, budget)
    from ktfast.kmeans import KMeans  # slow to import

    kmeans = KMeans(len(centers), n_threads=threads)
    kmeans.cluster_centers_, kmeans.n_features_in_ = centers, centers.shape[1]
    labels, distances = kmeans.assign(rows)
    return labels, distances
