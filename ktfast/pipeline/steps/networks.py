"""Build the networks of a run, for the stages pretext, features, transfer, evaluate and voc."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from ktfast.config import Config, PretextConfig, TransferConfig
from ktfast.errors import ConfigError
from ktfast.models import Trunk, build_trunk, initialize, load_weights, save_weights
from ktfast.ops.permutations import permutation_set
from ktfast.pretext.network import JigsawNet
from ktfast.pretext.task import JigsawTask

WEIGHTS = "weights.safetensors"
HEADER = "ktfast"
"""Entry in the header of a weight file that describes the network."""


def puzzle_permutations(config: PretextConfig) -> npt.NDArray[np.uint8]:
    """Choose the permutation set of the puzzle, uint8 [permutations, grid * grid]."""
    return permutation_set(config.permutations, grid=config.grid, min_distance=config.min_distance)


def puzzle_options(config: PretextConfig) -> dict[str, Any]:
    """Select the options of the configuration that `ktfast.ops.jigsaw_tiles` takes."""
    names = {"tile_size", "jitter", "chroma_shift", "max_occluders", "donor_color", "statistics"}
    return config.model_dump(include=names | {"gray_probability", "projection_probability"})


def jigsaw_task(model: JigsawNet, config: PretextConfig, seed: int, threads: int) -> JigsawTask:
    """Build the puzzle task of a network.

    Parameters
    ----------
    model : JigsawNet
        The network that solves the puzzle.
    config : PretextConfig
        Options of the puzzle.
    seed : int
        Seed of the puzzles.
    threads : int
        CPU threads that cut tiles. 0: all that may be used.

    Returns
    -------
    task : JigsawTask
        The task.
    """
    return JigsawTask(
        model,
        puzzle_permutations(config),
        seed=seed,
        cell_loss=config.cell_loss,
        **puzzle_options(config),
        n_threads=threads or None,
    )


def pretext_trunk(config: PretextConfig) -> Trunk:
    """Build the trunk that learns the puzzle, up to the last layer that the puzzle trains."""
    options = {"conv1_stride": 2} if config.trunk == "alexnet" else {}
    trunk = build_trunk(
        config.trunk, n_classes=0, width=config.width, batch_norm=config.batch_norm, **options
    )
    trunk.truncate(trunk.puzzle_layer)
    return trunk


def target_trunk(config: TransferConfig) -> Trunk:
    """Build the target's AlexNet as a trunk for the puzzle.

    conv1 has stride 2 instead of 4. The trunk's weights fit the target.

    Raises
    ------
    ConfigError
        The target is no AlexNet.
    """
    if config.target != "alexnet":
        raise ConfigError(
            "evaluate.baselines: 'pretext' trains an AlexNet on the puzzle, but transfer.target is "
            f"{config.target!r}; leave 'pretext' out"
        )
    return build_trunk(
        "alexnet",
        n_classes=0,
        variant=config.variant,
        width=config.width,
        batch_norm=config.batch_norm,
        conv1_stride=2,
    )


def save_network(trunk: Trunk, path: Path, preprocessing: dict[str, Any]) -> None:
    """Write a network's weights, and a description of the network into the header of the file.

    Parameters
    ----------
    trunk : Trunk
        A network that `ktfast.models.build_trunk` built.
    path : Path
        The weight file.
    preprocessing : dict
        Options of `ktfast.pipeline.image_model.ImageModel`.
    """
    facts = {**trunk.origin, "last_layer": trunk.features.last, "preprocessing": preprocessing}
    save_weights(trunk, path, {HEADER: json.dumps(facts)})


def pretext_preprocessing(config: Config) -> dict[str, Any]:
    """Give the preprocessing of photographs for a network that learnt the puzzle."""
    size = config.pretext.crop
    return {
        "short_side": config.data.short_side,
        "image_size": size,
        "crop": size,
        "normalization": "image",
    }


def target_preprocessing(config: Config) -> dict[str, Any]:
    """Give the preprocessing of photographs for a network that learnt labels."""
    return {
        "short_side": config.data.short_side,
        "image_size": config.transfer.image_size,
        "crop": config.transfer.crop,
        "normalization": "imagenet",
    }


def jigsaw_network(trunk: Trunk, config: PretextConfig) -> JigsawNet:
    """Build the puzzle network on top of a trunk."""
    return JigsawNet(
        trunk,
        config.permutations,
        n_tiles=config.grid**2,
        tile_size=config.tile_size,
        tile_features=config.tile_features,
        hidden=config.hidden,
        dropout=config.dropout,
        names_cells=config.cell_loss > 0,
    )


def target_network(config: TransferConfig, n_classes: int) -> Trunk:
    """Build the target network with weights drawn from torch's global generator.

    Parameters
    ----------
    config : TransferConfig
        Architecture of the target.
    n_classes : int
        Number of outputs. 0: no classifier.

    Returns
    -------
    network : Trunk
        The target network.
    """
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


def load_all(model: nn.Module, path: Path) -> None:
    """Load every weight of a network from a file.

    Raises
    ------
    ConfigError
        The file lacks weights of the network.
    """
    missing = load_weights(model, path).missing
    if missing:
        raise ConfigError(
            f"{path} lacks {len(missing)} weights of {type(model).__name__}, the first is "
            f"{missing[0]}; give weights of the same network"
        )
