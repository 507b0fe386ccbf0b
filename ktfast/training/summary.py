"""The summary of a training: steps, metrics, speed, and what bounded the speed."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from ktfast.training.progress import Meter
from ktfast.training.speed import SpeedBounds
from ktfast.training.state import TrainingState


@dataclass(frozen=True)
class TrainingSummary:
    """How a training went.

    Attributes
    ----------
    steps : int
        Steps done, over all sessions.
    epochs : float
        Epochs done, over all sessions.
    seconds : float
        Seconds spent, over all sessions.
    images_per_second : float
        Median over the rows of metrics.jsonl from the last session that wrote any.
    loader_wait : float
        Share of the time in which the device waited for the feed.
    metrics : dict of str to float
        Loss and metrics of the last row of metrics.jsonl.
    resumed_from : int or None
        Step of the checkpoint from which the training continued.
    finished : bool
        False if `stop_after` ended the training.
    bounds : SpeedBounds or None
        What bounded the speed in the session that wrote the last row; None before any row.
    precision : str
        Type of the matrix products.
    micro_batch : int
        Images per forward and backward pass.
    way : str
        How the network was run: plain, compiled, as CUDA graphs.
    ddp_processes : list of int
        Numbers of processes that have shared the training, over all sessions, if `training.ddp` is
        set: the weights depend on the numbers. Else empty.
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
    ddp_processes: list[int] = dataclasses.field(default_factory=list)

    def speed(self) -> dict[str, Any]:
        """The facts about speed and sharing that a stage's result holds, as JSON values."""
        bounds = self.bounds
        shared = {"ddp_processes": self.ddp_processes} if self.ddp_processes else {}
        return {
            **shared,
            "feed_wait": self.loader_wait,
            "precision": self.precision,
            "micro_batch": self.micro_batch,
            "way": self.way,
            "bounds": bounds and {"bound_by": bounds.bound_by, **dataclasses.asdict(bounds)},
        }


def summarize(
    state: TrainingState,
    meter: Meter,
    resumed_from: int | None,
    batches_per_epoch: int,
    total: int,
) -> TrainingSummary:
    """Summarise a training from its state and the clock of its last session."""
    seconds = state.seconds + meter.seconds
    return TrainingSummary(
        steps=state.step,
        epochs=state.step / batches_per_epoch,
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
        ddp_processes=list(state.sizes),
    )
