"""Networks on whole photographs, made of a trunk: Fast R-CNN and the fully convolutional network.

Both take over the trunk's convolutions and the two hidden fully connected layers of its
classifier, the first as a layer over regions or as a convolution, and end in layers of their own.
Batch-norm keeps the averages it has: batches of one or two images say too little.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import roi_pool

from ktfast.errors import ConfigError
from ktfast.models.trunk import LayerStack, Trunk

FCN_PADDING = 100
"""Pixels around the image, as published: from any image the last map is not empty."""


class FixedNorms(nn.Module):
    """A network whose batch-norm is always in evaluation mode."""

    def train(self, mode: bool = True) -> "FixedNorms":
        """Training or evaluation mode, but for batch-norm."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


class FastRCNN(FixedNorms):
    """Classes and boxes of regions (Girshick 2015).

    Parameters
    ----------
    trunk : with a classifier, whose last layer is left out; it is taken apart.
    n_classes : without the background, which is class 0 of the scores.

    Attributes
    ----------
    stride : image pixels per map pixel.
    """

    def __init__(self, trunk: Trunk, n_classes: int) -> None:
        super().__init__()
        self.grid = trunk.grid
        self.hidden, width = _hidden_layers(trunk)
        self.features = trunk.features
        self.features.cut(last_convolution(self.features))
        # Maps whose first pixel lies over the image's first, as in Girshick's networks.
        for module in self.features:
            if isinstance(module, nn.Conv2d):
                module.padding = (_one(module.kernel_size) // 2,) * 2
            elif isinstance(module, nn.MaxPool2d):
                module.padding = (_one(module.kernel_size) - 1) // 2
        self.stride = _stride(self.features)
        self.scores = nn.Linear(width, n_classes + 1)
        self.boxes = nn.Linear(width, 4 * (n_classes + 1))
        for layer, std in ((self.scores, 0.01), (self.boxes, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor, regions: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [R, n_classes + 1] and box corrections [R, 4 (n_classes + 1)].

        Parameters
        ----------
        images : float32 [B, 3, H, W].
        regions : float32 [R, 5], number of the image in the batch, and edges in pixels.
        """
        return self.heads(self.features(images), regions)

    def heads(self, maps: Tensor, regions: Tensor) -> tuple[Tensor, Tensor]:
        """The same from the maps of images; see `forward`."""
        # Caffe's pooling, which torchvision's is, takes corners of pixels, the last one inclusive.
        corners = regions.float() - regions.new_tensor([0, 0, 0, 1, 1])
        pooled = roi_pool(maps.float(), corners, self.grid, 1 / self.stride)
        hidden = self.hidden(pooled.flatten(1))
        return self.scores(hidden), self.boxes(hidden)


class FCN(FixedNorms):
    """Class of every pixel, from one map of stride 32 (FCN-32s; Long, Shelhamer, Darrell 2015).

    Parameters
    ----------
    trunk : with a classifier, whose last layer is left out; it is taken apart.
    n_classes : with the background, class 0.

    Attributes
    ----------
    stride : pixels between scores.
    center : where in the image the first score lies, pixels; between the scores lies a bilinear
        interpolation.
    """

    def __init__(self, trunk: Trunk, n_classes: int) -> None:
        super().__init__()
        hidden, width = _hidden_layers(trunk)
        self.features = trunk.features
        self.hidden = _convolutional(hidden, trunk.grid)
        self.scores = nn.Conv2d(width, n_classes, 1)
        for parameter in self.scores.parameters():
            nn.init.zeros_(parameter)
        # Caffe's pooling rounds up: only so do the scores cover every image.
        for module in self.features:
            if isinstance(module, nn.MaxPool2d):
                module.ceil_mode = True
        first = next(iter(self.features.convolutions().values()))
        first.padding = (FCN_PADDING, FCN_PADDING)
        self.stride = _stride(self.features)
        self.center = _first_center(self.features, self.hidden)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, n_classes, H, W] of images [B, 3, H, W]."""
        scores = self.scores(self.hidden(self.features(images))).float()
        height, width = images.shape[-2:]
        with torch.autocast(scores.device.type, enabled=False):
            down, across = self._weights(height, scores), self._weights(width, scores.mT)
            logits: Tensor = down @ scores @ across.mT
        return logits

    def _weights(self, side: int, scores: Tensor) -> Tensor:
        """Bilinear interpolation of rows of scores for each pixel, [side, rows].

        Pixels outside of all scores have the nearest one.
        """
        pixels = torch.arange(side, dtype=torch.float32, device=scores.device)
        rows = torch.arange(scores.shape[-2], dtype=torch.float32, device=scores.device)
        places = ((pixels - self.center) / self.stride).clamp(0, len(rows) - 1)
        return (1 - (places[:, None] - rows).abs()).clamp_min(0)


def last_convolution(features: LayerStack) -> str:
    """Name of the last layer that is a convolution."""
    return next(reversed(features.convolutions()))


def _hidden_layers(trunk: Trunk) -> tuple[nn.Sequential, int]:
    """The classifier without its last layer, and how many numbers it gives."""
    modules = list(trunk.classifier)
    last = modules.pop()
    if not isinstance(last, nn.Linear):
        raise ConfigError(f"{type(trunk).__name__}'s classifier must end in a Linear layer")
    return nn.Sequential(*modules), last.in_features


def _convolutional(hidden: nn.Sequential, grid: int) -> nn.Sequential:
    """Fully connected layers as convolutions: the first of `grid` pixels, the others of one."""
    modules: list[nn.Module] = []
    side = grid
    for module in hidden:
        if not isinstance(module, nn.Linear):
            modules.append(module)
            continue
        layer = nn.Conv2d(module.in_features // side**2, module.out_features, side)
        with torch.no_grad():
            layer.weight.copy_(module.weight.view_as(layer.weight))
            if layer.bias is not None:
                layer.bias.copy_(module.bias)
        modules.append(layer)
        side = 1
    return nn.Sequential(*modules)


def _one(size: Any) -> int:
    """A size along one side."""
    return int(size[0]) if isinstance(size, tuple) else int(size)


def _stride(*stacks: nn.Sequential) -> int:
    stride = 1
    for stack in stacks:
        for module in stack:
            if isinstance(module, nn.Conv2d | nn.MaxPool2d):
                stride *= _one(module.stride)
    return stride


def _first_center(*stacks: nn.Sequential) -> float:
    """Centre of what the first pixel of the last map sees, in pixels of the image."""
    center, jump = 0.0, 1
    for stack in stacks:
        for module in stack:
            if isinstance(module, nn.Conv2d | nn.MaxPool2d):
                center += jump * ((_one(module.kernel_size) - 1) / 2 - _one(module.padding))
                jump *= _one(module.stride)
    return center
