"""Measure the clusters and the student of a run without labels, beside untrained networks.

The agreement of two seeds is measured on all images, because K-means costs little. The other
measures see a random sample of the images.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ktfast.durable import sha256_json
from ktfast.evaluation.pooling import conv_features
from ktfast.evaluation.unlabelled import (
    adjusted_rand_index,
    effective_rank,
    held_out_accuracy,
    shared_neighbours,
)
from ktfast.evaluation.unlabelled_result import Pair, UnlabelledMeasures
from ktfast.features.matching import match_rows
from ktfast.features.store import FeatureStore
from ktfast.features.transform import FeatureTransform
from ktfast.images.augment import center_crop, normalize_images
from ktfast.images.source import PreparedSet
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.stage_result import Outcome, complete_stage
from ktfast.pipeline.steps.fit_clusters import cluster_images
from ktfast.pipeline.steps.image_sets import open_set
from ktfast.pipeline.steps.probed_models import load_model
from ktfast.pipeline.steps.questions import (
    clusters_untrained_features,
    feature_folders,
    unlabelled_question,
)
from ktfast.pipeline.steps.untrained_clusters import untrained_clusters
from ktfast.readers import read_npz

logger = logging.getLogger(__name__)

SAMPLE = 2000
"""Number of images for shared neighbours and the effective rank."""
PER_CLUSTER, MOST_VOTERS = 10, 20_000
"""Images per cluster for the accuracy of pseudo-labels.

The total is at least `SAMPLE` and at most `MOST_VOTERS`, if the set has as many images.
"""
BATCH = 64


@dataclass(frozen=True)
class SampleFeed:
    """Deliver some images of a set, in order; see `ktfast.evaluation.pooling.ImageFeed`.

    Attributes
    ----------
    images : PreparedSet
        The set.
    rows : array, int64 [n]
        The images that are delivered. The feed numbers them from 0.
    short_side : int
        Shorter side of the images in pixels.
    size : int
        Side of the central squares in pixels.
    """

    images: PreparedSet
    rows: npt.NDArray[np.int64]
    short_side: int
    size: int

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.rows)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[SimpleNamespace]:
        """Yield batches with `images` uint8 [B, size, size, 3] and `rows` int64 [B]."""
        for first in range(start * BATCH, self.n, BATCH):
            part = self.rows[first : first + BATCH]
            squares = [
                self.images.square(int(row), short_side=self.short_side, size=self.size)
                for row in part
            ]
            yield SimpleNamespace(
                images=torch.from_numpy(np.stack(squares)),
                rows=torch.arange(first, first + len(part)),
            )


def measure_unlabelled(run: RunFolder, *, redo: bool = False) -> dict[str, Any]:
    """Measure the run's clusters and its student, or read the stored measures of the run.

    Parameters
    ----------
    run : RunFolder
        A run with finished stages cluster and transfer.
    redo : bool
        Remove earlier measures first.

    Returns
    -------
    result : dict
        Content of `unlabelled/result.json`. Its summary is what `UnlabelledMeasures.to_json` gives.
    """
    return complete_stage(
        run, "unlabelled", unlabelled_question(run), partial(_work, run), redo=redo
    )


def _work(run: RunFolder, folder: Path) -> Outcome:
    untrained = None
    if clusters_untrained_features(run.config):
        seeds = [run.config.seed, run.config.seed + 1]
        untrained = adjusted_rand_index(*untrained_clusters(run, folder, seeds))
    summary = _measure(run, folder, untrained).to_json()
    return Outcome(fingerprint=sha256_json(summary), outputs={}, summary=summary)


def _measure(
    run: RunFolder, scratch: Path, untrained_agreement: float | None
) -> UnlabelledMeasures:
    """Measure clusters and student; with fewer than three images, only the clusters."""
    config = run.config
    images = open_set(run, "transfer")
    labels = read_npz(
        run.artifact("cluster", "labels.npz"), ["labels"], remedy="redo the stage cluster"
    )["labels"].astype(np.int64)
    logger.info("evaluate: clustering with another seed")
    agreement = Pair(_agreement_with(run, labels, images, scratch), untrained_agreement)
    if images.n < 3:
        return UnlabelledMeasures(agreement=agreement)
    order = np.random.default_rng(config.seed).permutation(images.n)
    voters = order[: min(max(SAMPLE, PER_CLUSTER * config.cluster.n_clusters), MOST_VOTERS)]
    few = min(SAMPLE, len(voters))
    teacher = _teacher_features(run, images, voters[:few])
    k = min(config.evaluate.neighbors, few - 1)
    rows: dict[str, tuple[float, float, float]] = {}
    layer = ""
    for name in ("transfer", "random"):
        logger.info("evaluate: measuring %s without labels", name)
        layer, features = _student_features(run, name, images, voters)
        rows[name] = (
            held_out_accuracy(features, labels[voters], k=k, seed=config.seed),
            shared_neighbours(teacher, features[:few], k=k),
            effective_rank(features[:few]),
        )
    accuracy, shared, rank = (Pair(*pair) for pair in zip(*rows.values(), strict=True))
    return UnlabelledMeasures(agreement, accuracy, shared, rank, layer, few, len(voters), k)


def _agreement_with(
    run: RunFolder, labels: npt.NDArray[np.int64], images: PreparedSet, scratch: Path
) -> float:
    """Cluster the run's features with the next seed; compare the clusters with the run's labels."""
    again = cluster_images(run, *feature_folders(run), images, scratch, seed=run.config.seed + 1)
    return adjusted_rand_index(labels, again.labels.astype(np.int64))


def _teacher_features(
    run: RunFolder, images: PreparedSet, rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Features of some images as K-means saw them, float32 [m, d]."""
    store = FeatureStore.open(feature_folders(run)[1], verify=True)
    store = match_rows(store, images, run.config.data.folders()["transfer"])
    features = store.read(rows)
    if "normalize" in store.meta:
        return features.astype(np.float32)
    return FeatureTransform.load(run.artifact("cluster", "transform.npz")).apply(features)


def _student_features(
    run: RunFolder, name: str, images: PreparedSet, rows: npt.NDArray[np.int64]
) -> tuple[str, npt.NDArray[Any]]:
    """Pooled maps of the last stage of a model for some images, and the layer."""
    model, normalization = load_model(run, name)
    layer = model.stages[-1]
    crop = run.config.transfer.crop

    def prepare(batch: torch.Tensor) -> torch.Tensor:
        return normalize_images(center_crop(batch, crop), normalization)

    feed = SampleFeed(images, rows, run.config.data.short_side, run.config.transfer.image_size)
    features = conv_features(model, feed, [layer], prepare=prepare, dtype="float16")
    return layer, features[layer]
