"""Train the networks of a run, for the stages pretext, transfer, evaluate and voc.

The stage pretext trains the deep network on the pretext task. The stage transfer trains the target
on pseudo-labels. The stages evaluate and voc train baselines, networks with frozen layers, and
networks for PASCAL VOC.
"""

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ktfast.config import TrainingConfig
from ktfast.durable import replacing, sha256_file
from ktfast.images.balance import Balance
from ktfast.images.feeds.base import Feed
from ktfast.images.source import PreparedSet
from ktfast.models import Trunk, initialize
from ktfast.pipeline.environment import resolve_device
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.steps.image_sets import open_feed, open_set
from ktfast.pipeline.steps.networks import (
    WEIGHTS,
    pretext_preprocessing,
    save_network,
    target_network,
    target_preprocessing,
)
from ktfast.pipeline.steps.pretext_tasks import check_task_trust
from ktfast.pipeline.steps.shared_work import (
    FeedOrder,
    call_helpers,
    help_train,
    ranks_of_training,
)
from ktfast.pipeline.steps.watch_features import judged_features, watch_features
from ktfast.pretext.held_out import held_out_measure
from ktfast.pretext.protocol import Pretext
from ktfast.pretext.registry import build_pretext
from ktfast.training.classification import ClassificationTask
from ktfast.training.loop import Guessing, Task, TrainingSummary, Watch, train

logger = logging.getLogger(__name__)

# The random choices that measure the final network come from an epoch that no training reaches.
HELD_OUT_EPOCH = 2**31 - 1
HELD_OUT_IMAGES = 5000


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained network.

    Attributes
    ----------
    model : nn.Module
        The network.
    summary : TrainingSummary
        How the training went.
    metrics : dict
        Figures for the stage's result.
    """

    model: nn.Module
    summary: TrainingSummary
    metrics: dict[str, Any]


def weights_fingerprint(folder: Path) -> str:
    """Compute the fingerprint of the weights that a training saved in a folder."""
    return sha256_file(folder / WEIGHTS)


@dataclasses.dataclass(frozen=True)
class TrainedPretext:
    """A network that learnt a pretext task.

    Attributes
    ----------
    task : Pretext
        The task with its trained network.
    summary : TrainingSummary
        How the training went.
    metrics : dict
        Figures for the stage's result: the measure on held-out images, the accuracy of guessing,
        and the name of the task.
    outputs : dict of str to str
        Files that the training left, for the stage's result.
    """

    task: Pretext
    summary: TrainingSummary
    metrics: dict[str, Any]
    outputs: dict[str, str]


def train_pretext(
    run: RunFolder, folder: Path, *, trunk: Callable[[], Trunk], name: str, held_out: PreparedSet
) -> TrainedPretext:
    """Train a trunk on the pretext task and save the trunk's weights.

    Parameters
    ----------
    run : RunFolder
        The run. The images are those of the role "pretext".
    folder : Path
        Receives checkpoints, `weights.safetensors`, and arrays of the task such as
        `permutations.npy`.
    trunk : callable
        Builds the trunk.
    name : str
        Name of the training in metrics and on the live line.
    held_out : PreparedSet
        Images on which the network is measured.

    Returns
    -------
    trained : TrainedPretext
        The network, its measure, and what the judge of the features found.
    """
    check_task_trust(run)
    config = run.config.pretext
    torch.manual_seed(run.config.seed)
    task = build_pretext(trunk(), config, seed=run.config.seed, n_threads=run.config.threads)
    initialize(task.model)
    guessing = None
    if task.chance is not None:
        guessing = Guessing(task.chance, task.remedy, stop=config.stop_at_chance)
    size, batch_size = config.crop, config.training.batch_size
    images = open_set(run, "pretext")
    with open_feed(run, images, size=size, batch_size=batch_size, shuffle=True) as feed:
        summary = train_task(
            run,
            task,
            feed,
            config.training,
            folder,
            name=name,
            guessing=guessing,
            watch=watch_features(run, task.trunk, images, folder),
        )
    outputs = {"weights": WEIGHTS}
    for key, array in task.arrays().items():
        outputs[key] = f"{key}.npy"
        with replacing(folder / outputs[key]) as file:
            np.save(file, array)
    save_network(task.trunk, folder / WEIGHTS, pretext_preprocessing(run.config))
    # The first images in the order of their paths come from a few classes only.
    shuffle = held_out.n > HELD_OUT_IMAGES
    with open_feed(run, held_out, size=size, batch_size=batch_size, shuffle=shuffle) as feed:
        measured = held_out_measure(task, feed, epoch=HELD_OUT_EPOCH, max_images=HELD_OUT_IMAGES)
    metrics: dict[str, Any] = {
        task.measure_name: measured,
        "task": task.title or config.task,
        "measure": task.measure_name,
        **judged_features(run, name),
    }
    if guessing is not None:
        metrics |= {
            "chance": guessing.accuracy,
            "at_chance": guessing.at_chance(summary.metrics),
        }
        if metrics["at_chance"]:
            metrics["remedy"] = guessing.remedy
    return TrainedPretext(task, summary, metrics, outputs)


def train_classifier(
    run: RunFolder,
    folder: Path,
    images: PreparedSet,
    labels: npt.NDArray[np.int64],
    *,
    n_classes: int,
    name: str,
    balanced: bool = False,
) -> Trained:
    """Train the target network from scratch on labels or pseudo-labels, and save its weights.

    Parameters
    ----------
    run : RunFolder
        The run.
    folder : Path
        Receives checkpoints and `weights.safetensors`.
    images : PreparedSet
        Prepared images.
    labels : array, int64 [images.n]
        Label of each image.
    n_classes : int
        Number of labels.
    name : str
        Name of the training in metrics and on the live line.
    balanced : bool
        Show every label equally often.

    Returns
    -------
    trained : Trained
        The target network, with the values of the last row of metrics.jsonl.
    """
    config = run.config.transfer
    torch.manual_seed(run.config.seed)
    model = target_network(config, n_classes)
    task = ClassificationTask(
        model,
        torch.from_numpy(labels),
        crop=config.crop,
        seed=run.config.seed,
        mirror=config.mirror,
        normalization=config.normalization,
        area=config.area,
        color_jitter=config.color_jitter,
    )
    with open_feed(
        run,
        images,
        size=config.image_size,
        batch_size=config.training.batch_size,
        shuffle=True,
        balance=Balance(labels) if balanced else None,
    ) as feed:
        summary = train_task(run, task, feed, config.training, folder, name=name)
    save_network(model, folder / WEIGHTS, target_preprocessing(run.config))
    return Trained(model, summary, dict(summary.metrics))


def train_task(
    run: RunFolder,
    task: Task,
    feed: Feed,
    config: TrainingConfig,
    folder: Path,
    *,
    name: str,
    guessing: Guessing | None = None,
    watch: Watch | None = None,
) -> TrainingSummary:
    """Train a task on a feed with the run's seed, device and metrics file.

    Parameters
    ----------
    run : RunFolder
        The run.
    task : Task
        Model and loss.
    feed : Feed
        Delivers the batches.
    config : TrainingConfig
        Optimiser, schedule and precision.
    folder : Path
        Receives checkpoints. An interrupted training continues from its last checkpoint.
    name : str
        Name of the training in metrics and on the live line.
    guessing : Guessing, optional
        Accuracy of guessing. The user is warned of a training that stays there.
    watch : Watch, optional
        A measure of the network that is taken several times.

    Returns
    -------
    summary : TrainingSummary
        How the training went.
    """
    ranks = ranks_of_training(run, feed, config)
    if ranks.size > 1:
        call_helpers(run, help_train, task, FeedOrder.of(feed), config, name)
    elif run.team.size > 1:
        logger.info(
            "%s: one process trains, because %s; the result has the same bits",
            name,
            "this stage cannot be shared" if config.is_shared else "training.lanes is 1",
        )
    return train(
        task,
        feed,
        config,
        folder,
        name=name,
        seed=run.config.seed,
        device=resolve_device(run.config.device),
        metrics_path=run.metrics,
        guessing=guessing,
        watch=watch,
        ranks=ranks,
    )
