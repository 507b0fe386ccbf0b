"""The one training loop, shared by every stage that trains a network.

It can be stopped or killed at any time and continues from its last checkpoint; on a CPU, and on a
GPU in deterministic mode, it ends with the weights of an uninterrupted run, bit for bit.
"""

import dataclasses
import json
import math
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ktfast.checkpoint import CheckpointFolder
from ktfast.config import TrainingConfig
from ktfast.data.feed import Batch, Feed
from ktfast.durable import sha256_json
from ktfast.errors import ConfigError, DataError, InputError
from ktfast.interruption import Interrupted, Signals
from ktfast.progress import LiveLine, Meter, MetricsLog
from ktfast.training_state import TrainingState, global_settings

__all__ = [
    "DivergedError",
    "Interrupted",
    "StepOutput",
    "Task",
    "TrainingConfig",
    "TrainingSummary",
    "learning_rate_factor",
    "train",
]

# Options that decide when things are written down, not what is computed.
_HARMLESS = frozenset({"checkpoint_minutes", "log_every", "tensorboard"})


@dataclass(frozen=True)
class StepOutput:
    """Loss of a batch, and further values to report; all tensors without dimensions."""

    loss: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


class Task(Protocol):
    """What is learnt: a model, and its loss on a batch."""

    @property
    def model(self) -> nn.Module:
        """The model that is trained."""
        ...

    def step(self, batch: Batch, epoch: int) -> StepOutput:
        """Loss of the model on a batch of an epoch."""
        ...


@dataclass(frozen=True)
class TrainingSummary:
    """How a training went.

    Attributes
    ----------
    steps, epochs : done in all.
    seconds : spent in all, over every resumption.
    images_per_second : median over the rows of metrics.jsonl since the last resumption.
    loader_wait : share of the time that the feed kept the device waiting.
    metrics : loss and metrics, averaged over the last row of metrics.jsonl.
    resumed_from : step of the checkpoint that was continued, or None.
    finished : False if `stop_after` ended it.
    """

    steps: int
    epochs: float
    seconds: float
    images_per_second: float
    loader_wait: float
    metrics: dict[str, float]
    resumed_from: int | None
    finished: bool


class DivergedError(InputError):
    """The loss became infinite or not a number."""


def train(
    task: Task,
    feed: Feed,
    config: TrainingConfig,
    folder: Path,
    *,
    name: str,
    seed: int,
    device: str | torch.device = "cpu",
    progress: bool = True,
    metrics_path: Path | None = None,
    stop_after: int | None = None,
    identity: Mapping[str, Any] | None = None,
) -> TrainingSummary:
    """Train a task's model in place, from the last checkpoint in `folder` if there is one.

    Parameters
    ----------
    task : model and loss.
    feed : images; one batch is one step.
    config : optimiser, schedule, precision, checkpoints.
    folder : where checkpoints go; made if it is missing.
    name : how the training is called in metrics and on the live line.
    seed : of dropout; torch's global generators are as before when this returns.
    device : where the model is trained.
    progress : show the live line.
    metrics_path : metrics.jsonl to append to, or None.
    stop_after : save and return after this many steps, as after an interruption.
    identity : further JSON values that a resumed training must share, such as task options.

    Raises
    ------
    ConfigError : the feed has another batch size, or the checkpoints come from other settings,
        other data or another network.
    DataError : there are checkpoints, but none can be used; or the feed lacks batches.
    DivergedError : the loss is no longer finite.
    Interrupted : SIGINT or SIGTERM came, and a checkpoint was written.
    OSError : a checkpoint could not be written; the earlier ones are as they were.
    """
    if feed.batch_size != config.batch_size:
        raise ConfigError(
            f"batch_size is {config.batch_size}, but the feed gives batches of {feed.batch_size}"
        )
    device, folder = torch.device(device), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    total = max(1, math.ceil(config.epochs * feed.batches_per_epoch - 1e-9))
    question = _question(feed, config, name, seed, identity)
    circumstances = _circumstances(feed, device)
    checkpoints = CheckpointFolder(folder)
    events = folder / "tensorboard" if config.tensorboard else None
    log = MetricsLog(metrics_path, name, events)
    with (
        global_settings(config, device, int(sha256_json([name, seed])[:15], 16)),
        Signals() as signals,
        LiveLine(name, total, enabled=progress) as line,
    ):
        state = TrainingState(task.model, config, device)
        resumed_from = state.restore(checkpoints.load(), question, circumstances, folder)
        log.cut(state.step)
        first, stop, saved = state.step, False, time.monotonic()
        batches, meter = _batches(feed, first, total), Meter(device)
        while state.step < total and not stop:
            with meter.waiting():
                epoch, batch = next(batches)
            state.set_rate(learning_rate_factor(config, state.step, total))
            _step(task, state, batch, epoch, config.accumulate)
            done = state.step == total
            # Counted from the end, so that the last row is never the mean of a few steps only.
            if (total - state.step) % config.log_every == 0:
                row = _row(state, meter, name, feed.batches_per_epoch)
                log.append(row)
                line.show(row, eta=meter.seconds / (state.step - first) * (total - state.step))
            stop = signals.received is not None or state.step - first == stop_after
            if done or stop or time.monotonic() - saved >= 60 * config.checkpoint_minutes:
                _finite(state, name)
                log.sync()
                facts = state.facts(question, circumstances, meter)
                checkpoints.save(state.step, state.tensors(), facts)
                saved = time.monotonic()
        if signals.received is not None:
            raise Interrupted(signals.received)
        seconds = state.seconds + meter.seconds
    return TrainingSummary(
        steps=state.step,
        epochs=state.step / feed.batches_per_epoch,
        seconds=seconds,
        images_per_second=state.throughput,
        loader_wait=(state.waited + meter.waited) / seconds,
        metrics=state.metrics,
        resumed_from=resumed_from,
        finished=state.step == total,
    )


def learning_rate_factor(config: TrainingConfig, step: int, total: int) -> float:
    """What the initial learning rate is multiplied by in a step (0 .. total - 1)."""
    warm = round(config.warmup * total)
    if step < warm:
        return (step + 1) / warm
    done = step / total
    if config.schedule == "step":
        return config.drop_factor ** sum(done >= at for at in config.drop_at)
    if config.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))
    return 1.0


def _step(task: Task, state: TrainingState, batch: Batch, epoch: int, parts: int) -> None:
    """One step of SGD on a batch, whose gradient may be summed up over micro-batches."""
    device, size = state.device, len(batch.images)
    for part in _split(batch, parts, device):
        share = len(part.images) / size
        with torch.autocast(device.type, state.dtype, enabled=state.dtype != torch.float32):
            output = task.step(part, epoch)
        torch.autograd.backward(state.scaler.scale(output.loss * share))
        state.window.add({"loss": output.loss, **output.metrics}, share)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad(set_to_none=True)
    state.step += 1
    state.window.steps += 1
    state.window.images += size


def _split(batch: Batch, parts: int, device: torch.device) -> Iterator[Batch]:
    """The batch on the device, in at most `parts` pieces."""
    size = -(-len(batch.images) // parts)
    for start in range(0, len(batch.images), size):
        yield Batch(
            *(
                value[start : start + size].to(device, non_blocking=True)
                for value in (batch.images, batch.sample_ids, batch.rows)
            )
        )


def _batches(feed: Feed, step: int, total: int) -> Iterator[tuple[int, Batch]]:
    """Batches from `step` to `total` with their epochs."""
    while step < total:
        epoch, start = divmod(step, feed.batches_per_epoch)
        end = min(total, (epoch + 1) * feed.batches_per_epoch)
        for batch in feed.epoch(epoch, start):
            yield epoch, batch
            step += 1
            if step == end:
                break
        else:
            raise DataError(
                f"the feed ended epoch {epoch} {end - step} batches early; it promised"
                f" {feed.batches_per_epoch} batches an epoch"
            )


def _row(
    state: TrainingState, meter: Meter, name: str, batches_per_epoch: int
) -> dict[str, float | int | str]:
    """A row of metrics.jsonl, averaged over the steps since the row before."""
    state.metrics = _finite(state, name)
    rate, waited = meter.row(state.window.images)
    state.throughput = statistics.median(meter.rates)
    state.window.clear()
    return {
        "time": time.time(),
        "stage": name,
        "step": state.step,
        "epoch": state.step / batches_per_epoch,
        **state.metrics,
        "learning_rate": state.optimizer.param_groups[0]["lr"],
        "images_per_second": rate,
        "loader_wait": waited,
    }


def _finite(state: TrainingState, name: str) -> dict[str, float]:
    """Mean of the loss and metrics since the last row; waits for the device.

    Raises
    ------
    DivergedError : one of them is not finite.
    """
    values = state.window.read()
    for key, value in values.items():
        if not math.isfinite(value):
            rate = state.optimizer.param_groups[0]["lr"]
            raise DivergedError(
                f"{key} of {name} became {value} at step {state.step} or shortly before; lower"
                f" learning_rate (now {rate:g}) or raise warmup"
            )
    return values


def _question(
    feed: Feed, config: TrainingConfig, name: str, seed: int, identity: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What a resumed training must share with the one that wrote the checkpoint, as JSON."""
    plan = dataclasses.asdict(feed.plan)
    for place in ("device", "n_threads"):
        plan.pop(place)
    question = {
        "training": config.model_dump(mode="json", exclude=set(_HARMLESS)),
        "name": name,
        "seed": seed,
        "feed": {**plan, "images": feed.source.fingerprint},
        "identity": dict(identity or {}),
    }
    as_read_back: dict[str, Any] = json.loads(json.dumps(question))
    return as_read_back


def _circumstances(feed: Feed, device: torch.device) -> dict[str, Any]:
    """What cannot change the quality of a result, but its last bits."""
    return {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "feed": feed.kind,
    }
