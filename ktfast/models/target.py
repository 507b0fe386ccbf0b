"""What every network that can be a target offers: named layers, and a classifier above them.

`Trunk` (AlexNet and VGG-16) and `Student` (networks of torchvision and timm) are target networks.
The stages transfer, evaluate and voc use nothing else of a target.
"""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from ktfast.errors import ConfigError


class TargetNetwork(nn.Module):
    """A network with named layers. The map of each layer can be read.

    Attributes
    ----------
    origin : dict
        Name and options with which `ktfast.models.build_target` builds the network again; empty if
        the network was made in another way.
    """

    origin: Mapping[str, Any] = MappingProxyType({})

    @property
    @abstractmethod
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, in the order in which they run."""

    @property
    @abstractmethod
    def stages(self) -> tuple[str, ...]:
        """Names of the layers that are probed unless the user names others."""

    @property
    def hidden_layers(self) -> tuple[str, ...]:
        """Names of the fully connected layers below the outputs, which `freeze` takes too."""
        return ()

    @property
    @abstractmethod
    def last_layer(self) -> str:
        """Name of the layer whose map gives the vectors of photographs."""

    @property
    @abstractmethod
    def channels(self) -> Mapping[str, int]:
        """Channels of each layer's map."""

    @property
    @abstractmethod
    def n_classes(self) -> int:
        """Number of the classifier's outputs; 0 without a classifier."""

    @abstractmethod
    def side(self, image_size: int, layer: str) -> int:
        """Side of the map after `layer` for square images, pixels."""

    @abstractmethod
    def features_all(self, x: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
        """Maps [B, C, h, w] after several layers, in one pass over images x [B, 3, H, W]."""

    @abstractmethod
    def state_up_to(self, layer: str) -> dict[str, Tensor]:
        """Weights of everything that runs up to `layer`, under the names of the state dict."""

    @abstractmethod
    def freeze(self, layer: str) -> None:
        """Exclude everything up to `layer` from training; batch-norm's averages stay fixed too."""

    @abstractmethod
    def new_layers(self) -> nn.Sequential:
        """Layers between the weights of `n_classes` = 0 and the outputs, outputs included."""

    def require(self, layer: str) -> None:
        """Raise `ConfigError` if the network has no layer of this name."""
        if layer not in self.layers:
            raise ConfigError(f"layer {layer!r} is unknown; there are {', '.join(self.layers)}")
