"""The one training loop, shared by every stage that trains a network.

A training may be stopped or killed at any time, and continues from its last checkpoint. On a CPU,
and on a GPU in deterministic mode, a resumed training ends with the weights of an uninterrupted
one, bit for bit.
"""

import contextlib
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ktfast.config import TrainingConfig
from ktfast.errors import ConfigError
from ktfast.images.feeds.base import Feed
from ktfast.kmeans.distributed.ranks import ALONE, Ranks
from ktfast.training.checkpoint import CheckpointFolder
from ktfast.training.delivery import deliver, ends_with_one
from ktfast.training.execution import fastest, running, step_seconds, ways
from ktfast.training.gradients import StepOutput, Task
from ktfast.training.guessing import AtChanceError, Guessing
from ktfast.training.identity import circumstances_of, question_of
from ktfast.training.live_line import LiveLine, spelled_time
from ktfast.training.memory import kept_heap
from ktfast.training.progress import Meter, MetricsLog
from ktfast.training.recorder import DivergedError, Recorder
from ktfast.training.schedule import (
    check_weights,
    compare_circumstances,
    learning_rate_factor,
    number_of_steps,
    torch_seed,
)
from ktfast.training.signals import Interrupted, Signals
from ktfast.training.speed import (
    Ceilings,
    SpeedBounds,
    feed_rate,
    image_flops,
    image_seconds,
    matmul_peak,
)
from ktfast.training.state import TrainingState, global_settings
from ktfast.training.summary import TrainingSummary, summarize
from ktfast.training.watch import Watch

logger = logging.getLogger(__name__)

LONG_SECONDS = 60.0
"""The expected time of a training is logged if it is longer, seconds."""

__all__ = [
    "AtChanceError",
    "DivergedError",
    "Guessing",
    "Interrupted",
    "StepOutput",
    "Task",
    "TrainingSummary",
    "Watch",
    "learning_rate_factor",
    "train",
]


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
    guessing: Guessing | None = None,
    watch: Watch | None = None,
    ranks: Ranks = ALONE,
) -> TrainingSummary:
    """Train a task's model in place, from the last checkpoint in `folder` if there is one.

    Parameters
    ----------
    task : Task
        Model and loss.
    feed : Feed
        Images. One batch is one step.
    config : TrainingConfig
        Optimiser, schedule, precision, checkpoints.
    folder : Path
        Folder of the checkpoints; created if missing.
    name : str
        Name of the training in metrics and on the live line.
    seed : int
        Seed of dropout. The function restores torch's global generators before it returns.
    device : str or torch.device
        Device on which the model is trained.
    progress : bool
        Whether to show the live line: a progress bar on a terminal, else a log line every ten
        seconds. A training on a CPU that takes longer than a minute begins with a forecast.
    metrics_path : Path, optional
        metrics.jsonl to which rows are appended.
    stop_after : int, optional
        Save and return after this number of steps, as an interruption does.
    identity : mapping of str to JSON values, optional
        Further values that a resumed training must share, such as options of the task.
    guessing : Guessing, optional
        Accuracy of guessing. A training that is not better after 40 % of its steps warns the user,
        or ends.
    watch : Watch, optional
        A measure of the network, which becomes rows of metrics.jsonl of its own.
    ranks : Ranks, optional
        The processes that share every batch, by lanes or by ddp. Rank 0 calls this function, and
        the other processes call `ktfast.training.assistance.assist`. The default is this process
        alone.

    Returns
    -------
    summary : TrainingSummary
        How the training went, over all its sessions.

    Raises
    ------
    ConfigError
        The feed has another batch size, or the checkpoints come from other settings, other data
        or another network.
    DataError
        Every checkpoint is damaged, or the feed delivers too few batches.
    DivergedError
        The loss is infinite or not a number.
    AtChanceError
        The network is no better than guessing, and `guessing.stop` is set. The training has written
        a checkpoint.
    Interrupted
        SIGINT, SIGTERM or SIGHUP came. The training has written a checkpoint.
    OSError
        A checkpoint could not be written. The earlier checkpoints are unchanged.
    CommunicationError
        Another process has failed, or the weights of two processes differ.
    """
    if feed.batch_size != config.batch_size:
        raise ConfigError(
            f"batch_size is {config.batch_size}, but the feed gives batches of {feed.batch_size};"
            " give both the same size"
        )
    device, folder = torch.device(device), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    total, own_seed = number_of_steps(feed, config), torch_seed(name, seed)
    question = question_of(feed, config, name, seed, identity)
    circumstances = circumstances_of(feed, device)
    checkpoints = CheckpointFolder(folder)
    log = MetricsLog(metrics_path, name, folder / "tensorboard" if config.tensorboard else None)
    with (
        global_settings(config, device, own_seed),
        kept_heap() if device.type == "cpu" else contextlib.nullcontext(),
        Signals() as signals,
        LiveLine(name, total, enabled=progress) as line,
    ):
        state = TrainingState(task, config, device, ranks=ranks, seed=own_seed)
        resumed_from = state.restore(checkpoints.load(), question, circumstances, folder)
        # A training that begins has no rows. Step 0 may have one in the file: its measure.
        log.cut(state.step if resumed_from is not None else -1)
        if state.step == total:
            ranks.broadcast(None)
            return summarize(state, Meter(device), resumed_from, feed.batches_per_epoch, total)
        ceilings, forecast = _prepare(state, feed, config, total)
        if progress and forecast is not None and forecast > LONG_SECONDS:
            logger.info("%s: about %s expected, by a trial", name, spelled_time(forecast))
        line.start(state.step, forecast)
        meter = Meter(device)
        recorder = Recorder(
            state,
            meter,
            ceilings,
            log,
            line,
            checkpoints,
            name=name,
            total=total,
            batches_per_epoch=feed.batches_per_epoch,
            question=question,
            circumstances=circumstances,
            guessing=guessing,
            watch=watch,
        )
        if resumed_from is None:
            recorder.watch_network()
        last = min(total, state.step + stop_after) if stop_after else total
        if ranks.size > 1:
            copy = state.copy(question, circumstances, meter)
            ranks.broadcast((copy, last, state.gradients.takes_one))
            compare_circumstances(feed, device, ranks)
        with running(task.model, state.way, device), state.connected():
            _run_steps(state, feed, config, recorder, signals, last, ranks)
        if signals.received is not None:
            raise Interrupted(signals.received)
    if progress and state.bounds:
        logger.info("%s: %s", name, SpeedBounds(**state.bounds).summary())
    return summarize(state, meter, resumed_from, feed.batches_per_epoch, total)


def _run_steps(
    state: TrainingState,
    feed: Feed,
    config: TrainingConfig,
    recorder: Recorder,
    signals: Signals,
    last: int,
    ranks: Ranks,
) -> None:
    """Run steps and record them, until step `last` is done or a signal comes."""
    total, stop = recorder.total, False
    lone = state.gradients.takes_one is not False
    batches = deliver(feed, state.step, total, state.device, lone=lone)
    while not stop:
        with recorder.meter.waiting():
            epoch, batch = next(batches)
        state.set_rate(learning_rate_factor(config, state.step, total))
        state.advance(batch, epoch)
        check_weights(state, config, total, ranks)
        # Rows of metrics are `log_every` steps apart, counted back from the last step: the last
        # row is then a mean over `log_every` steps.
        if (total - state.step) % config.log_every == 0:
            recorder.write_row()
        else:
            recorder.line.advance(state.step)
        recorder.watch_network()
        stop = state.step == last or signals.agreed(ranks) is not None
        if stop or recorder.seconds_since_save() >= 60 * config.checkpoint_minutes:
            recorder.save()


def _prepare(
    state: TrainingState, feed: Feed, config: TrainingConfig, total: int
) -> tuple[Ceilings, float | None]:
    """Measure the feed alone and the device alone; choose the way to run the network if unset.

    On a CPU, where a step may take minutes, also forecast the seconds that the training takes. On a
    GPU the first steps show them soon.
    """
    gradients, steps_left = state.gradients, total - state.step
    epoch = state.step // feed.batches_per_epoch
    rate, batch = feed_rate(feed, epoch, batches=steps_left)
    if ends_with_one(feed) or config.is_shared:
        gradients.learn_takes_one(batch.part(0, 1), epoch)
    ceilings = Ceilings(
        feed_rate=rate,
        image_flops=image_flops(gradients, batch, epoch),
        peak_flops=matmul_peak(state.device, gradients.dtype),
    )
    forecast = None
    if state.device.type == "cpu":
        images = feed.batch_size * steps_left
        forecast = images * (image_seconds(gradients, batch, epoch, images) + 1 / rate)
    if not state.way:
        seconds_of = partial(step_seconds, gradients, batch, epoch)
        state.way = fastest(ways(config, state.device), seconds_of, steps_left)
    return ceilings, forecast
