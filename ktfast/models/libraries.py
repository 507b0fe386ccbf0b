"""The libraries whose networks can be targets: torchvision and timm.

To add a library, write a `Library` and add it to `LIBRARIES`.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from ktfast.errors import ConfigError
from ktfast.models.anatomy import Anatomy, examine
from ktfast.models.meta import without_weights
from ktfast.optional import problem_of


class ImageSizeError(ConfigError):
    """A network does not take images of the given size."""


Pixels = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of the pixels of each channel, on the scale 0 to 1."""
ODD_CLASSES = 1009
"""Number of classes of a trial. No layer inside a network has this number of outputs."""

# Networks with auxiliary classifiers, which return several outputs in training.
_PLAIN: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}


@dataclass(frozen=True)
class Library:
    """A library of networks.

    Attributes
    ----------
    package : str
        Name of the package, for messages.
    check : callable
        Raises `ConfigError` if the package is missing or has no network of a name.
    build : callable
        Builds a network with random weights from its name, its number of classes and options.
    own_size : callable
        Side in pixels of the images for which the network of a name was designed; 0 if unknown.
    pixels : callable
        Mean and standard deviation of the pixels of each channel, on the scale 0 to 1, with which
        the network of a name was trained; None if the library does not say.
    sizes : callable
        Gives the options that set the side of the images, for networks that need one. A network
        that refuses one option gets the next one.
    """

    package: str
    check: Callable[[str], None]
    build: Callable[..., nn.Module]
    own_size: Callable[[str], int]
    pixels: Callable[[str], "Pixels | None"]
    sizes: Callable[[int], tuple[dict[str, Any], ...]]


def _check_torchvision(name: str) -> None:
    from torchvision import models

    if name not in models.list_models(models):
        raise ConfigError(
            f"torchvision has no classification network {name!r}; "
            "torchvision.models.list_models(torchvision.models) lists its networks"
        )


def _build_torchvision(name: str, n_classes: int, **options: Any) -> nn.Module:
    from torchvision import models

    plain = _PLAIN.get(name, {})
    network: nn.Module = models.get_model(
        name, weights=None, num_classes=n_classes, **plain, **options
    )
    return network


def _size_in_torchvision(name: str) -> int:
    from torchvision import models

    transforms = models.get_model_weights(name).DEFAULT.transforms
    return int(getattr(transforms, "keywords", {}).get("crop_size", 0))


def _pixels_in_torchvision(name: str) -> Pixels | None:
    from torchvision import models

    transforms = models.get_model_weights(name).DEFAULT.transforms
    given = getattr(transforms, "keywords", {})
    return (tuple(given["mean"]), tuple(given["std"])) if {"mean", "std"} <= given.keys() else None


def _check_timm(name: str) -> None:
    problem = problem_of("timm")
    if problem is not None:
        why = f"cannot be imported ({problem})" if problem else "is not installed"
        raise ConfigError(
            f"the network timm:{name} needs the package timm, which {why}; pip install timm"
        )
    import timm

    if not timm.is_model(name):
        raise ConfigError(f"timm has no network {name!r}; timm.list_models() lists its networks")


def _build_timm(name: str, n_classes: int, **options: Any) -> nn.Module:
    import timm

    network: nn.Module = timm.create_model(name, pretrained=False, num_classes=n_classes, **options)
    return network


def _size_in_timm(name: str) -> int:
    import timm

    settings = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return int(settings.input_size[-1]) if settings is not None else 0


def _pixels_in_timm(name: str) -> Pixels | None:
    import timm

    settings = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return None if settings is None else (tuple(settings.mean), tuple(settings.std))


LIBRARIES: dict[str, Library] = {
    "torchvision": Library(
        "torchvision",
        _check_torchvision,
        _build_torchvision,
        _size_in_torchvision,
        _pixels_in_torchvision,
        lambda side: ({}, {"image_size": side}, {"input_size": (side, side)}),
    ),
    "timm": Library(
        "timm",
        _check_timm,
        _build_timm,
        _size_in_timm,
        _pixels_in_timm,
        lambda side: ({}, {"img_size": side}),
    ),
}


@dataclass(frozen=True)
class Plan:
    """How a network of a library is built for images of one size.

    Attributes
    ----------
    library : Library
        The library.
    name : str
        Name of the network in the library.
    options : dict
        Options that set the side of the images.
    head : str
        Name of the module whose outputs are the classes.
    anatomy : Anatomy
        The network's layers.
    """

    library: Library
    name: str
    options: Mapping[str, Any]
    head: str
    anatomy: Anatomy

    def build(self, n_classes: int) -> nn.Module:
        """Build the network on torch's default device."""
        if torch.get_default_device().type == "meta":
            return without_weights(partial(self._build, n_classes))
        return self._build(n_classes)

    def _build(self, n_classes: int) -> nn.Module:
        return self.library.build(self.name, n_classes, **self.options)


@functools.lru_cache(maxsize=32)
def plan_network(source: str, image_size: int) -> Plan:
    """Find out how to build a network for images of one size, and which layers it has.

    Parameters
    ----------
    source : str
        LIBRARY:NAME, such as torchvision:resnet18.
    image_size : int
        Side of the images in pixels.

    Returns
    -------
    plan : Plan
        The plan.

    Raises
    ------
    ConfigError
        The library or the network is unknown, or no layer of the network gives a map.
    ImageSizeError
        The network refuses images of this size.
    """
    package, _, name = source.partition(":")
    if package not in LIBRARIES or not name:
        raise ConfigError(
            f"the network {source!r} is unknown; expected alexnet, vgg16, "
            f"{' or '.join(f'{key}:NAME' for key in LIBRARIES)}"
        )
    library = LIBRARIES[package]
    library.check(name)
    reasons = []
    for options in library.sizes(image_size):
        try:
            network = without_weights(partial(library.build, name, ODD_CLASSES, **options))
            head = _head(network, source)
            anatomy = examine(network, head, image_size)
        except (AssertionError, RuntimeError, TypeError, ValueError) as error:
            if isinstance(error, ConfigError):
                raise
            reasons.append(str(error).strip().partition("\n")[0])
            continue
        if not anatomy.stages:
            raise ConfigError(
                f"no layer of {source} gives a map for images of {image_size} px; give larger "
                "images or another network"
            )
        return Plan(library, name, options, head, anatomy)
    own = library.own_size(name)
    remedy = f"give images of {own} px" if own else "give images of another size"
    raise ImageSizeError(
        f"{source} does not take images of {image_size} px ({reasons[0]}); {remedy}"
    )


def _head(network: nn.Module, source: str) -> str:
    """Name of the module whose outputs are the classes."""
    heads: list[str] = [
        name
        for name, module in network.named_modules()
        if ODD_CLASSES in (getattr(module, "out_features", 0), getattr(module, "out_channels", 0))
    ]
    if len(heads) != 1:
        raise ConfigError(
            f"{source} has {len(heads)} layers that name classes, and a target has one; give "
            "another network"
        )
    return heads[0]
