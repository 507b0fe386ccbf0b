"""Networks: the trunks AlexNet and VGG-16, and their weights."""

from typing import Any

from ktfast.errors import ConfigError
from ktfast.models.alexnet import AlexNet
from ktfast.models.trunk import Trunk
from ktfast.models.vgg import VGG16
from ktfast.models.weights import (
    LoadReport,
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
    "initialize",
    "load_weights",
    "parameter_groups",
    "save_weights",
]

TRUNKS: dict[str, type[Trunk]] = {"alexnet": AlexNet, "vgg16": VGG16}


def build_trunk(name: str, **options: Any) -> Trunk:
    """Build a trunk by name.

    Parameters
    ----------
    name : str
        "alexnet" or "vgg16".
    **options : Any
        Options of the trunk's constructor.

    Returns
    -------
    trunk : Trunk
        The network, with torch's default weights.

    Raises
    ------
    ConfigError
        There is no trunk of this name.
    """
    if name not in TRUNKS:
        raise ConfigError(f"trunk {name!r} is unknown; choose one of {', '.join(TRUNKS)}")
    trunk = TRUNKS[name](**options)
    trunk.origin = {"trunk": name, "options": options}
    return trunk
