"""Named variants of the linear probe: what each of them fixes.

The variant frozen-center is `ktfast.evaluation.linear`: the features of centre crops are computed
once. The variants of this file train classifiers on features of random views:

- goyal: Goyal et al. ("Scaling and Benchmarking Self-Supervised Visual Representation Learning",
  ICCV 2019), the code "fair_self_supervision_benchmark".
- deepcluster: Caron et al. ("Deep Clustering for Unsupervised Learning of Visual Features", ECCV
  2018), the script "eval_linear.py" with the option "tencrops".
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ktfast.evaluation.pooling import pooled_size
from ktfast.images.augment import center_crop


@dataclass(frozen=True)
class Variant:
    """What a named variant of the linear probe fixes.

    Attributes
    ----------
    name : str
        Name of the variant.
    weight_decay : float
        Factor of the L2 penalty on the classifier's weights.
    overlapping : bool
        Whether the windows of the average pooling overlap, see `windows`.
    batch_norm : bool
        Whether the pooled map is normalised over the batch, without scale and shift.
    crops : int
        Number of crops of a test image whose probabilities are averaged: 1 or 10.
    drops : bool
        Whether the learning rate drops by a factor of 10 at 2/7, 4/7 and 6/7 of the steps.
    random_crops : bool
        Whether the training sees random crops; else centre crops. Both are mirrored at random.
    deviations : str
        In what this implementation differs from the source.
    """

    name: str
    weight_decay: float
    overlapping: bool
    batch_norm: bool
    crops: int
    drops: bool
    random_crops: bool
    deviations: str

    def details(self, epochs: int) -> dict[str, Any]:
        """Give the details that make two accuracies comparable or not."""
        return {
            "normalisation": "batch-norm without scale and shift" if self.batch_norm else "none",
            "optimiser": "sgd",
            "learning_rate": LEARNING_RATE,
            "weight_decay": self.weight_decay,
            "epochs": epochs,
            "epoch_reported": "last",
            "batch_size": BATCH_SIZE,
            "views": f"{'random' if self.random_crops else 'centre'} crops, mirrored",
            "windows": "overlapping" if self.overlapping else "side by side",
            "crops": self.crops,
            "differs_from_the_source": self.deviations,
        }


LEARNING_RATE = 0.01
MOMENTUM = 0.9
BATCH_SIZE = 256
VARIANTS = {
    "goyal": Variant(
        "goyal",
        weight_decay=5e-4,
        overlapping=True,
        batch_norm=True,
        crops=1,
        drops=True,
        random_crops=False,
        deviations="epochs (28 in the source), no random change of the colours (PCA lighting in "
        "the source), running statistics of batch-norm with momentum 0.1 (0.001 in the source), "
        "bias without weight decay, windows of conv5",
    ),
    "deepcluster": Variant(
        "deepcluster",
        weight_decay=1e-4,
        overlapping=False,
        batch_norm=False,
        crops=10,
        drops=False,
        random_crops=True,
        deviations="epochs (90 in the source), constant learning rate (falls by 17 % in the "
        "source), bias without weight decay, last epoch (best on the test images in the source)",
    ),
}
"""The variants by name."""


def windows(variant: Variant, side: int, grid: int) -> tuple[int, int, int] | None:
    """Give kernel, stride and padding of the average pooling of a map.

    Parameters
    ----------
    variant : Variant
        The variant.
    side : int
        Side of the map.
    grid : int
        Side of the pooled map.

    Returns
    -------
    windows : tuple of int or None
        For AlexNet and the crops of the sources these are the sources' windows, except for conv5 of
        the variant goyal. None: no such windows fit the map, which is pooled adaptively.
    """
    if variant.overlapping:
        stride = max(1, side // (grid + 2))
        return side - stride * (grid - 1), stride, 0
    kernel = round(side / grid)
    padding = max(0, math.ceil((kernel * grid - side) / 2))
    fits = padding <= kernel // 2 and (side + 2 * padding - kernel) // kernel + 1 == grid
    return (kernel, kernel, padding) if fits else None


class LinearHead(nn.Module):
    """A linear classifier on the pooled map of one layer.

    Parameters
    ----------
    variant : Variant
        Pooling and normalisation.
    channels, side : int
        Channels and side of the map.
    n_classes : int
        Number of classes.
    seed : int
        Seed of the initial weights.
    """

    def __init__(
        self, variant: Variant, channels: int, side: int, *, n_classes: int, seed: int
    ) -> None:
        super().__init__()
        self.grid = pooled_size(channels, side)
        self.windows = windows(variant, side, self.grid)
        self.norm = nn.BatchNorm2d(channels, affine=False) if variant.batch_norm else nn.Identity()
        self.classifier = nn.Linear(channels * self.grid**2, n_classes)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.classifier.weight.normal_(0, 0.01, generator=generator)
            self.classifier.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, n_classes] of maps x [B, C, h, w]."""
        if self.windows is None:
            pooled = functional.adaptive_avg_pool2d(x, self.grid)
        else:
            pooled = functional.avg_pool2d(x, *self.windows)
        logits: Tensor = self.classifier(self.norm(pooled).flatten(1))
        return logits


def ten_crops(images: Tensor, crop: int) -> list[Tensor]:
    """Cut the corners and the centre of images [B, H, W, 3], and the same ones mirrored."""
    height, width = images.shape[1:3]
    bottom, right = height - crop, width - crop
    squares = [
        images[:, top : top + crop, left : left + crop]
        for top in (0, bottom)
        for left in (0, right)
    ]
    squares.append(center_crop(images, crop))
    return squares + [square.flip(2) for square in squares]
