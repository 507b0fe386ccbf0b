"""First weights, weights on disk, and weights that move from one network to another."""

import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ktfast.durable import write_bytes
from ktfast.errors import ConfigError, DataError
from ktfast.models.trunk import Trunk

OUTPUT_STD = 0.001


def initialize(model: nn.Module) -> None:
    """Draw a network's first weights from torch's global generator, in place.

    Convolutions and fully connected layers: normal with variance 2 / fan-in (He et al. 2015,
    which keeps the signal's second moment through ReLUs at any depth and width). The last fully
    connected layer: standard deviation 0.001, so that training starts at the loss of a uniform
    guess; with Caffe's 0.01 everywhere the VGG puzzle stays at chance for tens of epochs.
    Biases: 0. Batch-norm: scale 1, shift 0.
    """
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            if linear and module is linear[-1]:
                nn.init.normal_(module.weight, std=OUTPUT_STD)
            else:
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()


def parameter_groups(
    model: nn.Module, lr: float, weight_decay: float, *, bias_rate: float = 2.0
) -> list[dict[str, Any]]:
    """Parameter groups for SGD as in the authors' solver.

    Weights: `lr` and `weight_decay`. Biases: `lr` times `bias_rate`, no decay. Scales of
    batch-norm: `lr`, no decay.
    """
    trained = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    weights = [value for _, value in trained if value.ndim > 1]
    biases = [value for name, value in trained if name.endswith("bias")]
    scales = [value for name, value in trained if value.ndim == 1 and not name.endswith("bias")]
    groups = [
        {"params": weights, "lr": lr, "weight_decay": weight_decay},
        {"params": biases, "lr": lr * bias_rate, "weight_decay": 0.0},
        {"params": scales, "lr": lr, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


@dataclass(frozen=True)
class LoadReport:
    """Names of the weights that were loaded, that the file lacked, and that were left over."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


def save_weights(
    module: nn.Module, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a module's state dict as safetensors, completely or not at all.

    Parameters
    ----------
    module : what to save.
    path : destination; its folder must exist.
    metadata : strings that are kept in the file's header.
    """
    tensors = {name: value.contiguous().cpu() for name, value in module.state_dict().items()}
    write_bytes(path, safetensors.torch.save(tensors, dict(metadata or {})))


def load_weights(
    module: nn.Module, source: str | os.PathLike[str] | Mapping[str, Tensor], *, prefix: str = ""
) -> LoadReport:
    """Load what fits by name into a module.

    Parameters
    ----------
    module : takes the weights, on the device and in the memory format it has.
    source : safetensors file, torch file of tensors (.pt, .pth), or a state dict.
    prefix : only names that begin with it are used, without it ("trunk." of a JigsawNet).

    Raises
    ------
    DataError : the file is missing or damaged, nothing in it fits, or a shape differs.
    """
    state, origin = (
        (source, "the state dict")
        if isinstance(source, Mapping)
        else (_read_state(Path(source)), str(source))
    )
    state = {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
    own = module.state_dict()
    loaded = [name for name in own if name in state]
    if own and not loaded:
        raise DataError(
            f"{origin} has none of the {len(own)} weights of {type(module).__name__}"
            f" (the first are called {', '.join(list(own)[:2])}); it belongs to another network"
        )
    for name in loaded:
        if own[name].shape != state[name].shape:
            raise DataError(
                f"{origin}: {name} has shape {tuple(state[name].shape)}, but"
                f" {type(module).__name__} expects {tuple(own[name].shape)}"
            )
    with torch.no_grad():
        for name in loaded:
            own[name].copy_(state[name])
    return LoadReport(
        loaded=tuple(loaded),
        missing=tuple(name for name in own if name not in state),
        unexpected=tuple(name for name in state if name not in own),
    )


def copy_convolutions(source: Trunk, target: Trunk) -> tuple[str, ...]:
    """Copy convolutions from one trunk to another layer by layer, whatever their strides.

    So the puzzle's AlexNet (stride 2) becomes a standard AlexNet (stride 4).

    Returns
    -------
    names of the layers that were copied: those that both trunks have.

    Raises
    ------
    ConfigError : no layer is common, or weights of a common layer differ in shape.
    """
    theirs, ours = source.features.convolutions(), target.features.convolutions()
    common = tuple(name for name in ours if name in theirs)
    if not common:
        raise ConfigError(
            f"no layer of {type(source).__name__} has the name of one of {type(target).__name__}"
        )
    for name in common:
        if theirs[name].weight.shape != ours[name].weight.shape:
            raise ConfigError(
                f"{name} has weights of shape {tuple(theirs[name].weight.shape)} in the source,"
                f" {tuple(ours[name].weight.shape)} in the target; give both the same variant,"
                " width and groups"
            )
    for name in common:
        ours[name].load_state_dict(theirs[name].state_dict())
    return common


def _read_state(path: Path) -> Mapping[str, Tensor]:
    """State dict of a file; nothing in it can run code."""
    if not path.is_file():
        raise DataError(f"there is no weight file {path}")
    if path.suffix not in (".pt", ".pth"):
        try:
            return dict(safetensors.torch.load_file(path))
        except (safetensors.SafetensorError, OSError, ValueError) as error:
            raise DataError(f"{path} is damaged or no safetensors file ({error})") from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        # torch's own message advises to switch the protection off.
        raise DataError(
            f"{path} is damaged or holds more than tensors; save the network's state_dict()"
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise DataError(f"{path} holds no plain state dict; save the network's state_dict()")
    return state
