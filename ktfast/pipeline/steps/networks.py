"""Build the networks of a run, for the stages pretext, features, transfer, evaluate and voc."""

import json
from pathlib import Path
from typing import Any

from torch import nn

from ktfast.config import Config, PretextConfig, TransferConfig
from ktfast.errors import ConfigError
from ktfast.models import (
    TargetNetwork,
    Trunk,
    build_target,
    build_trunk,
    initialize,
    load_weights,
    save_weights,
)
from ktfast.models.libraries import ImageSizeError
from ktfast.pretext.registry import pretext_class

WEIGHTS = "weights.safetensors"
HEADER = "ktfast"
"""Entry in the header of a weight file that describes the network."""


def pretext_trunk(config: PretextConfig) -> Trunk:
    """Build the trunk that learns the pretext task, up to the last layer that the task trains."""
    trunk = whole_trunk(config)
    trunk.truncate(pretext_class(config.task).last_layer(trunk))
    return trunk


def whole_trunk(config: PretextConfig) -> Trunk:
    """Build the trunk of the pretext network with the layers that the pretext task leaves out."""
    stride = pretext_class(config.task).conv1_stride
    options = {"conv1_stride": stride} if config.trunk == "alexnet" else {}
    return build_trunk(
        config.trunk, n_classes=0, width=config.width, batch_norm=config.batch_norm, **options
    )


def target_trunk(config: TransferConfig, task: str) -> Trunk:
    """Build the target's AlexNet as a trunk for a pretext task.

    For tasks on tiles, conv1 has stride 2 instead of 4. The trunk's weights fit the target.

    Parameters
    ----------
    config : TransferConfig
        Architecture of the target.
    task : str
        Value of `pretext.task`.

    Returns
    -------
    trunk : Trunk
        The trunk.

    Raises
    ------
    ConfigError
        The target is no AlexNet.
    """
    if config.target != "alexnet":
        raise ConfigError(
            "evaluate.baselines: 'pretext' trains an AlexNet on the pretext task, but "
            f"transfer.target is {config.target!r}; leave 'pretext' out"
        )
    return build_trunk(
        "alexnet",
        n_classes=0,
        variant=config.variant,
        width=config.width,
        batch_norm=config.batch_norm,
        conv1_stride=pretext_class(task).conv1_stride,
    )


def save_network(trunk: TargetNetwork, path: Path, preprocessing: dict[str, Any]) -> None:
    """Write a network's weights, and a description of the network into the header of the file.

    Parameters
    ----------
    trunk : TargetNetwork
        A network that `ktfast.models.build_target` or `build_trunk` built.
    path : Path
        The weight file.
    preprocessing : dict
        Options of `ktfast.pipeline.image_model.ImageModel`.
    """
    facts = {**trunk.origin, "last_layer": trunk.last_layer, "preprocessing": preprocessing}
    save_weights(trunk, path, {HEADER: json.dumps(facts)})


def pretext_preprocessing(config: Config) -> dict[str, Any]:
    """Give the preprocessing of photographs for a network that learnt a pretext task."""
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
        "normalization": config.transfer.normalization,
    }


def target_network(config: TransferConfig, n_classes: int) -> TargetNetwork:
    """Build the target network with weights drawn from torch's global generator.

    Parameters
    ----------
    config : TransferConfig
        Architecture of the target.
    n_classes : int
        Number of outputs. 0: no classifier.

    Returns
    -------
    network : TargetNetwork
        The target network.

    Raises
    ------
    ConfigError
        The target's library has no such network or is not installed, or the network does not take
        images of `transfer.crop` px.
    """
    if ":" in config.target:
        try:
            return build_target(config.target, n_classes=n_classes, image_size=config.crop)
        except ConfigError as error:
            option = "transfer.crop" if isinstance(error, ImageSizeError) else "transfer.target"
            raise ConfigError(f"{option}: {error}") from error
    options: dict[str, Any] = {"dropout": config.dropout, "image_size": config.crop}
    if config.target == "alexnet":
        options["variant"] = config.variant
    if config.channels is not None:
        options["channels"] = config.channels
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
