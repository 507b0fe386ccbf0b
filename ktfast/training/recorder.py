"""Write down how a training goes: rows of metrics, the live line and checkpoints."""

import dataclasses
import logging
import math
import statistics
import time
from collections.abc import Mapping
from typing import Any

from ktfast.errors import InputError
from ktfast.training.checkpoint import CheckpointFolder
from ktfast.training.guessing import PATIENCE, AtChanceError, Course, Guessing
from ktfast.training.live_line import LiveLine
from ktfast.training.progress import Meter, MetricsLog, logged, row_parts
from ktfast.training.speed import Ceilings
from ktfast.training.state import TrainingState
from ktfast.training.watch import Watch

logger = logging.getLogger(__name__)


class DivergedError(InputError):
    """The loss became infinite or not a number."""


class Recorder:
    """Record a session of a training, which begins when the recorder is made.

    Parameters
    ----------
    state : TrainingState
        State of the training.
    meter : Meter
        Clock of the session.
    ceilings : Ceilings
        Speed of feed and device, each alone.
    log : MetricsLog
        Destination of the rows.
    line : LiveLine
        Line on the terminal that shows the last row.
    checkpoints : CheckpointFolder
        Destination of the checkpoints.
    name : str
        Name of the training.
    total : int
        Number of steps of the whole training.
    batches_per_epoch : int
        Number of steps of an epoch.
    question : mapping
        Settings that a resumed training must share; stored in every checkpoint.
    circumstances : mapping
        Facts of the machine that a resumed training should share; stored in every checkpoint.
    guessing : Guessing, optional
        Accuracy of guessing, and what to do if the network stays there.
    watch : Watch, optional
        A measure that is taken several times.
    """

    def __init__(
        self,
        state: TrainingState,
        meter: Meter,
        ceilings: Ceilings,
        log: MetricsLog,
        line: LiveLine,
        checkpoints: CheckpointFolder,
        *,
        name: str,
        total: int,
        batches_per_epoch: int,
        question: Mapping[str, Any],
        circumstances: Mapping[str, Any],
        guessing: Guessing | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.state = state
        self.meter = meter
        self.ceilings = ceilings
        self.log = log
        self.line = line
        self.checkpoints = checkpoints
        self.name = name
        self.total = total
        self.batches_per_epoch = batches_per_epoch
        self.question = question
        self.circumstances = circumstances
        self.guessing = guessing
        self.watch = watch
        earlier = [] if log.path is None else logged(log.path, name, "accuracy")
        self._course = Course(total, [row for row in earlier if row[0] <= state.step])
        self._warned = False
        self._saved = time.monotonic()

    def write_row(self) -> None:
        """Append a row to metrics.jsonl, averaged over the steps since the last row; show the row.

        Raises
        ------
        DivergedError
            The loss or a metric is not finite.
        AtChanceError
            The network is no better than guessing, and `guessing.stop` is set. A checkpoint is
            written first.
        """
        state, meter = self.state, self.meter
        state.metrics = self._finite_means()
        rate, waited = meter.row(state.window.images)
        state.throughput = statistics.median(meter.rates)
        bounds = self.ceilings.bounds(state.throughput, meter.waited / meter.seconds)
        state.bounds = dataclasses.asdict(bounds)
        state.window.clear()
        row = {
            "time": time.time(),
            "stage": self.name,
            "step": state.step,
            "epoch": state.step / self.batches_per_epoch,
            **state.metrics,
            "learning_rate": state.optimizer.param_groups[0]["lr"],
            "images_per_second": rate,
            "loader_wait": waited,
        }
        self.log.append(row)
        if "accuracy" in state.metrics:
            self._course.add(state.step, state.metrics["accuracy"])
        at_chance = self._at_chance()
        warning = ["NEAR CHANCE"] if at_chance else []
        self.line.advance(state.step, [*warning, *row_parts(row, bounds)])
        if at_chance:
            self._warn_of_chance()

    def watch_network(self) -> None:
        """Take the measure of the watch if it is due, and append a row with its figures."""
        state = self.state
        if self.watch is None or not self.watch.due(state.step, self.total):
            return
        with self.meter.aside():
            figures = self.watch.measure(state.step)
        row = {"time": time.time(), "stage": self.name, "step": state.step}
        self.log.append({**row, "epoch": state.step / self.batches_per_epoch, **figures})

    def _at_chance(self) -> bool:
        return (
            self.guessing is not None
            and self.state.step >= PATIENCE * self.total
            and self.guessing.at_chance(self.state.metrics)
            and not self.guessing.still_learns(self._course.tenths())
        )

    def _warn_of_chance(self) -> None:
        """Log once that the network is no better than guessing, or end the training."""
        assert self.guessing is not None
        state = self.state
        sentence = self.guessing.sentence(self.name, state.metrics, state.step, self.total)
        if self.guessing.stop:
            self.save()
            raise AtChanceError(sentence)
        if not self._warned:
            logger.warning("%s", sentence)
        self._warned = True

    def seconds_since_save(self) -> float:
        """Seconds since the last checkpoint of the session, or since the session began."""
        return time.monotonic() - self._saved

    def save(self) -> None:
        """Put the rows on disk and write a checkpoint.

        Raises
        ------
        DivergedError
            The loss or a metric is not finite. Then no checkpoint is written.
        OSError
            The checkpoint could not be written. The earlier checkpoints are unchanged.
        """
        self._finite_means()
        self.log.sync()
        facts = self.state.facts(self.question, self.circumstances, self.meter)
        self.checkpoints.save(self.state.step, self.state.tensors(), facts)
        self._saved = time.monotonic()

    def _finite_means(self) -> dict[str, float]:
        """Means of the loss and the metrics since the last row; waits for the device."""
        means = self.state.window.read()
        for key, value in means.items():
            if not math.isfinite(value):
                rate = self.state.optimizer.param_groups[0]["lr"]
                raise DivergedError(
                    f"{key} of {self.name} became {value} at step {self.state.step} or shortly"
                    f" before; lower learning_rate (now {rate:g}) or raise warmup"
                )
        return means
