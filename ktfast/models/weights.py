"""Initialise the weights of a network, group them for the optimiser, save and load them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from ktfast.durable import write_bytes
from ktfast.errors import DataError, shown
from ktfast.models.weight_files import read_state, without_prefix

OUTPUT_STD = 0.001
"""Initial standard deviation of the last fully connected layer's weights."""


def initialize(model: nn.Module) -> None:
    """Draw a network's initial weights from torch's global generator, in place.

    Weights of convolutions and fully connected layers are normal with variance 2 / fan-in (He et
    al. 2015). This keeps the second moment of the signal through ReLUs at any depth and width.
    Weights of the last fully connected layer have standard deviation 0.001, so that training
    starts at the loss of a uniform guess. With Caffe's 0.01 in all layers, a VGG-16 that learns
    the puzzle stays at the accuracy of guessing for tens of epochs. Biases are 0; batch-norm has
    scale 1 and shift 0.

    Parameters
    ----------
    model : nn.Module
        The network.
    """
    if any(parameter.is_meta for parameter in model.parameters()):
        return  # no memory for weights, and drawing on the meta device is slow to import
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
    """Group a model's trained parameters for SGD, as in the authors' solver.

    Weights have `lr` and `weight_decay`. Biases have `lr` times `bias_rate` and no decay. Scales of
    batch-norm have `lr` and no decay.

    Parameters
    ----------
    model : nn.Module
        The network.
    lr : float
        Learning rate.
    weight_decay : float
        Weight decay.
    bias_rate : float
        Factor of the biases' learning rate.

    Returns
    -------
    groups : list of dict
        Groups for `torch.optim.SGD`.
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
    """What `load_weights` did.

    Attributes
    ----------
    loaded : tuple of str
        Names of the weights that were loaded.
    missing : tuple of str
        Names of the module's weights that the source lacks. The batch counters of batch-norm,
        which older files lack and which have no effect on outputs, are left out.
    unexpected : tuple of str
        Names of the source's weights that the module lacks.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


def save_weights(
    module: nn.Module, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a module's state dict as safetensors, completely or not at all.

    Parameters
    ----------
    module : nn.Module
        Module whose state dict is saved.
    path : path-like
        Destination. Its folder must exist.
    metadata : mapping of str to str, optional
        Strings for the header of the file.
    """
    tensors = {name: value.contiguous().cpu() for name, value in module.state_dict().items()}
    write_bytes(path, safetensors.torch.save(tensors, dict(metadata or {})))


def load_weights(
    module: nn.Module, source: str | os.PathLike[str] | Mapping[str, Tensor], *, prefix: str = ""
) -> LoadReport:
    """Load the weights that a module and a source share by name.

    Parameters
    ----------
    module : nn.Module
        Module that takes the weights. Its device and memory format do not change.
    source : path-like or mapping of str to Tensor
        Safetensors file, torch file, or state dict. A file is read by its content, whatever its
        suffix is; see `ktfast.models.weight_files`.
    prefix : str
        Take only names with this prefix, and remove the prefix ("trunk." of a JigsawNet). If
        `prefix` is empty, `load_weights` finds the prefix under which the source holds the module's
        weights, such as "module.", and removes that prefix.

    Returns
    -------
    report : LoadReport
        Names of the loaded, missing and unexpected weights.

    Raises
    ------
    DataError
        The file is missing or damaged, no name is shared, or a shape differs.
    """
    state, origin = (
        (source, "the state dict")
        if isinstance(source, Mapping)
        else (read_state(Path(source)), shown(source))
    )
    own = module.state_dict()
    if prefix:
        state = {key[len(prefix) :]: item for key, item in state.items() if key.startswith(prefix)}
    else:
        state = without_prefix(state, own, origin)
    loaded = [name for name in own if name in state]
    if own and not loaded:
        raise DataError(
            f"{origin} has none of the {len(own)} weights of {type(module).__name__}"
            f" (such as {', '.join(list(own)[:2])}), but {', '.join(list(state)[:2]) or 'none'};"
            " these are weights of another network; give weights of the same network"
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
        missing=tuple(name for name in own if name not in state and not _is_counter(name)),
        unexpected=tuple(name for name in state if name not in own),
    )


def _is_counter(name: str) -> bool:
    """Whether a name is that of batch-norm's number of batches."""
    return name.endswith("num_batches_tracked")
