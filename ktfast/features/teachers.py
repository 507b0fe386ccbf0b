"""The registry of teachers: every source of the features that are clustered.

A teacher turns a batch of images, uint8 [B, S, S, 3], into features, float32 [B, d]. The method
asks nothing else of a teacher (Noroozi et al. 2018, section 3). A network trained on a pretext
task, any other network, and hand-made features can be teachers, because only the clusters of the
features reach the target network.

To add a teacher, write a function here that returns a `Teacher`, and give it a name in
`ktfast.pipeline.steps.extract_features.build_teacher`.
"""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ktfast.errors import ConfigError, shown
from ktfast.features.foreign import checked, import_function
from ktfast.images.augment import normalize_images
from ktfast.models import Trunk, load_weights
from ktfast.native.threads import usable_cores

Teacher = Callable[[Tensor], Tensor]
"""Features, float32 [B, d], of images, uint8 [B, S, S, 3]."""

HOG_CELLS = 8
"""Cells along each side of an image. Gradients are counted in each cell."""


def trunk_teacher(
    trunk: Trunk,
    layer: str,
    *,
    pool: int,
    pooling: Literal["max", "mean"],
) -> Teacher:
    """Features of a trunk's layer, pooled to pool x pool and flattened.

    Each image is normalised by its own mean and standard deviation, as the puzzle's tiles are.

    Parameters
    ----------
    trunk : Trunk
        The network. The function puts the network into evaluation mode.
    layer : str
        One of `trunk.layers`.
    pool : int
        Side of the pooled map.
    pooling : {"max", "mean"}
        How maps are pooled.

    Returns
    -------
    teacher : Teacher
        Features with channels * pool * pool dimensions.

    Raises
    ------
    ConfigError
        The trunk has no layer of this name.
    """
    if layer not in trunk.layers:
        raise ConfigError(
            f"features.layer {layer!r} is unknown; the trunk has {', '.join(trunk.layers)}"
        )
    shrink = functional.adaptive_max_pool2d if pooling == "max" else functional.adaptive_avg_pool2d
    trunk.eval()

    @torch.inference_mode()
    def teach(images: Tensor) -> Tensor:
        maps = trunk.features(normalize_images(images, "image"), layer)
        return shrink(maps, pool).flatten(1).float()

    return teach


def hog_teacher(*, n_threads: int | None = None) -> Teacher:
    """Histograms of oriented gradients (Dalal and Triggs 2005), by scikit-image.

    An image has 8 x 8 cells with 9 orientations, normalised in blocks of 2 x 2 cells.

    Parameters
    ----------
    n_threads : int, optional
        Threads that compute the histograms. The default is the number of available processors.

    Returns
    -------
    teacher : Teacher
        Features, computed on the CPU.
    """
    from skimage.feature import hog

    def describe(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        cell = max(1, image.shape[0] // HOG_CELLS)
        gray = image.astype(np.float32).mean(axis=2) / 255
        features: np.ndarray[Any, Any] = hog(
            gray, orientations=9, pixels_per_cell=(cell, cell), cells_per_block=(2, 2)
        )
        return features.astype(np.float32)

    pool = ThreadPoolExecutor(n_threads or usable_cores())

    def teach(images: Tensor) -> Tensor:
        rows = list(pool.map(describe, images.cpu().numpy()))
        return torch.from_numpy(np.stack(rows))

    return teach


def torchvision_teacher(name: str, weights: Path | None, device: str) -> Teacher:
    """Features before the last layer of a torchvision classifier.

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

    Returns
    -------
    teacher : Teacher
        The input of the model's last linear layer.

    Raises
    ------
    ConfigError
        The model is unknown or has no linear layer, or its weights are incomplete or cannot be
        downloaded.
    """
    network = _torchvision_network(name, weights)
    network.eval().to(device)

    @torch.inference_mode()
    def teach(images: Tensor) -> Tensor:
        features: Tensor = network(normalize_images(images, "imagenet"))
        return features.flatten(1).float()

    return checked(teach, f"torchvision:{name}")


def _torchvision_network(name: str, weights: Path | None) -> nn.Module:
    """A model of torchvision without its last linear layer."""
    from torchvision import models

    if name not in models.list_models(models):
        raise ConfigError(
            f"features.source: torchvision.models has no model {name!r}; see"
            " torchvision.models.list_models()"
        )
    try:
        network: nn.Module = models.get_model(name, weights=None if weights else "DEFAULT")
    except OSError as error:
        raise ConfigError(
            f"the weights of torchvision's {name} cannot be downloaded ({error}); give a "
            "file of weights with features.weights"
        ) from error
    linear = [key for key, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ConfigError(
            f"features.source: torchvision's {name} has no linear layer; choose a classifier"
        )
    network.set_submodule(linear[-1], nn.Identity())
    if weights is not None:
        _load_backbone(network, weights, name, head=linear[-1])
    return network


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
    with torch.device("meta"):
        network = models.get_model(name, weights=None).eval()
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


def _load_backbone(network: nn.Module, weights: Path, name: str, head: str) -> None:
    """Load the weights of a network without its head.

    A network that has the same layers and more layers besides, such as resnet34 for resnet18, is
    refused. The auxiliary classifiers of GoogLeNet and Inception are used in training only.
    """
    report = load_weights(network, weights)
    unused = (f"{head}.", "aux1.", "aux2.", "AuxLogits.")
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


def callable_teacher(path: str) -> Teacher:
    """A function of the user.

    Parameters
    ----------
    path : str
        `package.module:function`. The function takes images as a torch tensor, uint8 [B, S, S, 3],
        on the run's device, and returns features, [B, d], as a torch tensor or a NumPy array; see
        `ktfast.features.foreign.checked`. The module may lie in the working directory.

    Returns
    -------
    teacher : Teacher
        The function, with its result checked and converted to float32.

    Raises
    ------
    ConfigError
        The function cannot be imported, or its result has another shape than [B, d].
    """
    return checked(import_function(path), path)
