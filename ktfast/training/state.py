"""The state of a training: everything that a checkpoint must hold to continue bit for bit."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from ktfast.config import TrainingConfig, differences
from ktfast.errors import ConfigError, shown
from ktfast.images.feeds.base import Batch
from ktfast.kmeans.distributed.ranks import ALONE, Ranks
from ktfast.training.checkpoint import Checkpoint
from ktfast.training.ddp import Parallel
from ktfast.training.gradients import Gradients, Task
from ktfast.training.lanes import Lanes
from ktfast.training.optimizer import make_optimizer, restore_values, stored_values
from ktfast.training.precision import computing_dtype
from ktfast.training.progress import Meter, Window

logger = logging.getLogger(__name__)

IMAGES = "feed.images"
"""Name of the images' fingerprint in the question of a training."""


class TrainingState:
    """Model, optimiser, loss scale, random generators, and sums since the last metrics row.

    Parameters
    ----------
    task : Task
        Model and loss. The model is moved to the device in place, and to channels-last memory order
        if `config.channels_last` is set.
    config : TrainingConfig
        Optimiser and precision.
    device : torch.device
        Where the model is trained.
    ranks : Ranks, optional
        The processes that share the lanes of a batch.
    seed : int, optional
        Seed of dropout in lanes.

    Attributes
    ----------
    gradients : Gradients
        Computes the gradient of a batch or of a lane.
    shared : Lanes, Parallel or None
        Computes the gradient of a batch with the other processes: lane by lane, or with ddp. None:
        `training.lanes` is 1, and `training.ddp` is not set.
    way : str
        How the network is run (`ktfast.training.execution`). Empty until the training chooses.
    step : int
        Number of steps done.
    seconds, waited : float
        Seconds spent in earlier sessions, and how many of these seconds the device waited for the
        feed.
    metrics : dict
        Values of the last row of metrics.
    throughput : float
        Images per second, the median over rows of metrics.
    sizes : list of int
        Numbers of processes that have shared the training, if the numbers are part of its result.
    bounds : dict
        What limited the speed (`ktfast.training.speed.SpeedBounds`) up to the last row of metrics.
    """

    def __init__(
        self,
        task: Task,
        config: TrainingConfig,
        device: torch.device,
        *,
        ranks: Ranks = ALONE,
        seed: int = 0,
    ) -> None:
        self.device = device
        self._ranks, self._seed = ranks, seed
        self.model = task.model.to(device)
        if config.channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.model.train()
        self._config = config
        self.optimizer = make_optimizer(self.model, config)
        self.base_rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.way = ""
        self._task, self._longest = task, config.clip_norm
        parts = config.accumulate * config.lanes  # one of the two is 1
        self._compute_in(computing_dtype(config.precision, device), -(-config.batch_size // parts))
        self.window = Window()
        self.step = 0
        self.seconds = 0.0
        self.metrics: dict[str, float] = {}
        self.throughput = 0.0
        self.waited = 0.0
        self.bounds: dict[str, float] = {}
        self.sizes = [ranks.size] if config.ddp else []

    def _compute_in(self, dtype: torch.dtype, micro_batch: int) -> None:
        """Make the loss scaler, and what computes gradients, for a type and a micro-batch size."""
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=dtype is torch.float16)
        self.gradients = Gradients(self._task, self.device, dtype, self.scaler, micro_batch)
        self.shared: Lanes | Parallel | None = None
        if self._config.ddp:
            self.shared = Parallel(self.gradients, self._ranks, self._seed)
        elif self._config.lanes > 1:
            self.shared = Lanes(self.gradients, self._config.lanes, self._ranks, self._seed)

    def advance(self, batch: Batch, epoch: int) -> None:
        """Do one step of the optimiser on a batch."""
        if self.shared is None:
            values = self.gradients.add(batch, epoch)
        else:
            values = self.shared.add(batch, epoch, self.step)
        self.window.add(values, len(batch))
        if self._longest:
            self.scaler.unscale_(self.optimizer)
            clip_grad_norm_(self.model.parameters(), self._longest)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Connect the processes that share each batch, for the length of a block."""
        if isinstance(self.shared, Parallel):
            with self.shared.connected(self.device):
                yield
        else:
            yield

    def set_rate(self, factor: float) -> None:
        """Multiply every group's initial learning rate by `factor`."""
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * factor

    def tensors(self) -> dict[str, Tensor]:
        """Collect the part of a checkpoint that is stored as tensors."""
        held = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        held |= stored_values(self.optimizer, self.model, self._config)
        held["random.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            held["random.cuda"] = torch.cuda.get_rng_state(self.device)
        held |= {f"window.{name}": value for name, value in self.window.sums.items()}
        return held

    def facts(
        self, question: Mapping[str, Any], circumstances: Mapping[str, Any], meter: Meter
    ) -> dict[str, Any]:
        """Collect the part of a checkpoint that is stored as JSON."""
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
            **({"sizes": self.sizes} if self.sizes else {}),
        }

    def copy(
        self, question: Mapping[str, Any], circumstances: Mapping[str, Any], meter: Meter
    ) -> Checkpoint:
        """Copy the state for another process, which continues with `restore`."""
        tensors = {name: value.detach().cpu() for name, value in self.tensors().items()}
        return Checkpoint(self.step, tensors, self.facts(question, circumstances, meter))

    def restore(
        self,
        checkpoint: Checkpoint | None,
        question: Mapping[str, Any],
        circumstances: Mapping[str, Any],
        folder: Path,
    ) -> int | None:
        """Continue from a checkpoint.

        Parameters
        ----------
        checkpoint : Checkpoint or None
            The checkpoint. None: the training begins.
        question : mapping
            Settings and data. They must equal those of the checkpoint.
        circumstances : mapping
            Versions, device and threads. If they differ from those of the checkpoint, only the last
            bits of the result can differ.
        folder : Path
            Where the checkpoint lies, for messages.

        Returns
        -------
        step : int or None
            Number of steps that the checkpoint has done. None: there is no checkpoint.

        Raises
        ------
        ConfigError
            The checkpoint was written with other settings or data, or by another network.
        """
        if checkpoint is None:
            return None
        facts, tensors = checkpoint.facts, checkpoint.tensors
        weights = _under("model.", tensors)
        _refuse_other_settings(facts["question"], question, folder)
        _refuse_other_network(weights, self.model.state_dict(), folder)
        self.model.load_state_dict(weights)
        restore_values(self.optimizer, self.model, self._config, tensors)
        if facts["circumstances"]["device"] == circumstances["device"]:
            # The training chose these values by a trial, or by the free memory: another trial
            # could choose others, and the last bits of the result would differ.
            choices = facts["choices"]
            self._compute_in(getattr(torch, choices["precision"]), choices["micro_batch"])
            self.way = choices["way"]
        torch.set_rng_state(tensors["random.cpu"])
        if self.device.type == "cuda" and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"], self.device)
        if self.scaler.is_enabled() and facts["scaler"]:
            self.scaler.load_state_dict(facts["scaler"])
        self._restore_sums(checkpoint)
        if self.sizes and (before := facts.get("sizes", [])) != self.sizes:
            self.sizes = sorted({*before, *self.sizes})
            logger.warning(
                "%s was begun by %s processes, and %d go on: with ddp, the number of processes is "
                "part of the result",
                *(shown(folder), " and ".join(map(str, before)), self._ranks.size),
            )
        logger.info("resuming %s at step %d", shown(folder), self.step)
        _warn_of_other_circumstances(facts["circumstances"], circumstances, folder)
        return self.step

    def _restore_sums(self, checkpoint: Checkpoint) -> None:
        """Restore the number of steps, the times, and the sums since the last row of metrics."""
        facts = checkpoint.facts
        window = _under("window.", checkpoint.tensors)
        self.window.sums = {name: value.to(self.device) for name, value in window.items()}
        self.window.steps = facts["window_steps"]
        self.step, self.seconds = checkpoint.step, facts["seconds"]
        self.metrics, self.throughput = facts["metrics"], facts["throughput"]
        self.waited, self.bounds = facts["waited"], facts["bounds"]


@contextmanager
def global_settings(config: TrainingConfig, device: torch.device, seed: int) -> Iterator[None]:
    """Seed torch's generators and set determinism; restore both at the end of the block."""
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


def _refuse_other_settings(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    # An option of which an earlier version knew nothing had its default.
    options = TrainingConfig().model_dump(mode="json")
    found = list(differences(before["training"], now["training"], "training", options))
    found += differences({**before, "training": None}, {**now, "training": None})
    changes = [f"{name} {old!r} -> {new!r}" for name, old, new in found if name != IMAGES]
    if any(name == IMAGES for name, _, _ in found):
        changes.append("the images or their annotations are others")
    if changes:
        raise ConfigError(
            f"{folder} holds a training begun with other settings ({'; '.join(changes)}); "
            "restore the old settings, or use another folder"
        )


def _refuse_other_network(
    stored: Mapping[str, Tensor], own: Mapping[str, Tensor], folder: Path
) -> None:
    odd = [
        name
        for name in own.keys() | stored.keys()
        if name not in own or name not in stored or own[name].shape != stored[name].shape
    ]
    if odd:
        raise ConfigError(
            f"{folder} holds a training of another network (for example, {min(odd)} differs); "
            "build the same network, or use another folder"
        )


def _warn_of_other_circumstances(
    before: Mapping[str, Any], now: Mapping[str, Any], folder: Path
) -> None:
    if changes := _changes(before, now):
        logger.warning(
            "%s is resumed under other circumstances (%s): the result is as good as that of an "
            "uninterrupted run, but its last bits can differ",
            folder,
            changes,
        )


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    return "; ".join(f"{name} {old!r} -> {new!r}" for name, old, new in differences(before, now))


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Select the tensors whose names begin with a prefix, and remove the prefix."""
    return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
