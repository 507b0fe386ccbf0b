"""Networks: the trunks AlexNet and VGG-16, and their weights."""

from typing import Any

from ktfast.errors import ConfigError
from ktfast.models.alexnet import AlexNet
from ktfast.models.trunk import Trunk
from ktfast.models.vgg import VGG16
from ktfast.models.weights import (
    LoadReport,
    copy_convolutions,
    initialize,
    load_weights,
    parameter_groups,
    save_weights,
)

__all__ = [
    "VGG16",
    "AlexNet",
    "LoadReport",
    "Trunk",
    "build_trunk",
    "copy_convolutions",
    "initialize",
    "load_weights",
    "parameter_groups",
    "save_weights",
]

TRUNKS: dict[str, type[Trunk]] = {"alexnet": AlexNet, "vgg16": VGG16}


def build_trunk(name: str, **options: Any) -> Trunk:
    """Build a trunk by name; the options are its constructor's.

    Raises
    ------
    ConfigError : there is no trunk of this name.
    """
    if name not in TRUNKS:
        raise ConfigError(f"trunk {name!r} is unknown; there are {', '.join(TRUNKS)}")
    return TRUNKS[name](**options)
