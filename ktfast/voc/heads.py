"""Networks for whole photographs, built on a trunk: Fast R-CNN and a fully convolutional network.

Both networks reuse the trunk's convolutions and the hidden fully connected layers of its
classifier, and add their own output layers. Fast R-CNN applies the hidden layers to pooled regions;
the fully convolutional network turns the hidden layers into convolutions. Batch-norm layers keep
the trunk's running averages, because batches of one or two images give poor averages.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ktfast.errors import ConfigError
from ktfast.models.trunk import LayerStack, Trunk

FCN_PADDING = 100
"""Zero pixels around the image, as published. They keep the last map non-empty for small images."""


class FixedNorms(nn.Module):
    """A network whose batch-norm layers stay in evaluation mode."""

    def train(self, mode: bool = True) -> "FixedNorms":
        """Set the mode of every layer except batch-norm, which stays in evaluation mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


class FastRCNN(FixedNorms):
    """Fast R-CNN: class and corrected box of given regions (Girshick 2015).

    Parameters
    ----------
    trunk : Trunk
        Trunk with a classifier. Its layers move into this network, except the classifier's last
        layer; do not use the trunk afterwards.
    n_classes : int
        Number of classes without the background. The background is class 0 of the scores.

    Attributes
    ----------
    stride : int
        Image pixels per pixel of the last convolution's map.
    """

    def __init__(self, trunk: Trunk, n_classes: int) -> None:
        super().__init__()
        self.grid = trunk.grid
        self.hidden, width = _hidden_layers(trunk)
        self.features = trunk.features
        self.features.cut(last_convolution(self.features))
        # This padding puts the centre of the map's first pixel on the image's first pixel, as in
        # Girshick's networks.
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
        """Classify regions and correct their boxes.

        Parameters
        ----------
        images : Tensor, float32 [B, 3, H, W]
            Normalised images.
        regions : Tensor, float32 [R, 5]
            Number of the image in the batch, then the edges in pixels.

        Returns
        -------
        logits : Tensor [R, n_classes + 1]
            One per class and region.
        corrections : Tensor [R, 4 * (n_classes + 1)]
            Four per class and region, see `ktfast.voc.boxes.corrections`.
        """
        return self.heads(self.features(images), regions)

    def heads(self, maps: Tensor, regions: Tensor) -> tuple[Tensor, Tensor]:
        """Do what `forward` does, but take convolution maps instead of images."""
        from torchvision.ops import roi_pool  # slow to import

        # torchvision's pooling follows Caffe's: it wants pixel indices, the last one inclusive.
        corners = regions.float() - regions.new_tensor([0, 0, 0, 1, 1])
        pooled = roi_pool(maps.float(), corners, self.grid, 1 / self.stride)
        hidden = self.hidden(pooled.flatten(1))
        return self.scores(hidden), self.boxes(hidden)


class FCN(FixedNorms):
    """FCN-32s: class of every pixel, from one map of stride 32 (Long, Shelhamer, Darrell 2015).

    The network computes scores on a coarse grid. Pixels between grid points get bilinearly
    interpolated scores.

    Parameters
    ----------
    trunk : Trunk
        Trunk with a classifier. Its layers move into this network, except the classifier's last
        layer; do not use the trunk afterwards.
    n_classes : int
        Number of classes, the background (class 0) included.

    Attributes
    ----------
    stride : int
        Image pixels between neighbouring grid points.
    center : float
        Position of the first grid point in the image, in pixels.
    """

    def __init__(self, trunk: Trunk, n_classes: int) -> None:
        super().__init__()
        hidden, width = _hidden_layers(trunk)
        self.features = trunk.features
        self.hidden = _convolutional(hidden, trunk.grid)
        self.scores = nn.Conv2d(width, n_classes, 1)
        for parameter in self.scores.parameters():
            nn.init.zeros_(parameter)
        # Caffe's pooling rounds sizes up. Rounding down would leave the image's edge uncovered.
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
        return interpolated(scores, images, self.stride, self.center)


def interpolated(scores: Tensor, images: Tensor, stride: int, center: float) -> Tensor:
    """Interpolate scores on a coarse grid for every pixel of images.

    Parameters
    ----------
    scores : Tensor, float32 [B, n_classes, h, w]
        Scores at the grid points.
    images : Tensor [B, 3, H, W]
        The images.
    stride : int
        Image pixels between neighbouring grid points.
    center : float
        Position of the first grid point in the image, in pixels.

    Returns
    -------
    logits : Tensor, float32 [B, n_classes, H, W]
        Bilinearly interpolated scores. A pixel outside the grid gets the nearest grid point's.
    """
    height, width = images.shape[-2:]

    def weights(side: int, scores: Tensor) -> Tensor:
        """Matrix [side, rows] that interpolates rows of scores for each pixel."""
        pixels = torch.arange(side, dtype=torch.float32, device=scores.device)
        rows = torch.arange(scores.shape[-2], dtype=torch.float32, device=scores.device)
        places = ((pixels - center) / stride).clamp(0, len(rows) - 1)
        return (1 - (places[:, None] - rows).abs()).clamp_min(0)

    with torch.autocast(scores.device.type, enabled=False):
        logits: Tensor = weights(height, scores) @ scores @ weights(width, scores.mT).mT
    return logits


def last_convolution(features: LayerStack) -> str:
    """Name of the last convolution."""
    return next(reversed(features.convolutions()))


def _hidden_layers(trunk: Trunk) -> tuple[nn.Sequential, int]:
    """The classifier without its last layer, and the number of its outputs."""
    modules = list(trunk.classifier)
    last = modules.pop()
    if not isinstance(last, nn.Linear):
        raise ConfigError(f"{type(trunk).__name__}'s classifier must end in a Linear layer")
    return nn.Sequential(*modules), last.in_features


def _convolutional(hidden: nn.Sequential, grid: int) -> nn.Sequential:
    """Turn fully connected layers into convolutions.

    The first one gets kernels of grid x grid pixels, the others kernels of one pixel.
    """
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
    """The size along one axis of a layer option that is a number or a pair."""
    return int(size[0]) if isinstance(size, tuple) else int(size)


def _stride(*stacks: nn.Sequential) -> int:
    stride = 1
    for stack in stacks:
        for module in stack:
            if isinstance(module, nn.Conv2d | nn.MaxPool2d):
                stride *= _one(module.stride)
    return stride


def _first_center(*stacks: nn.Sequential) -> float:
    """Centre of the receptive field of the last map's first pixel, in image pixels."""
    center, jump = 0.0, 1
    for stack in stacks:
        for module in stack:
            if isinstance(module, nn.Conv2d | nn.MaxPool2d):
                center += jump * ((_one(module.kernel_size) - 1) / 2 - _one(module.padding))
                jump *= _one(module.stride)
    return center
