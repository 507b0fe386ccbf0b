"""Cluster the features of an untrained teacher, for comparison with the run's clusters."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch

from ktfast.features.teachers import trunk_teacher
from ktfast.models import initialize
from ktfast.pipeline.environment import resolve_device
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.steps.extract_features import extract
from ktfast.pipeline.steps.fit_clusters import cluster_images
from ktfast.pipeline.steps.image_sets import open_set, set_name
from ktfast.pipeline.steps.trunk_layers import teacher_trunk


def untrained_clusters(
    run: RunFolder, folder: Path, seeds: Sequence[int]
) -> list[npt.NDArray[Any]]:
    """Cluster the features of an untrained trunk with the run's options.

    Parameters
    ----------
    run : RunFolder
        The run.
    folder : Path
        Folder for the features, which are removed at the end. An interrupted call leaves them, and
        the next call continues.
    seeds : sequence of int
        Seeds of K-means.

    Returns
    -------
    labels : list of array, int [n]
        Cluster of each image of the role "transfer", for each seed.
    """
    images = open_set(run, "transfer")
    torch.manual_seed(run.config.seed)
    config = run.config.features
    asked = config.teachers[0].layer or config.layer
    trunk = teacher_trunk(run.config, asked)
    initialize(trunk)
    trunk.to(resolve_device(run.config.device))
    layer = asked or trunk.layers[-1]
    teacher = trunk_teacher(trunk, layer, pool=config.pool, pooling=config.pooling)
    places = {
        role: folder / f"random_features-{set_name(run, role)}" for role in ("cluster", "transfer")
    }
    for place, role in {place: role for role, place in places.items()}.items():
        extract(run, role, place, fitted=places["cluster"], teacher=teacher)
    stores = places["cluster"], places["transfer"]
    labels = [cluster_images(run, *stores, images, folder, seed=seed).labels for seed in seeds]
    for place in set(places.values()):
        shutil.rmtree(place)
    return labels
