"""What AlexNet and VGG-16 share: a stack of named layers, and a classifier on top of it.

The stack is called `features` and the classifier `classifier`, with torchvision's numbering, so
that state dicts interchange. The stack itself is what reads maps: `trunk.features(x, "conv3")`.
"""

import math
from collections.abc import Iterable, Mapping
from itertools import islice

import torch
from torch import Tensor, nn

from ktfast.errors import ConfigError, InputError


class LayerStack(nn.Sequential):
    """Modules in a row, some of which end a named layer.

    Parameters
    ----------
    modules : what to run, in order.
    ends : layer name -> number of modules that have run when the layer is complete, rising.
    """

    def __init__(self, modules: Iterable[nn.Module], ends: Mapping[str, int]) -> None:
        super().__init__(*modules)
        self.ends = dict(ends)

    def forward(self, x: Tensor, layer: str | None = None) -> Tensor:
        """Map after `layer` (None: the last), [B, C, h, w], of images x, [B, 3, H, W]."""
        last = self.last if layer is None else layer
        return self.collect(x, (last,))[last]

    def collect(self, x: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
        """Maps after several layers in one pass.

        Raises
        ------
        ConfigError : a layer has no such name.
        InputError : the images are too small for the deepest of the layers.
        """
        wanted = {self.ends_at(layer): layer for layer in layers}
        deepest = max(wanted)
        if self.side(min(x.shape[-2:]), wanted[deepest]) < 1:
            raise InputError(
                f"images of {x.shape[-1]}x{x.shape[-2]} px are too small for layer"
                f" {wanted[deepest]}: the shorter side must be at least"
                f" {self.smallest(wanted[deepest])} px"
            )
        maps: dict[str, Tensor] = {}
        modules = list(islice(self, deepest))
        for done, module in enumerate(modules, start=1):
            after = modules[done] if done < deepest and done not in wanted else None
            if isinstance(module, nn.ReLU) and isinstance(after, nn.MaxPool2d):
                # Its largest values are the same, bit for bit, and fewer to cut off.
                modules[done - 1], modules[done] = after, module
            x = modules[done - 1](x)
            if done in wanted:
                maps[wanted[done]] = x
        return maps

    def cut(self, layer: str) -> None:
        """Drop what comes after `layer`."""
        end = self.ends_at(layer)
        del self[end:]
        self.ends = {name: at for name, at in self.ends.items() if at <= end}

    @property
    def last(self) -> str:
        """Name of the last layer."""
        return next(reversed(self.ends))

    def side(self, image_size: int, layer: str | None = None) -> int:
        """Side of the map after `layer`, pixels, for square images; 0 if they are too small."""
        side = image_size
        for module in islice(self, self.ends_at(layer or self.last)):
            if isinstance(module, nn.Conv2d | nn.MaxPool2d):
                side = _side_after(module, side)
            if side < 1:
                return 0
        return side

    def smallest(self, layer: str | None = None) -> int:
        """Side of the smallest image from which `layer` has a map, pixels."""
        return next(size for size in range(1, 1 << 16) if self.side(size, layer) > 0)

    def convolutions(self) -> dict[str, nn.Conv2d]:
        """Convolution of every layer that has one, by the layer's name."""
        found: dict[str, nn.Conv2d] = {}
        start = 0
        for name, end in self.ends.items():
            for module in islice(self, start, end):
                if isinstance(module, nn.Conv2d):
                    found[name] = module
            start = end
        return found

    def ends_at(self, layer: str) -> int:
        """Number of modules that have run when `layer` is complete; `ConfigError` names others."""
        if layer not in self.ends:
            raise ConfigError(f"layer {layer!r} is unknown; there are {', '.join(self.ends)}")
        return self.ends[layer]


def _side_after(module: nn.Conv2d | nn.MaxPool2d, side: int) -> int:
    """Output side of a convolution or pooling, by torch's formula (dilation 1)."""
    kernel, stride, padding = (
        int(value[0]) if isinstance(value, tuple) else int(value)
        for value in (module.kernel_size, module.stride, module.padding)
    )
    room = side + 2 * padding - kernel
    if isinstance(module, nn.Conv2d) or not module.ceil_mode:
        return room // stride + 1
    out = -(-room // stride) + 1
    # Rounding up must not make a window that starts outside the image.
    return out - 1 if (out - 1) * stride >= side + padding else out


class Trunk(nn.Module):
    """A convolutional network with named layers and, if it has classes, a classifier.

    Attributes
    ----------
    features : the layers; `features(x, layer)` gives the map after a layer.
    classifier : fully connected layers, absent when n_classes is 0.
    puzzle_layer : the last layer that the puzzle network uses.
    """

    features: LayerStack
    classifier: nn.Sequential
    puzzle_layer: str
    _frozen = 0  # modules of `features`, from the first, that stay as they are

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, in order; conv layers are read after their ReLU."""
        return tuple(self.features.ends)

    @property
    def channels(self) -> dict[str, int]:
        """Channels of each layer's map."""
        found: dict[str, int] = {}
        now = 3
        convolutions = self.features.convolutions()
        for name in self.features.ends:
            now = convolutions[name].out_channels if name in convolutions else now
            found[name] = now
        return found

    @property
    def n_classes(self) -> int:
        """Classes of the classifier; 0 without one."""
        output = self.classifier[-1] if hasattr(self, "classifier") else None
        return output.out_features if isinstance(output, nn.Linear) else 0

    def features_all(self, x: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
        """Maps [B, C, h, w] after several layers, in one pass over images x [B, 3, H, W]."""
        return self.features.collect(x, layers)

    def truncate(self, layer: str) -> None:
        """Drop every layer after `layer`, and the classifier."""
        self.features.cut(layer)
        if hasattr(self, "classifier"):
            del self.classifier

    def freeze(self, layer: str) -> None:
        """Keep all layers up to `layer` as they are, batch-norm's averages too."""
        self._frozen = self.features.ends_at(layer)
        for module in islice(self.features, self._frozen):
            module.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Trunk":
        """Training or evaluation mode; what is frozen is always in the latter."""
        super().train(mode)
        for module in islice(self.features, self._frozen):
            module.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, n_classes] of images x [B, 3, H, W]; without classifier the last map.

        Images of another size than `image_size` have their last map average-pooled to the size
        that the classifier was made for, as torchvision does.
        """
        x = self.features(x)
        if not hasattr(self, "classifier"):
            return x
        if x.shape[-2:] != (self.grid, self.grid):
            x = nn.functional.adaptive_avg_pool2d(x, self.grid)
        logits: Tensor = self.classifier(torch.flatten(x, 1))
        return logits

    def _add_classifier(
        self, n_classes: int, image_size: int, hidden: int, dropout: float, *, dropout_first: bool
    ) -> None:
        """Add the three fully connected layers; Caffe and VGG drop out after the ReLU."""
        self.grid = self.features.side(image_size)
        if self.grid < 1:
            raise ConfigError(
                f"image_size {image_size} is too small for {type(self).__name__}: it needs at"
                f" least {self.features.smallest()} px"
            )
        if n_classes < 0:
            raise ConfigError(f"n_classes must be at least 0, got {n_classes}")
        if n_classes == 0:
            return
        flat = self.channels[self.features.last] * self.grid**2
        modules: list[nn.Module] = []
        for width in (flat, hidden):
            modules += [nn.Linear(width, hidden), nn.ReLU(inplace=True)]
            modules.insert(len(modules) - 2 if dropout_first else len(modules), nn.Dropout(dropout))
        self.classifier = nn.Sequential(*modules, nn.Linear(hidden, n_classes))


def scaled(channels: int, width: float, groups: int = 1) -> int:
    """Channel count times `width`, rounded to a multiple of 8 and of `groups`, at least one."""
    if width == 1.0 and channels % groups == 0:
        return channels
    unit = math.lcm(8, groups)
    return max(unit, round(channels * width / unit) * unit)
