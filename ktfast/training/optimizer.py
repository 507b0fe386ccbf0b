"""The optimisers of the training loop, and what a checkpoint holds of them."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ktfast.config import TrainingConfig
from ktfast.models.weights import parameter_groups

# Name in a checkpoint of each value that an optimiser keeps for a parameter.
_STORED = {
    "sgd": {"momentum_buffer": "momentum"},
    "adamw": {"exp_avg": "mean", "exp_avg_sq": "square", "step": "updates"},
}


def make_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """Make the optimiser of a model's trained parameters.

    Parameters
    ----------
    model : nn.Module
        The model, on the device where it is trained.
    config : TrainingConfig
        The optimiser and its options.

    Returns
    -------
    optimizer : torch.optim.Optimizer
        SGD with momentum, or AdamW (Loshchilov and Hutter 2019).
    """
    groups = parameter_groups(
        model, config.learning_rate, config.weight_decay, bias_rate=config.bias_rate
    )
    if config.optimizer == "adamw":
        return torch.optim.AdamW(
            groups,
            lr=config.learning_rate,
            betas=(config.momentum, config.beta2),
            eps=config.epsilon,
            fused=True,
        )
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum, fused=True)


def stored_values(
    optimizer: torch.optim.Optimizer, model: nn.Module, config: TrainingConfig
) -> dict[str, Tensor]:
    """Collect what the optimiser has learnt about each parameter, for a checkpoint.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        From `make_optimizer`.
    model : nn.Module
        The model that is trained.
    config : TrainingConfig
        The optimiser and its options.

    Returns
    -------
    values : dict of str to Tensor
        Values under names such as "momentum.features.0.weight".
    """
    held = {}
    for name, parameter in model.named_parameters():
        own = optimizer.state.get(parameter, {})
        for key, stored in _STORED[config.optimizer].items():
            if own.get(key) is not None:
                held[f"{stored}.{name}"] = own[key]
    return held


def restore_values(
    optimizer: torch.optim.Optimizer,
    model: nn.Module,
    config: TrainingConfig,
    tensors: Mapping[str, Tensor],
) -> None:
    """Give the optimiser the values that `stored_values` collected.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        A new optimiser from `make_optimizer`; changed in place.
    model : nn.Module
        The model that is trained.
    config : TrainingConfig
        The optimiser and its options, the same as those of the checkpoint.
    tensors : mapping of str to Tensor
        The tensors of the checkpoint. Other names than those of `stored_values` are ignored.
    """
    for name, parameter in model.named_parameters():
        for key, stored in _STORED[config.optimizer].items():
            value = tensors.get(f"{stored}.{name}")
            if value is None:
                continue
            if value.shape == parameter.shape:
                # The fused optimiser needs the value in the parameter's memory order.
                kept = torch.empty_like(parameter, requires_grad=False).copy_(value)
            else:
                kept = value.to(parameter.device)
            optimizer.state[parameter][key] = kept
