"""Where the features that are clustered come from.

A teacher turns a batch of images, uint8 [B, S, S, 3], into features, float32 [B, d]. The method
asks nothing else of it (Noroozi et al. 2018, section 3): a network trained on a pretext task, any
other network and hand-made features all serve, and only their clusters reach the target network.
"""

import importlib
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ktfast.errors import ConfigError
from ktfast.images.augment import normalize_images
from ktfast.models import Trunk, load_weights

Teacher = Callable[[Tensor], Tensor]


def trunk_teacher(
    trunk: Trunk,
    layer: str,
    *,
    pool: int,
    pooling: Literal["max", "mean"],
) -> Teacher:
    """Features of a trunk's layer, pooled to pool x pool and flattened.

    Each image is normalised by its own mean and std, as the puzzle's tiles were.

    Parameters
    ----------
    trunk : a network with `layers` and `features(x, layer)`.
    layer : one of `trunk.layers`.
    pool : side of the pooled map.
    pooling : "max" or "mean".
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


def hog_teacher(*, cell_divisor: int = 8, n_threads: int | None = None) -> Teacher:
    """Histograms of oriented gradients (Dalal and Triggs 2005), by scikit-image.

    Images are cut into `cell_divisor` x `cell_divisor` cells of 9 orientations with 2x2 blocks.
    """
    from skimage.feature import hog

    def describe(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        cell = max(1, image.shape[0] // cell_divisor)
        gray = image.astype(np.float32).mean(axis=2) / 255
        features: np.ndarray[Any, Any] = hog(
            gray, orientations=9, pixels_per_cell=(cell, cell), cells_per_block=(2, 2)
        )
        return features.astype(np.float32)

    pool = ThreadPoolExecutor(n_threads or len(os.sched_getaffinity(0)))

    def teach(images: Tensor) -> Tensor:
        rows = list(pool.map(describe, images.cpu().numpy()))
        return torch.from_numpy(np.stack(rows))

    return teach


def torchvision_teacher(name: str, weights: Path | None, device: str) -> Teacher:
    """Features before the last layer of a torchvision classifier.

    Parameters
    ----------
    name : a model of `torchvision.models`, for example resnet18.
    weights : safetensors with its state dict; None takes torchvision's default weights, which it
        downloads when they are not in its cache.
    device : where the network runs.

    Raises
    ------
    ConfigError : the model is unknown, has no final linear layer, or its weights cannot be had.
    """
    from torchvision import models

    if name not in models.list_models(models):
        raise ConfigError(f"features.source: torchvision.models has no model {name!r}")
    if weights is not None:
        network = models.get_model(name, weights=None)
        report = load_weights(network, weights)
        if report.missing:
            raise ConfigError(f"{weights} lacks {len(report.missing)} weights of {name}")
    else:
        try:
            network = models.get_model(name, weights="DEFAULT")
        except OSError as error:
            raise ConfigError(
                f"the weights of torchvision's {name} cannot be downloaded ({error}); give a "
                "safetensors file with features.weights"
            ) from error
    head = [key for key, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not head:
        raise ConfigError(f"features.source: torchvision's {name} ends in no linear layer")
    network.set_submodule(head[-1], nn.Identity())
    network.eval().to(device)

    @torch.inference_mode()
    def teach(images: Tensor) -> Tensor:
        features: Tensor = network(normalize_images(images, "imagenet"))
        return features.flatten(1).float()

    return teach


def callable_teacher(path: str) -> Teacher:
    """A function named `package.module:function`, uint8 [B, S, S, 3] -> float [B, d].

    It gets a torch tensor on the run's device and may return a torch tensor or a NumPy array. The
    module may lie in the working directory, which an installed command does not search by itself.
    """
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    module_name, _, attribute = path.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"features.source {path!r} cannot be imported: {error}") from error
    if not callable(function):
        raise ConfigError(f"features.source {path!r} is not callable")

    def teach(images: Tensor) -> Tensor:
        features = torch.as_tensor(function(images)).float()
        if features.ndim != 2 or len(features) != len(images):
            raise ConfigError(
                f"features.source {path!r} returned shape {tuple(features.shape)} for "
                f"{len(images)} images; expected [{len(images)}, d]"
            )
        return features

    return teach
