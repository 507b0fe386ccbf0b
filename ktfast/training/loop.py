"""The one training loop, shared by every stage that trains a network.

It can be stopped or killed at any time and continues from its last checkpoint; on a CPU, and on a
GPU in deterministic mode, it ends with the weights of an uninterrupted run, bit for bit.
"""

import contextlib
import dataclasses
import json
import logging
import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ktfast.config import TrainingConfig, result_options
from ktfast.durable import sha256_json
from ktfast.errors import ConfigError, InputError
from ktfast.images.feeds.base import Feed
from ktfast.training.checkpoint import CheckpointFolder
from ktfast.training.delivery import deliver
from ktfast.training.execution import fastest, running, step_seconds, ways
from ktfast.training.gradients import StepOutput, Task
from ktfast.training.memory import kept_heap
from ktfast.training.progress import LiveLine, Meter, MetricsLog
from ktfast.training.signals import Interrupted, Signals
from ktfast.training.speed import Ceilings, SpeedBounds, feed_rate, image_flops, matmul_peak
from ktfast.training.state import TrainingState, global_settings

logger = logging.getLogger(__name__)

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
    bounds : what bounded its speed in the session that wrote the last row; None before any row.
    precision : type of the matrix products.
    micro_batch : images at a time.
    way : how the network was run: plain, compiled, as CUDA graphs.
    """

    steps: int
    epochs: float
    seconds: float
    images_per_second: float
    loader_wait: float
    metrics: dict[str, float]
    resumed_from: int | None
    finished: bool
    bounds: SpeedBounds | None
    precision: str
    micro_batch: int
    way: str

    def speed(self) -> dict[str, Any]:
        """What a stage's result tells about the speed, as JSON."""
        bounds = self.bounds
        return {
            "feed_wait": self.loader_wait,
            "precision": self.precision,
            "micro_batch": self.micro_batch,
            "way": self.way,
            "bounds": bounds and {"bound_by": bounds.bound_by, **dataclasses.asdict(bounds)},
        }


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
        kept_heap() if device.type == "cpu" else contextlib.nullcontext(),
        Signals() as signals,
        LiveLine(name, total, enabled=progress) as line,
    ):
        state = TrainingState(task, config, device)
        resumed_from = state.restore(checkpoints.load(), question, circumstances, folder)
        log.cut(state.step)
        if state.step == total:
            return _summary(state, Meter(device), resumed_from, feed.batches_per_epoch, total)
        ceilings = _prepare(state, feed, config, total)
        first, stop, saved = state.step, False, time.monotonic()
        batches, meter = deliver(feed, first, total, device), Meter(device)
        with running(task.model, state.way, device):
            while not stop:
                with meter.waiting():
                    epoch, batch = next(batches)
                state.set_rate(learning_rate_factor(config, state.step, total))
                state.advance(batch, epoch)
                # Counted from the end, so that the last row is never the mean of a few steps only.
                if (total - state.step) % config.log_every == 0:
                    row = _row(state, meter, ceilings, name, feed.batches_per_epoch)
                    log.append(row)
                    eta = meter.seconds / (state.step - first) * (total - state.step)
                    line.show(row, SpeedBounds(**state.bounds).text(), eta)
                stop = (
                    state.step == total
                    or signals.received is not None
                    or state.step - first == stop_after
                )
                if stop or time.monotonic() - saved >= 60 * config.checkpoint_minutes:
                    _finite(state, name)
                    log.sync()
                    facts = state.facts(question, circumstances, meter)
                    checkpoints.save(state.step, state.tensors(), facts)
                    saved = time.monotonic()
        if signals.received is not None:
            raise Interrupted(signals.received)
    if progress and state.bounds:
        logger.info("%s: %s", name, SpeedBounds(**state.bounds).summary())
    return _summary(state, meter, resumed_from, feed.batches_per_epoch, total)


def _summary(
    state: TrainingState, meter: Meter, resumed_from: int | None, per_epoch: int, total: int
) -> TrainingSummary:
    seconds = state.seconds + meter.seconds
    return TrainingSummary(
        steps=state.step,
        epochs=state.step / per_epoch,
        seconds=seconds,
        images_per_second=state.throughput,
        loader_wait=(state.waited + meter.waited) / seconds,
        metrics=state.metrics,
        resumed_from=resumed_from,
        finished=state.step == total,
        bounds=SpeedBounds(**state.bounds) if state.bounds else None,
        precision=str(state.gradients.dtype).removeprefix("torch."),
        micro_batch=state.gradients.micro_batch,
        way=state.way,
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


def _prepare(state: TrainingState, feed: Feed, config: TrainingConfig, total: int) -> Ceilings:
    """Measure what can be reached, and choose how the network is run, if that is not settled."""
    gradients, left = state.gradients, total - state.step
    epoch = state.step // feed.batches_per_epoch
    rate, batch = feed_rate(feed, epoch, batches=left)
    ceilings = Ceilings(
        feed_rate=rate,
        image_flops=image_flops(gradients, batch, epoch),
        peak_flops=matmul_peak(state.device, gradients.dtype),
    )
    if not state.way:
        seconds_of = partial(step_seconds, gradients, batch, epoch)
        state.way = fastest(ways(config, state.device), seconds_of, left)
    return ceilings


def _row(
    state: TrainingState, meter: Meter, ceilings: Ceilings, name: str, batches_per_epoch: int
) -> dict[str, float | int | str]:
    """A row of metrics.jsonl, averaged over the steps since the row before."""
    state.metrics = _finite(state, name)
    rate, waited = meter.row(state.window.images)
    state.throughput = statistics.median(meter.rates)
    bounds = ceilings.bounds(state.throughput, meter.waited / meter.seconds)
    state.bounds = dataclasses.asdict(bounds)
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
    if (balance := plan.pop("balance")) is not None:
        plan["balance"] = balance.sha256
    question = {
        "training": result_options(config),
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
