"""Stage 4, `ktfast cluster`: K-means over the features, and a pseudo-label for every image."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ImageOps

from ktfast.durable import replacing, sha256_file, write_json
from ktfast.errors import ConfigError, DataError
from ktfast.images.by_cluster import FOLDER, discard_links, link_clusters
from ktfast.images.source import PreparedSet
from ktfast.images.tars import holds_tables, holds_tars
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.stage_result import Outcome, complete_stage
from ktfast.pipeline.steps.fit_clusters import cluster_images, clustering_quality
from ktfast.pipeline.steps.image_sets import open_set
from ktfast.pipeline.steps.questions import cluster_question, feature_folders
from ktfast.readers import read_csv
from ktfast.tables import write_assignments, write_csv

logger = logging.getLogger(__name__)

ASSIGNMENTS = "assignments.csv"
MONTAGE_CLUSTERS, MONTAGE_IMAGES = 12, 10
MONTAGE_SIDE = 64  # px


def execute(run: RunFolder, *, redo: bool = False) -> dict[str, Any]:
    """Cluster the features of the role "cluster", and label the images of the role "transfer"."""
    to_fit, to_label = feature_folders(run)
    if run.config.cluster.link:
        _check_link(run)
    result = complete_stage(
        run,
        "cluster",
        cluster_question(run),
        partial(_cluster, run, to_fit, to_label),
        redo=redo,
        fingerprint=lambda folder: sha256_file(folder / "labels.npz"),
    )
    if run.config.cluster.link:
        _link(run, result)
    return result


def _check_link(run: RunFolder) -> None:
    """Refuse links that cannot be made, before anything is computed."""
    photographs = run.config.data.folders().get("transfer")
    if photographs is None:
        return  # the stage raises the error that names the missing option
    if run.folder.resolve().is_relative_to(photographs.resolve()):
        raise ConfigError(
            f"cluster.link would put links into {photographs}, and ktfast would find them there as "
            "further images; give a run folder outside of the images' folder"
        )
    if holds_tars(photographs) or holds_tables(photographs):
        raise ConfigError(
            f"cluster.link needs photographs that are files, but those of {photographs} are "
            f"packed; leave the option out, and look for the clusters in cluster/{ASSIGNMENTS}"
        )
    if not photographs.is_dir():
        raise DataError(
            f"{photographs} does not exist any more, so cluster.link cannot link its photographs; "
            "put the folder back, or give its new place as data.transfer"
        )


def _link(run: RunFolder, result: dict[str, Any]) -> None:
    """Make one folder per cluster with links to the original photographs."""
    if ASSIGNMENTS not in result["files"]:
        raise DataError(
            f"an earlier version of ktfast made the clusters in {run.folder} without "
            f"{ASSIGNMENTS}; run `ktfast cluster --redo cluster --link`"
        )
    remedy = "run `ktfast cluster` again, which makes damaged files again"
    table = read_csv(run.artifact("cluster", ASSIGNMENTS), 3, remedy)
    link_clusters(
        run.folder / FOLDER,
        run.config.data.folders()["transfer"],
        ((path, int(cluster), float(distance)) for path, cluster, distance in table),
        n_clusters=run.config.cluster.n_clusters,
        fingerprint=result["fingerprint"],
    )


def _cluster(run: RunFolder, to_fit: Path, to_label: Path, folder: Path) -> Outcome:
    config = run.config.cluster
    if (run.folder / FOLDER).exists():
        logger.info("%s: removed, because the clusters are made again", FOLDER)
        discard_links(run.folder / FOLDER)
    images = open_set(run, "transfer")
    clusters = cluster_images(run, to_fit, to_label, images, folder)
    kmeans, labels = clusters.kmeans, clusters.labels
    with replacing(folder / "centers.npy") as file:
        np.save(file, kmeans.cluster_centers_)
    clusters.transform.save(folder / "transform.npz")
    with replacing(folder / "labels.npz") as file:
        np.savez(file, sample_ids=images.sample_ids, labels=labels)
    write_assignments(folder / ASSIGNMENTS, images.paths, labels, clusters.distances)
    write_json(folder / "history.json", kmeans.history_)
    _save_montage(run, images, labels, clusters.distances, folder)
    sizes = np.bincount(labels, minlength=config.n_clusters)
    return Outcome(
        fingerprint=sha256_file(folder / "labels.npz"),
        outputs={
            "centers": "centers.npy",
            "labels": "labels.npz",
            "assignments": ASSIGNMENTS,
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
    pairs = zip(chosen.tolist(), members, strict=True)
    named = ((images.paths[row], c) for c, rows in pairs for row in rows[:MONTAGE_IMAGES])
    write_csv(folder / "montage.csv", ("path", "cluster"), named)


def _thumbnails(images: PreparedSet, rows: set[int]) -> dict[int, npt.NDArray[np.uint8]]:
    side = (MONTAGE_SIDE, MONTAGE_SIDE)
    return {row: np.asarray(ImageOps.fit(images.image(row), side)) for row in sorted(rows)}
