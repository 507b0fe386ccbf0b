"""All that a training needs to go on as if it had never stopped, to and from a checkpoint."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from ktfast.config import TrainingConfig
from ktfast.errors import ConfigError
from ktfast.images.feeds.base import Batch
from ktfast.models.weights import parameter_groups
from ktfast.training.checkpoint import Checkpoint
from ktfast.training.gradients import Gradients, Task
from ktfast.training.precision import computing_dtype
from ktfast.training.progress import Meter, Window

logger = logging.getLogger(__name__)


class TrainingState:
    """Model, optimiser, loss scale, random generators, and sums since the last metrics row.

    Parameters
    ----------
    task : its model is moved to the device and, if asked, to channels-last order, in place.
    config : optimiser and precision.
    device : where the model is trained.

    Attributes
    ----------
    gradients : computes the gradient of a batch.
    way : how the network is run (`ktfast.training.execution`); "" until it is chosen.
    step : steps done.
    seconds, waited : spent, and spent waiting for the feed, before this session.
    metrics : values of the last row.
    throughput : images a second, the median over rows.
    bounds : what bounded the training (`ktfast.training.speed.SpeedBounds`), up to the last row.
    """

    def __init__(self, task: Task, config: TrainingConfig, device: torch.device) -> None:
        self.device = device
        self.model = task.model.to(device)
        if config.channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.model.train()
        groups = parameter_groups(
            self.model, config.learning_rate, config.weight_decay, bias_rate=config.bias_rate
        )
        self.optimizer = torch.optim.SGD(
            groups, lr=config.learning_rate, momentum=config.momentum, fused=True
        )
        self.base_rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.way = ""
        self._task, self._longest = task, config.clip_norm
        self._compute(
            computing_dtype(config.precision, device), -(-config.batch_size // config.accumulate)
        )
        self.window = Window()
        self.step = 0
        self.seconds = 0.0
        self.metrics: dict[str, float] = {}
        self.throughput = 0.0
        self.waited = 0.0
        self.bounds: dict[str, float] = {}

    def _compute(self, dtype: torch.dtype, micro_batch: int) -> None:
        """Compute in a type, on so many images at a time."""
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=dtype is torch.float16)
        self.gradients = Gradients(self._task, self.device, dtype, self.scaler, micro_batch)

    def advance(self, batch: Batch, epoch: int) -> None:
        """One step of SGD on a batch."""
        self.window.add(self.gradients.add(batch, epoch), len(batch))
        if self._longest:
            self.scaler.unscale_(self.optimizer)
            clip_grad_norm_(self.model.parameters(), self._longest)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1

    def set_rate(self, factor: float) -> None:
        """Multiply every group's initial learning rate by `factor`."""
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * factor

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds as tensors."""
        held = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            momentum = self.optimizer.state[parameter].get("momentum_buffer")
            if momentum is not None:
                held[f"momentum.{name}"] = momentum
        held["random.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            held["random.cuda"] = torch.cuda.get_rng_state(self.device)
        held |= {f"window.{name}": value for name, value in self.window.sums.items()}
        return held

    def facts(
        self, question: Mapping[str, Any], circumstances: Mapping[str, Any], meter: Meter
    ) -> dict[str, Any]:
        """What a checkpoint holds as JSON."""
        return {
            "question": dict(question),
            "circumstances": dict(circumstances),
            "seconds": self.seconds + meter.seconds,
            "metrics": self.metrics,
            "throughput": self.throughput,
            "waited": self.waited + meter.waited,
            "bounds": self.bounds,
            "choices": {
                "precision": str(self.gradients.dtype).removeprefix("torch."),
                "micro_batch": self.gradients.micro_batch,
                "way": self.way,
            },
            "scaler": self.scaler.state_dict(),
            "window_steps": self.window.steps,
        }

    def restore(
        self,
        checkpoint: Checkpoint | None,
        question: Mapping[str, Any],
        circumstances: Mapping[str, Any],
        folder: Path,
    ) -> int | None:
        """Take over a checkpoint, if there is one, and return its step.

        Parameters
        ----------
        checkpoint : what was read, or None.
        question : what must be as it was when the checkpoint was written.
        circumstances : what may differ, at the price of other last bits.
        folder : where the checkpoint is, for messages.

        Raises
        ------
        ConfigError : it answers another question, or belongs to another network.
        """
        if checkpoint is None:
            return None
        facts, tensors = checkpoint.facts, checkpoint.tensors
        changes = _differences(facts["question"], question)
        if changes:
            raise ConfigError(
                f"{folder} holds a training begun with other settings ({'; '.join(changes)});"
                " give the old ones back, or use another folder"
            )
        own = self.model.state_dict()
        theirs = _under("model.", tensors)
        odd = [
            name
            for name in own.keys() | theirs.keys()
            if name not in own or name not in theirs or own[name].shape != theirs[name].shape
        ]
        if odd:
            raise ConfigError(
                f"{folder} holds a training of another network (for example {min(odd)} differs);"
                " build the same one, or use another folder"
            )
        self.model.load_state_dict(theirs)
        parameters = dict(self.model.named_parameters())
        for name, value in _under("momentum.", tensors).items():
            parameter = parameters[name]
            # The fused optimiser wants the momentum in the parameter's memory order.
            momentum = torch.empty_like(parameter, requires_grad=False).copy_(value)
            self.optimizer.state[parameter]["momentum_buffer"] = momentum
        if facts["circumstances"]["device"] == circumstances["device"]:
            # What was chosen by trial, or by what fitted the memory, must not be chosen anew.
            choices = facts["choices"]
            self._compute(getattr(torch, choices["precision"]), choices["micro_batch"])
            self.way = choices["way"]
        torch.set_rng_state(tensors["random.cpu"])
        if self.device.type == "cuda" and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"], self.device)
        if self.scaler.is_enabled() and facts["scaler"]:
            self.scaler.load_state_dict(facts["scaler"])
        window = _under("window.", tensors)
        self.window.sums = {name: value.to(self.device) for name, value in window.items()}
        self.window.steps = facts["window_steps"]
        self.step, self.seconds = checkpoint.step, facts["seconds"]
        self.metrics, self.throughput = facts["metrics"], facts["throughput"]
        self.waited, self.bounds = facts["waited"], facts["bounds"]
        logger.info("resuming %s at step %d", folder, self.step)
        moved = _differences(facts["circumstances"], dict(circumstances))
        if moved:
            logger.warning(
                "%s is resumed under other circumstances (%s): the result is as good, but not that"
                " of an uninterrupted run bit for bit",
                folder,
                "; ".join(moved),
            )
        return self.step


@contextmanager
def global_settings(config: TrainingConfig, device: torch.device, seed: int) -> Iterator[None]:
    """Seeded generators and the asked-for determinism; what was there before comes back."""
    devices = []
    if device.type == "cuda":
        devices = [torch.cuda.current_device() if device.index is None else device.index]
    strict, warn = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    cudnn = torch.backends.cudnn
    tuned, fixed = cudnn.benchmark, cudnn.deterministic
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        try:
            if config.deterministic:
                torch.use_deterministic_algorithms(True)
            cudnn.benchmark, cudnn.deterministic = not config.deterministic, config.deterministic
            yield
        finally:
            torch.use_deterministic_algorithms(strict, warn_only=warn)
            cudnn.benchmark, cudnn.deterministic = tuned, fixed


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}


def _differences(before: Any, now: Any, name: str = "") -> list[str]:
    """Every leaf in which two JSON values differ, as `name old -> new`."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        return [
            line
            for key in sorted(before.keys() | now.keys())
            for line in _differences(before.get(key), now.get(key), f"{name}.{key}".lstrip("."))
        ]
    return [] if before == now else [f"{name} {before!r} -> {now!r}"]
