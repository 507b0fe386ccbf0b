"""The two trainings that stages ask for: a network on the puzzle, a classifier on labels.

`pretext` and `transfer` each use one; `evaluate` uses both again for its baselines, and trains
classifiers whose lower layers are frozen.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ktfast.config import PretextConfig, TrainingConfig, TransferConfig
from ktfast.durable import replacing, sha256_file
from ktfast.errors import ConfigError
from ktfast.images.balance import Balance
from ktfast.images.source import PreparedSet
from ktfast.models import (
    Trunk,
    build_trunk,
    initialize,
    load_weights,
    save_weights,
)
from ktfast.ops.permutations import permutation_set
from ktfast.pipeline.run_folder import RunFolder, resolve_device
from ktfast.pipeline.steps.image_sets import open_feed, open_set
from ktfast.pretext.held_out import jigsaw_accuracy
from ktfast.pretext.network import JigsawNet
from ktfast.pretext.task import JigsawTask
from ktfast.training.classification import ClassificationTask
from ktfast.training.loop import Task, TrainingSummary, train

# Puzzles of the final accuracy are drawn from an epoch that training never reaches.
HELD_OUT_EPOCH = 2**31 - 1
HELD_OUT_IMAGES = 5000
WEIGHTS = "weights.safetensors"


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained network, its task and the summary of its training."""

    model: nn.Module
    summary: TrainingSummary
    metrics: dict[str, Any]


def puzzle_permutations(config: PretextConfig) -> npt.NDArray[np.uint8]:
    """The permutation set of the pretext, uint8 [permutations, grid * grid]."""
    return permutation_set(config.permutations, grid=config.grid, min_distance=config.min_distance)


def puzzle_options(config: PretextConfig) -> dict[str, Any]:
    """The options of `ktfast.ops.jigsaw_tiles` that the configuration fixes."""
    names = {"tile_size", "jitter", "chroma_shift", "max_occluders", "donor_color", "statistics"}
    return config.model_dump(include=names | {"gray_probability", "projection_probability"})


def jigsaw_task(model: JigsawNet, config: PretextConfig, seed: int, threads: int) -> JigsawTask:
    """The puzzle task of a network, with every option of the configuration."""
    return JigsawTask(
        model,
        puzzle_permutations(config),
        seed=seed,
        **puzzle_options(config),
        n_threads=threads or None,
    )


def pretext_trunk(config: PretextConfig) -> Trunk:
    """The convolutional trunk that learns the puzzle, up to its last layer that does."""
    options = {"conv1_stride": 2} if config.trunk == "alexnet" else {}
    trunk = build_trunk(
        config.trunk, n_classes=0, width=config.width, batch_norm=config.batch_norm, **options
    )
    trunk.truncate(trunk.puzzle_layer)
    return trunk


def target_trunk(config: TransferConfig) -> Trunk:
    """The target's AlexNet as a trunk for the puzzle: conv1 has stride 2, its weights fit."""
    if config.target != "alexnet":
        raise ConfigError(
            "evaluate.baselines: 'pretext' trains an AlexNet on the puzzle, but transfer.target is "
            f"{config.target!r}; leave it out"
        )
    return build_trunk(
        "alexnet",
        n_classes=0,
        variant=config.variant,
        width=config.width,
        batch_norm=config.batch_norm,
        conv1_stride=2,
    )


def jigsaw_network(trunk: Trunk, config: PretextConfig) -> JigsawNet:
    """The puzzle network over a trunk."""
    return JigsawNet(
        trunk,
        config.permutations,
        n_tiles=config.grid**2,
        tile_size=config.tile_size,
        tile_features=config.tile_features,
        hidden=config.hidden,
        dropout=config.dropout,
    )


def load_all(model: nn.Module, path: Path) -> None:
    """Load weights; `ConfigError` if the file lacks some of the model's."""
    missing = load_weights(model, path).missing
    if missing:
        raise ConfigError(
            f"{path} lacks {len(missing)} weights of {type(model).__name__}, the first is "
            f"{missing[0]}; give weights of the same network"
        )


def weights_fingerprint(folder: Path) -> str:
    """Fingerprint of the weights that a training left."""
    return sha256_file(folder / WEIGHTS)


def train_jigsaw(
    run: RunFolder, folder: Path, *, trunk: Callable[[], Trunk], name: str, held_out: PreparedSet
) -> Trained:
    """Train a trunk on Jigsaw++ and leave its weights in `folder`.

    Parameters
    ----------
    run : the run; images come from its role "pretext".
    folder : where checkpoints and `weights.safetensors` (the trunk's) go.
    trunk : builds the trunk.
    name : how the training is called in metrics and on the live line.
    held_out : images on which the accuracy is measured.
    """
    config = run.config.pretext
    torch.manual_seed(run.config.seed)
    model = jigsaw_network(trunk(), config)
    initialize(model)
    task = jigsaw_task(model, config, run.config.seed, run.config.threads)
    images = open_set(run, "pretext")
    summary = train_task(run, task, images, config.crop, config.training, folder, name)
    with replacing(folder / "permutations.npy") as file:
        np.save(file, puzzle_permutations(config))
    save_weights(model.trunk, folder / WEIGHTS, {"trunk": type(model.trunk).__name__.lower()})
    # In order of their paths the first of many images would be those of a few classes.
    shuffle = held_out.n > HELD_OUT_IMAGES
    with open_feed(
        run, held_out, size=config.crop, batch_size=config.training.batch_size, shuffle=shuffle
    ) as feed:
        accuracy = jigsaw_accuracy(task, feed, epoch=HELD_OUT_EPOCH, max_images=HELD_OUT_IMAGES)
    return Trained(model, summary, {"accuracy": accuracy, "chance": 1 / config.permutations})


def target_network(config: TransferConfig, n_classes: int) -> Trunk:
    """The target network, freshly initialised from torch's global generator."""
    options: dict[str, Any] = {"dropout": config.dropout, "image_size": config.crop}
    if config.target == "alexnet":
        options["variant"] = config.variant
    model = build_trunk(
        config.target,
        n_classes=n_classes,
        width=config.width,
        batch_norm=config.batch_norm,
        **options,
    )
    initialize(model)
    return model


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
    """Train the target network from scratch on labels (or pseudo-labels).

    Parameters
    ----------
    run : the run.
    folder : where checkpoints and `weights.safetensors` go.
    images : prepared images.
    labels : int64 [images.n], in the order of `images`.
    n_classes : number of labels.
    name : how the training is called in metrics and on the live line.
    balanced : show every label equally often.
    """
    config = run.config.transfer
    torch.manual_seed(run.config.seed)
    model = target_network(config, n_classes)
    task = ClassificationTask(
        model, torch.from_numpy(labels), crop=config.crop, seed=run.config.seed
    )
    balance = Balance(labels) if balanced else None
    summary = train_task(
        run, task, images, config.image_size, config.training, folder, name, balance
    )
    save_weights(model, folder / WEIGHTS, {"target": config.target})
    return Trained(model, summary, dict(summary.metrics))


def train_task(
    run: RunFolder,
    task: Task,
    images: PreparedSet,
    size: int,
    config: TrainingConfig,
    folder: Path,
    name: str,
    balance: Balance | None = None,
) -> TrainingSummary:
    """Train on shuffled centre squares of `size` px, as the run is configured."""
    with open_feed(
        run, images, size=size, batch_size=config.batch_size, shuffle=True, balance=balance
    ) as feed:
        return train(
            task,
            feed,
            config,
            folder,
            name=name,
            seed=run.config.seed,
            device=resolve_device(run.config.device),
            metrics_path=run.metrics,
        )
