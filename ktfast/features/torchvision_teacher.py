"""Networks of torchvision as teachers."""

import functools
import re
from functools import partial
from pathlib import Path

import torch
from torch import nn

from ktfast.durable import sha256_file
from ktfast.errors import ConfigError, shown
from ktfast.features.backbone import load_backbone
from ktfast.features.foreign import Teacher
from ktfast.features.layers import Pooling, check_layer, network_teacher
from ktfast.features.pretrained import Color, torch_file
from ktfast.models.meta import without_weights

_IMAGENET: tuple[Color, Color] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# With torchvision's own weights, these networks normalise their input once more.
_TRANSFORM_INPUT = ("googlenet", "inception_v3")


def torchvision_teacher(
    name: str,
    weights: Path | None,
    device: str,
    *,
    layer: str = "",
    pool: int = 4,
    pooling: Pooling = "max",
) -> Teacher:
    """Features of a torchvision classifier: the input of its last linear layer, or a layer.

    Parameters
    ----------
    name : str
        A model of `torchvision.models`, for example resnet18.
    weights : Path or None
        File with the model's state dict; see `ktfast.models.load_weights`. The weights of the last
        linear layer may be missing or of any shape. None takes torchvision's default weights, which
        torchvision downloads unless its cache holds them.
    device : str
        Device of the network.
    layer : str
        Dotted name of a layer; empty: the input of the last linear layer.
    pool : int
        Side to which the map of a layer is pooled.
    pooling : {"max", "mean"}
        How the map of a layer is pooled.

    Returns
    -------
    teacher : Teacher
        The features.

    Raises
    ------
    ConfigError
        The model or the layer is unknown, the model has no linear layer, or its weights are
        incomplete or cannot be downloaded.
    """
    source = f"torchvision:{name}{f'@{layer}' if layer else ''}"
    check_torchvision(name, layer)
    network = _network(name, weights)
    network.eval().to(device)
    mean, std = torchvision_normalization(name)
    return network_teacher(
        network, source, mean=mean, std=std, layer=layer, pool=pool, pooling=pooling
    )


def check_torchvision(name: str, layer: str) -> None:
    """Refuse a model or a layer that torchvision does not have. Takes no memory for weights.

    Parameters
    ----------
    name : str
        A model of `torchvision.models`.
    layer : str
        Dotted name of a layer; empty: no layer.

    Raises
    ------
    ConfigError
        The model or the layer is unknown, or the layer is the classifier.
    """
    from torchvision import models

    if name not in models.list_models(models):
        raise ConfigError(
            f"features.source: torchvision.models has no model {name!r}; see"
            " torchvision.models.list_models()"
        )
    if not layer:
        return
    network = without_weights(partial(models.get_model, name, weights=None, **_options(name)))
    source = f"torchvision:{name}@{layer}"
    check_layer(network, layer, source)
    if layer == _head(network, name):
        raise ConfigError(
            f"features.source {source!r} names the classifier; leave @{layer} out to get the input "
            "of the classifier"
        )


def torchvision_normalization(name: str) -> tuple[Color, Color]:
    """Mean and standard deviation of the pixels that a model was trained with.

    Parameters
    ----------
    name : str
        A model of `torchvision.models`.

    Returns
    -------
    mean, std : tuple of float
        One value per channel, on the scale 0 to 1.
    """
    from torchvision import models

    weights = models.get_model_weights(name)
    transforms = weights["DEFAULT"].transforms if len(weights) else None
    given = getattr(transforms, "keywords", {})
    return tuple(given.get("mean", _IMAGENET[0])), tuple(given.get("std", _IMAGENET[1]))


def _options(name: str) -> dict[str, bool]:
    """Options of a model that torchvision sets itself only with weights from its cache."""
    return {"transform_input": True, "init_weights": False} if name in _TRANSFORM_INPUT else {}


def _head(network: nn.Module, name: str) -> str:
    linear = [key for key, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ConfigError(
            f"features.source: torchvision's {name} has no linear layer; choose a classifier"
        )
    return str(linear[-1])


def _network(name: str, weights: Path | None) -> nn.Module:
    """A model of torchvision without its last linear layer."""
    from torchvision import models

    if weights is None:
        file = _cached_file(name)
        try:
            network: nn.Module = models.get_model(name, weights="DEFAULT")
        except OSError as error:
            raise ConfigError(
                f"the weights of torchvision's {name} are not in {shown(file)} and cannot be "
                f"downloaded ({error}); put the file there, or give a file of weights with "
                "features.weights"
            ) from error
    else:
        network = models.get_model(name, weights=None, **_options(name))
    head = _head(network, name)
    network.set_submodule(head, nn.Identity())
    if weights is not None:
        load_backbone(network, weights, name, (head,))
    return network


def _cached_file(name: str) -> Path:
    """Locate torchvision's default weights, and refuse a file of other content.

    The name of the file holds the first digits of the hash of its content. torchvision compares
    them only when it downloads the file.
    """
    file = torch_file(default_weights(name))
    digits = re.search(r"-([0-9a-f]{8})\.", file.name)
    if digits and file.is_file() and not sha256_file(file).startswith(digits[1]):
        raise ConfigError(
            f"{shown(file)} does not hold torchvision's weights of {name}; remove the file, or "
            "give a file of weights with features.weights"
        )
    return file


def default_weights(name: str) -> str:
    """Name torchvision's default weights of a model.

    Parameters
    ----------
    name : str
        A model of `torchvision.models`.

    Returns
    -------
    weights : str
        The file that torchvision downloads; its name holds a part of its hash. Empty for an unknown
        model.
    """
    from torchvision import models

    if name not in models.list_models(models):
        return ""
    weights = models.get_model_weights(name)
    return str(weights["DEFAULT"].url).rpartition("/")[2] if len(weights) else ""


@functools.lru_cache
def torchvision_crop(name: str, crop: int) -> int:
    """The side of the images that a torchvision model takes: `crop`, unless the model refuses it.

    Most models take images of any size. A vision transformer takes one size only.

    Parameters
    ----------
    name : str
        A model of `torchvision.models`.
    crop : int
        Side of the images in pixels that the run would use.

    Returns
    -------
    side : int
        `crop`, or the size for which the model's weights were trained if the model takes that size
        and refuses `crop`.
    """
    from torchvision import models

    if name not in models.list_models(models):
        return crop
    transforms = models.get_model_weights(name).DEFAULT.transforms
    own = getattr(transforms, "keywords", {}).get("crop_size", crop)
    network = without_weights(partial(models.get_model, name, weights=None)).eval()
    with torch.device("meta"):
        if not _takes(network, crop) and _takes(network, own):
            return int(own)
    return crop


def _takes(network: nn.Module, side: int) -> bool:
    """Whether a network on torch's meta device accepts images of a size."""
    try:
        network(torch.zeros(1, 3, side, side, device="meta"))
    except (AssertionError, ValueError, RuntimeError):
        return False
    return True
