"""Stage 4, `ktfast cluster`: K-means over the features, and a pseudo-label for every image."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ImageOps

from ktfast.config import result_options
from ktfast.durable import replacing, sha256_file, write_json
from ktfast.errors import ConfigError
from ktfast.features.store import FeatureStore
from ktfast.images.source import PreparedSet
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.stage_result import Outcome, complete_stage
from ktfast.pipeline.steps.fit_clusters import cluster_images, clustering_quality
from ktfast.pipeline.steps.image_sets import open_set, set_fingerprint, set_name
from ktfast.tables import write_assignments

MONTAGE_CLUSTERS, MONTAGE_IMAGES = 12, 10
MONTAGE_SIDE = 64  # px


def execute(run: RunFolder, *, redo: bool = False) -> dict[str, Any]:
    """Cluster the features of the role "cluster", and label the images of the role "transfer"."""
    config = run.config.cluster
    to_fit, to_label = feature_folders(run)
    inputs = {
        "features": FeatureStore.open(to_fit).fingerprint,
        "label_features": FeatureStore.open(to_label).fingerprint,
        "label_images": set_fingerprint(run, "transfer"),
    }
    return complete_stage(
        run,
        "cluster",
        {"seed": run.config.seed, **result_options(config)},
        inputs,
        partial(_cluster, run, to_fit, to_label),
        redo=redo,
        fingerprint=lambda folder: sha256_file(folder / "labels.npz"),
    )


def feature_folders(run: RunFolder) -> tuple[Path, Path]:
    """Locate the features that are clustered, and the features of the images that are labelled."""
    external = run.config.cluster.features
    if external is not None:
        if not external.exists():
            raise ConfigError(
                f"cluster.features {external} does not exist; give a .npy file or a feature folder"
            )
        return external, external
    folders = []
    for role in ("cluster", "transfer"):
        name = f"features/{set_name(run, role)}"
        run.result(name)
        folders.append(run.stage(name))
    return folders[0], folders[1]


def _cluster(run: RunFolder, to_fit: Path, to_label: Path, folder: Path) -> Outcome:
    config = run.config.cluster
    images = open_set(run, "transfer")
    clusters = cluster_images(run, to_fit, to_label, images, folder)
    kmeans, labels = clusters.kmeans, clusters.labels
    with replacing(folder / "centers.npy") as file:
        np.save(file, kmeans.cluster_centers_)
    clusters.transform.save(folder / "transform.npz")
    with replacing(folder / "labels.npz") as file:
        np.savez(file, sample_ids=images.sample_ids, labels=labels)
    write_assignments(folder / "assignments.csv", images.paths, labels, clusters.distances)
    write_json(folder / "history.json", kmeans.history_)
    _save_montage(run, images, labels, clusters.distances, folder)
    sizes = np.bincount(labels, minlength=config.n_clusters)
    return Outcome(
        fingerprint=sha256_file(folder / "labels.npz"),
        outputs={
            "centers": "centers.npy",
            "labels": "labels.npz",
            "assignments": "assignments.csv",
            "transform": "transform.npz",
        },
        summary={
            "n_clusters": config.n_clusters,
            "used": int((sizes > 0).sum()),
            "largest": int(sizes.max()),
            "smallest": int(sizes.min()),
            "median": float(np.median(sizes)),
            "inertia": float(kmeans.inertia_),
            "n_iter": int(kmeans.n_iter_),
            **clustering_quality(images, labels),
        },
        throughput=(
            "iterations/s",
            kmeans.n_iter_ / max(sum(row["seconds"] for row in kmeans.history_), 1e-9),
        ),
    )


def _save_montage(
    run: RunFolder,
    images: PreparedSet,
    labels: npt.NDArray[Any],
    distances: npt.NDArray[Any],
    folder: Path,
) -> None:
    """Save thumbnails of clusters of different sizes, each with its most central images first."""
    sizes = np.bincount(labels, minlength=run.config.cluster.n_clusters)
    by_size = np.argsort(-sizes, kind="stable")[: int((sizes >= 2).sum())]
    if len(by_size) == 0:
        return
    spread = np.unique(np.linspace(0, len(by_size) - 1, MONTAGE_CLUSTERS).astype(int))
    chosen = by_size[spread]
    members = [
        np.flatnonzero(labels == c)[np.argsort(distances[labels == c], kind="stable")]
        for c in chosen
    ]
    shown = {int(row) for rows in members for row in rows[:MONTAGE_IMAGES]}
    thumbnails = _thumbnails(images, shown)
    blank = np.full((MONTAGE_SIDE, MONTAGE_SIDE, 3), 255, np.uint8)
    grid = [
        [thumbnails[int(row)] for row in rows[:MONTAGE_IMAGES]]
        + [blank] * (MONTAGE_IMAGES - len(rows[:MONTAGE_IMAGES]))
        for rows in members
    ]
    with replacing(folder / "montage.npz") as file:
        np.savez_compressed(file, images=np.array(grid), clusters=chosen, sizes=sizes[chosen])


def _thumbnails(images: PreparedSet, rows: set[int]) -> dict[int, npt.NDArray[np.uint8]]:
    side = (MONTAGE_SIDE, MONTAGE_SIDE)
    return {row: np.asarray(ImageOps.fit(images.image(row), side)) for row in sorted(rows)}
