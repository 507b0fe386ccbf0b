"""The registry of teachers: every source of the features that are clustered.

A teacher turns a batch of images, uint8 [B, S, S, 3], into features, float32 [B, d]. The method
asks nothing else of a teacher (Noroozi et al. 2018, section 3). A network trained on a pretext
task, any other network, and hand-made features can be teachers, because only the clusters of the
features reach the target network.

Networks of torchvision, timm and transformers have files of their own beside this one. To add a
teacher, write a function here that returns a `Teacher`, and give it a name in
`ktfast.config.sources` and `ktfast.pipeline.steps.teacher`.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ktfast.errors import ConfigError
from ktfast.features.foreign import Teacher, checked, import_function
from ktfast.images.augment import Normalization, normalize_images
from ktfast.models import Trunk
from ktfast.native.threads import usable_cores

HOG_CELLS = 8
"""Cells along each side of an image. Gradients are counted in each cell."""


def trunk_teacher(
    trunk: Trunk,
    layer: str,
    *,
    pool: int,
    pooling: Literal["max", "mean"],
    normalization: Normalization = "image",
) -> Teacher:
    """Features of a trunk's layer, pooled to pool x pool and flattened.

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
    normalization : {"image", "imagenet"}
        How pixels are normalised. By default each image is normalised by its own mean and standard
        deviation, as the puzzle's tiles are.

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
        maps = trunk.features(normalize_images(images, normalization), layer)
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
