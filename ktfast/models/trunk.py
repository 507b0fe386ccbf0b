"""Trunk, the base of AlexNet and VGG-16: a stack of named layers, and a classifier above them.

The stack is called `features` and the classifier `classifier`, with torchvision's numbering, so
that state dicts interchange. `trunk.features(x, "conv3")` gives the map after a layer.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

import torch
from torch import Tensor, nn

from ktfast.errors import ConfigError, InputError
from ktfast.models.target import TargetNetwork

HIDDEN = ("fc6", "fc7")
"""Names of the fully connected layers below the outputs."""


class LayerStack(nn.Sequential):
    """A sequence of modules. Named layers consist of one or several modules each.

    Parameters
    ----------
    modules : iterable of nn.Module
        Modules in the order in which they run.
    ends : mapping of str to int
        Number of modules that have run when a layer is complete, by the name of the layer, in
        ascending order.
    """

    def __init__(self, modules: Iterable[nn.Module], ends: Mapping[str, int]) -> None:
        super().__init__(*modules)
        self.ends = dict(ends)

    def forward(self, x: Tensor, layer: str | None = None) -> Tensor:
        """Map [B, C, h, w] after `layer` (None: the last layer) of images x [B, 3, H, W]."""
        last = self.last if layer is None else layer
        return self.collect(x, (last,))[last]

    def collect(self, x: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
        """Maps after several layers, in one pass.

        Parameters
        ----------
        x : Tensor [B, 3, H, W]
            Normalised images.
        layers : iterable of str
            Names of the layers.

        Returns
        -------
        maps : dict of str to Tensor [B, C, h, w]
            Map after each layer.

        Raises
        ------
        ConfigError
            There is no layer of this name.
        InputError
            The images are too small for the deepest of the layers.
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
                # ReLU after pooling gives the same bits, and runs on fewer values.
                modules[done - 1], modules[done] = after, module
            x = modules[done - 1](x)
            if done in wanted:
                maps[wanted[done]] = x
        return maps

    def cut(self, layer: str) -> None:
        """Drop the modules after `layer`, in place."""
        end = self.ends_at(layer)
        del self[end:]
        self.ends = {name: at for name, at in self.ends.items() if at <= end}

    @property
    def last(self) -> str:
        """Name of the last layer."""
        return next(reversed(self.ends))

    def side(self, image_size: int, layer: str | None = None) -> int:
        """Side of the map after `layer` for square images, pixels; 0 if they are too small."""
        side = image_size
        for module in islice(self, self.ends_at(layer or self.last)):
            if isinstance(module, nn.Conv2d | nn.MaxPool2d):
                side = _side_after(module, side)
            if side < 1:
                return 0
        return side

    def smallest(self, layer: str | None = None) -> int:
        """Side of the smallest image that is large enough for `layer`, pixels."""
        return next(size for size in range(1, 1 << 16) if self.side(size, layer) > 0)

    def convolutions(self) -> dict[str, nn.Conv2d]:
        """Convolutions by the name of their layer."""
        found: dict[str, nn.Conv2d] = {}
        start = 0
        for name, end in self.ends.items():
            for module in islice(self, start, end):
                if isinstance(module, nn.Conv2d):
                    found[name] = module
            start = end
        return found

    def ends_at(self, layer: str) -> int:
        """Number of modules that have run when `layer` is complete.

        Raises
        ------
        ConfigError
            There is no layer of this name.
        """
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
    # torch drops a window that starts outside the image.
    return out - 1 if (out - 1) * stride >= side + padding else out


class Trunk(TargetNetwork):
    """A convolutional network with named layers and, if it has classes, a classifier.

    Attributes
    ----------
    features : LayerStack
        The layers. `features(x, layer)` gives the map after a layer.
    classifier : nn.Sequential
        Fully connected layers. The attribute is absent if n_classes is 0.
    puzzle_layer : str
        Last layer that the puzzle network uses.
    grid : int
        Side of the map that the classifier reads.
    """

    features: LayerStack
    classifier: nn.Sequential
    puzzle_layer: str
    grid: int
    _frozen = 0  # this number of modules at the start of `features` does not train
    _frozen_hidden = 0  # this number of modules at the start of `classifier` does not train

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, in order. The map of a conv layer is read after its ReLU."""
        return tuple(self.features.ends)

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the convolutional layers."""
        return tuple(name for name in self.layers if name.startswith("conv"))

    @property
    def hidden_layers(self) -> tuple[str, ...]:
        """The layers fc6 and fc7 of the classifier; empty without a classifier."""
        return HIDDEN if hasattr(self, "classifier") else ()

    @property
    def last_layer(self) -> str:
        """Name of the last layer."""
        return self.features.last

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
        """Number of the classifier's classes; 0 without a classifier."""
        output = self.classifier[-1] if hasattr(self, "classifier") else None
        return output.out_features if isinstance(output, nn.Linear) else 0

    def side(self, image_size: int, layer: str) -> int:
        """Side of the map after `layer` for square images, pixels."""
        return self.features.side(image_size, layer)

    def features_all(self, x: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
        """Maps [B, C, h, w] after several layers, in one pass over images x [B, 3, H, W]."""
        return self.features.collect(x, layers)

    def truncate(self, layer: str) -> None:
        """Drop every layer after `layer`, and the classifier."""
        self.features.cut(layer)
        if hasattr(self, "classifier"):
            del self.classifier

    def state_up_to(self, layer: str) -> dict[str, Tensor]:
        """Weights of all layers up to `layer`, under the names of the state dict."""
        ends = self._ends_at(layer)
        kept = tuple(f"features.{number}." for number in range(ends[0]))
        kept += tuple(f"classifier.{number}." for number in range(ends[1]))
        return {name: value for name, value in self.state_dict().items() if name.startswith(kept)}

    def new_layers(self) -> nn.Sequential:
        """The classifier."""
        return self.classifier

    def freeze(self, layer: str) -> None:
        """Exclude all layers up to `layer` from training; batch-norm's averages stay fixed too."""
        self._frozen, self._frozen_hidden = self._ends_at(layer)
        for module in self._frozen_modules():
            module.requires_grad_(False)
        self.train(self.training)

    def _ends_at(self, layer: str) -> tuple[int, int]:
        """Numbers of modules of `features` and `classifier` that have run when a layer is done."""
        if layer not in self.hidden_layers:
            return self.features.ends_at(layer), 0
        linear = [n for n, module in enumerate(self.classifier) if isinstance(module, nn.Linear)]
        # A ReLU follows each hidden layer.
        return len(self.features), linear[self.hidden_layers.index(layer)] + 2

    def _frozen_modules(self) -> Iterator[nn.Module]:
        yield from islice(self.features, self._frozen)
        if self._frozen_hidden:
            yield from islice(self.classifier, self._frozen_hidden)

    def train(self, mode: bool = True) -> "Trunk":
        """Set training or evaluation mode. Frozen layers stay in evaluation mode."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, n_classes] of images x [B, 3, H, W]; without a classifier the last map.

        If the images have another size than `image_size`, average pooling brings the last map to
        the size for which the classifier was made, as in torchvision.
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
        """Add three fully connected layers. Dropout follows the ReLU, as in Caffe and VGG.

        With `dropout_first` dropout precedes each fully connected layer, as in torchvision's
        AlexNet.
        """
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
    """Channels times `width`, rounded to the nearest positive multiple of 8 and of `groups`."""
    if width == 1.0 and channels % groups == 0:
        return channels
    unit = math.lcm(8, groups)
    return max(unit, round(channels * width / unit) * unit)
