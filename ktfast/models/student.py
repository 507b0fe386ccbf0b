"""Student: a network of torchvision or timm with random weights, as a target network."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from ktfast.errors import ConfigError
from ktfast.models.libraries import plan_network
from ktfast.models.target import TargetNetwork
from ktfast.models.weights import OUTPUT_STD

_PREFIX = "network."


class Student(TargetNetwork):
    """A network of a library, with the names of its layers.

    The state dict has the names that the library gives the weights, so that it loads into the
    library's own network. The weights are drawn as the library draws them, except those of the
    classifier's last layer, which have standard deviation 0.001 as in `ktfast.models.initialize`.

    Parameters
    ----------
    source : str
        LIBRARY:NAME, such as torchvision:resnet18.
    n_classes : int
        Outputs of the classifier. 0: the classifier's last layer is left out, and the network
        returns the input of that layer.
    image_size : int
        Side of the images in pixels.

    Raises
    ------
    ConfigError
        The network cannot be built, or does not take images of this size.
    """

    def __init__(self, source: str, n_classes: int = 1000, *, image_size: int = 224) -> None:
        super().__init__()
        if n_classes < 0:
            raise ConfigError(f"n_classes must be at least 0, got {n_classes}")
        self.source = source
        self._n_classes = n_classes
        self._plan = plan_network(source, image_size)
        self._frozen: list[nn.Module] = []
        self.network = self._plan.build(max(1, n_classes))
        head = self.network.get_submodule(self._plan.head)
        if n_classes == 0:
            self.network.set_submodule(self._plan.head, nn.Identity())
        else:
            nn.init.normal_(head.get_parameter("weight"), std=OUTPUT_STD)
            if head.bias is not None:
                nn.init.zeros_(head.get_parameter("bias"))
        self.register_state_dict_post_hook(_own_names)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_inner_names)  # type: ignore[no-untyped-call]

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, in the order in which they run."""
        return tuple(self._plan.anatomy.readings)

    @property
    def stages(self) -> tuple[str, ...]:
        """The last layer of each size of the maps; see `ktfast.models.anatomy`."""
        return self._plan.anatomy.stages

    @property
    def last_layer(self) -> str:
        """The last stage."""
        return self.stages[-1]

    @property
    def channels(self) -> Mapping[str, int]:
        """Channels of each layer's map."""
        readings = self._plan.anatomy.readings
        return {name: reading.channels for name, reading in readings.items()}

    @property
    def n_classes(self) -> int:
        """Number of the classifier's outputs; 0 without a classifier."""
        return self._n_classes

    def side(self, image_size: int, layer: str) -> int:
        """Side of the map after `layer` for square images, pixels."""
        self.require(layer)
        return plan_network(self.source, image_size).anatomy.readings[layer].side

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, n_classes] of images x [B, 3, H, W]; without a classifier its input."""
        outputs: Tensor = self.network(x)
        return outputs

    def features_all(self, x: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
        """Maps [B, C, h, w] after several layers, in one pass over images x [B, 3, H, W]."""
        wanted = list(layers)
        outputs: dict[str, Tensor] = {}
        handles = []
        for layer in wanted:
            self.require(layer)

            def keep(module: nn.Module, inputs: Any, output: Tensor, layer: str = layer) -> None:
                # A later operation may work in place on the output.
                outputs[layer] = output.clone()

            handles.append(self.network.get_submodule(layer).register_forward_hook(keep))
        try:
            self.network(x)
        finally:
            for handle in handles:
                handle.remove()
        readings = self._plan.anatomy.readings
        return {layer: readings[layer].map_of(outputs[layer]) for layer in wanted}

    def state_up_to(self, layer: str) -> dict[str, Tensor]:
        """Weights of everything that runs up to `layer`, under the names of the state dict."""
        self.require(layer)
        return {
            name: value
            for name, value in self.state_dict().items()
            if self._runs_before(name.rpartition(".")[0], layer)
        }

    def freeze(self, layer: str) -> None:
        """Exclude everything up to `layer` from training; batch-norm's averages stay fixed too."""
        self.require(layer)
        ends = self._plan.anatomy.ends
        self._frozen = []
        for name, module in self.network.named_modules():
            if self._runs_before(name, layer):
                for parameter in module.parameters(recurse=False):
                    parameter.requires_grad_(False)
            if ends.get(name, ends[""]) <= ends[layer]:
                self._frozen.append(module)
        self.train(self.training)

    def freeze_after(self, layer: str) -> None:
        """Exclude everything that begins after `layer` from training."""
        self.require(layer)
        for name, module in self.network.named_modules():
            if not self._runs_before(name, layer):
                for parameter in module.parameters(recurse=False):
                    parameter.requires_grad_(False)

    def layout(self, layer: str) -> str:
        """How the output of a layer becomes a map; see `ktfast.models.anatomy.Reading`."""
        self.require(layer)
        return self._plan.anatomy.readings[layer].layout

    def train(self, mode: bool = True) -> "Student":
        """Set training or evaluation mode. Frozen layers stay in evaluation mode."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def new_layers(self) -> nn.Sequential:
        """The classifier's last layer, the only one whose weights another model does not give."""
        return nn.Sequential(self.network.get_submodule(self._plan.head))

    def _runs_before(self, module: str, layer: str) -> bool:
        """Whether a module begins before `layer` ends."""
        anatomy = self._plan.anatomy
        return anatomy.start(module) < anatomy.ends[layer]


def _own_names(
    module: nn.Module, state: dict[str, Any], prefix: str, metadata: dict[str, Any]
) -> None:
    """Give the weights in a state dict the names that the library gives them."""
    _rename(state, prefix + _PREFIX, prefix)


def _inner_names(module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    """Give the weights in a state dict that is loaded the names below `Student.network`."""
    _rename(state, prefix, prefix + _PREFIX)


def _rename(state: dict[str, Any], before: str, after: str) -> None:
    for name in [key for key in state if key.startswith(before)]:
        state[after + name[len(before) :]] = state.pop(name)
