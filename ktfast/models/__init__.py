"""Networks: the trunks AlexNet and VGG-16, students of libraries, and their weights."""

from typing import Any

from ktfast.errors import ConfigError
from ktfast.models.alexnet import AlexNet
from ktfast.models.student import Student
from ktfast.models.target import TargetNetwork
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
    "Student",
    "TargetNetwork",
    "Trunk",
    "build_target",
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


def build_target(name: str, **options: Any) -> TargetNetwork:
    """Build a target network by name.

    Parameters
    ----------
    name : str
        "alexnet", "vgg16", torchvision:NAME or timm:NAME.
    **options : Any
        Options of the constructor of the trunk or of `Student`.

    Returns
    -------
    network : TargetNetwork
        The network, with weights drawn from torch's global generator.

    Raises
    ------
    ConfigError
        There is no network of this name, or its library is not installed.
    """
    if ":" not in name:
        return build_trunk(name, **options)
    student = Student(name, **options)
    student.origin = {"trunk": name, "options": options}
    return student
