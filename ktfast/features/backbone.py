"""Load the weights of a network without its classifier."""

from pathlib import Path

from torch import nn

from ktfast.errors import ConfigError, shown
from ktfast.models import load_weights


def load_backbone(network: nn.Module, weights: Path, name: str, heads: tuple[str, ...]) -> None:
    """Load the weights of a network without its classifier.

    A network that has the same layers and more layers besides, such as resnet34 for resnet18, is
    refused. The auxiliary classifiers of GoogLeNet and Inception are used in training only.

    Parameters
    ----------
    network : nn.Module
        The network.
    weights : Path
        File with the weights; see `ktfast.models.load_weights`.
    name : str
        Name of the network, for messages.
    heads : tuple of str
        Dotted names of the classifiers.

    Raises
    ------
    ConfigError
        The file holds the weights of another network, or not all weights.
    """
    report = load_weights(network, weights)
    unused = (*(f"{head}." for head in heads), "aux1.", "aux2.", "AuxLogits.")
    missing = [key for key in report.missing if not key.startswith(unused)]
    if missing:
        raise ConfigError(
            f"{shown(weights)} lacks {len(missing)} weights of {name}, the first is {missing[0]};"
            " give weights of the same network"
        )
    layers = {key.partition(".")[0] for key, _ in network.named_parameters()}
    more = [
        key
        for key in report.unexpected
        if not key.startswith(unused) and key.partition(".")[0] in layers
    ]
    if more:
        raise ConfigError(
            f"{shown(weights)} has {len(more)} weights that {name} lacks, the first is {more[0]};"
            " give weights of the same network"
        )
