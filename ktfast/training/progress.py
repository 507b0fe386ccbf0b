"""What a training reports while it runs: rows of metrics.jsonl, their text, waits for the feed."""

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ktfast.durable import parse_row, write_bytes
from ktfast.errors import reading
from ktfast.optional import problem_of
from ktfast.training.speed import SpeedBounds

logger = logging.getLogger(__name__)


class MetricsLog:
    """Rows of one stage in a metrics.jsonl that several stages share.

    Parameters
    ----------
    path : Path or None
        The file; None keeps no rows.
    stage : str
        Value of "stage" in the rows.
    events : Path, optional
        Folder for TensorBoard events of the same rows.
    """

    def __init__(self, path: Path | None, stage: str, events: Path | None = None) -> None:
        self.path = path
        self.stage = stage
        self.events = events
        self._writer: Any = None

    def cut(self, step: int) -> None:
        """Remove the stage's rows after `step`, and lines that a crash left incomplete."""
        if self.events is not None:
            self._writer = _event_writer(self.events, step)
        if self.path is None or not self.path.is_file():
            return
        before = self.path.read_bytes()
        kept = [line for line in before.splitlines() if self._keeps(line, step)]
        after = b"".join(line + b"\n" for line in kept)
        if after != before:
            write_bytes(self.path, after)

    def append(self, row: dict[str, Any]) -> None:
        """Append a row. The row survives a crash of the process, and after `sync` a power cut."""
        if self.path is not None:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(row, allow_nan=False) + "\n")
        if self._writer is not None:
            for key, value in row.items():
                if key not in ("time", "stage", "step"):
                    self._writer.add_scalar(f"{self.stage}/{key}", value, row["step"])

    def sync(self) -> None:
        """Put the rows on disk."""
        if self._writer is not None:
            self._writer.flush()
        if self.path is not None and self.path.is_file():
            with open(self.path, "rb+") as file:
                os.fsync(file.fileno())

    def _keeps(self, line: bytes, step: int) -> bool:
        """Whether a line is a whole row, of another stage or of a step up to `step`."""
        row = parse_row(line)
        if row is None:
            return False
        number = row.get("step", 0)
        return row.get("stage") != self.stage or (isinstance(number, int) and number <= step)


def logged(path: Path, stage: str, figure: str) -> list[tuple[int, float]]:
    """Read a figure of a training from metrics.jsonl.

    Parameters
    ----------
    path : Path
        The file; it may be missing.
    stage : str
        Value of "stage" in the rows of the training.
    figure : str
        Name of the figure.

    Returns
    -------
    found : list of (int, float)
        Step and figure of each row that has the figure. Damaged lines are left out.

    Raises
    ------
    DataError
        The file cannot be read.
    """
    if not path.is_file():
        return []
    with reading(path, "the metrics of a run", "remove the file"):
        rows = [parse_row(line) for line in path.read_bytes().splitlines()]
    return [
        (row["step"], float(row[figure]))
        for row in rows
        if row is not None
        and row.get("stage") == stage
        and isinstance(row.get("step"), int)
        and isinstance(row.get(figure), int | float)
    ]


def _event_writer(folder: Path, step: int) -> Any:
    """TensorBoard's writer, which drops events after `step`; None if it does not work here."""
    problem = problem_of("tensorboard")
    if problem is None:
        problem = problem_of("torch.utils.tensorboard")
    if problem is not None:
        logger.warning(
            "tensorboard %s: no events are written to %s; install tensorboard, or set tensorboard"
            " to false",
            f"cannot be loaded ({problem})" if problem else "is not installed",
            folder,
        )
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step + 1)


class Window:
    """Sums of the loss and the metrics over the steps since the last row, on the device.

    `add` does not wait for a GPU; `read` does.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.steps = 0
        self.images = 0

    def add(self, values: Mapping[str, Tensor], images: int) -> None:
        """Add the values of a step, float64, and the number of its images."""
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.steps += 1
        self.images += images

    def read(self) -> dict[str, float]:
        """Mean of each value over the steps, the loss first."""
        names = sorted(self.sums, key=lambda name: (name != "loss", name))
        return {name: float(self.sums[name]) / max(self.steps, 1) for name in names}

    def clear(self) -> None:
        """Start the next row."""
        self.sums, self.steps, self.images = {}, 0, 0


class Meter:
    """Measure the images per second, and how long the device waits for the feed.

    On a CPU the wait is the time spent in the feed. On a GPU the wait is the idle time of the
    stream between two steps, measured by events, because the host runs ahead of the GPU and the
    host's own wait does not delay the GPU.

    Parameters
    ----------
    device : torch.device
        Device on which the model is trained.

    Attributes
    ----------
    rates : list of float
        Images per second of each row.
    waited : float
        Seconds waited, up to the last row.
    """

    def __init__(self, device: torch.device) -> None:
        self.rates: list[float] = []
        self.waited = 0.0
        self._cuda = device.type == "cuda"
        self._gaps: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._row_waited = 0.0
        self._row_began = self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds since the meter was made."""
        return time.perf_counter() - self._began

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time a block that fetches a batch."""
        began = time.perf_counter()
        if self._cuda:
            gap = (_event(), _event())
            gap[0].record()
        yield
        if self._cuda:
            gap[1].record()
            self._gaps.append(gap)
        else:
            self._row_waited += time.perf_counter() - began

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Leave the time of a block out of the speed of the row."""
        if self._cuda:
            torch.cuda.synchronize()
        began = time.perf_counter()
        yield
        self._row_began += time.perf_counter() - began

    def row(self, images: int) -> tuple[float, float]:
        """End a row of `images` images; waits for the GPU.

        Returns
        -------
        images_per_second : float
            Rate since the last row.
        waited : float
            Share of the time since the last row in which the device waited for the feed.
        """
        for begin, end in self._gaps:
            end.synchronize()
            self._row_waited += begin.elapsed_time(end) / 1000
        now = time.perf_counter()
        seconds = now - self._row_began
        share = self._row_waited / seconds
        self.rates.append(images / seconds)
        self.waited += self._row_waited
        self._row_began, self._row_waited, self._gaps = now, 0.0, []
        return self.rates[-1], share


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def row_parts(row: Mapping[str, Any], bounds: SpeedBounds) -> list[str]:
    """Spell the values of a row for the live line, the most important first.

    Parameters
    ----------
    row : mapping
        A row of metrics.jsonl.
    bounds : SpeedBounds
        What bounds the speed of the training.

    Returns
    -------
    parts : list of str
        Such as "loss 4.210", "accuracy 0.130", "182 images/s", "feed wait 2%".
    """
    known = ("time", "stage", "step", "epoch", "learning_rate", "images_per_second", "loader_wait")
    values = [f"{key} {value:.3f}" for key, value in row.items() if key not in known]
    return [
        *values,
        f"{row['images_per_second']:,.0f} images/s",
        f"epoch {row['epoch']:.2f}",
        f"feed wait {row['loader_wait']:.0%}",
        f"bound by {bounds.bound_by}",
        f"{bounds.flop_utilization:.0%} of peak",
    ]
