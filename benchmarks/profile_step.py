"""Measure where the processor time of a training step on puzzles goes, operator by operator.

    python benchmarks/profile_step.py FOLDER --steps 12
    python benchmarks/profile_step.py FOLDER --set pretext.training.channels_last=false

The script trains the puzzle network of a recipe on one thread. The clock is the processor time of
the thread, so that other jobs of the machine disturb little. The table gives the median over the
steps after the first quarter. `feed and the rest` is everything between the operators: Python, the
feed, the metrics and the cost of the measurement itself, which adds about 5 % to a step.
"""

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from ktfast.bench.core.peak import peaks
from ktfast.config import load_config
from ktfast.images.feeds.base import Batch
from ktfast.images.feeds.make import make_feed
from ktfast.images.index import ImageIndex
from ktfast.images.prepare import prepare
from ktfast.models import initialize
from ktfast.ops import jigsaw_tiles
from ktfast.pipeline.steps.networks import pretext_trunk
from ktfast.pretext import task as puzzle_task
from ktfast.pretext.jigsaw import TilePretext
from ktfast.pretext.registry import build_pretext
from ktfast.training.loop import StepOutput, train
from ktfast.training.precision import computing_dtype

GROUPS = {
    "aten.convolution": "convolutions, forward",
    "aten.convolution_backward": "convolutions, backward",
    "aten.native_batch_norm": "batch-norm, forward",
    "aten.native_batch_norm_backward": "batch-norm, backward",
    "aten.mm": "fully connected layers",
    "aten.addmm": "fully connected layers",
    "aten.bmm": "fully connected layers",
    "aten.relu_": "ReLU and max-pooling",
    "aten.threshold_backward": "ReLU and max-pooling",
    "aten.max_pool2d_with_indices": "ReLU and max-pooling",
    "aten.max_pool2d_with_indices_backward": "ReLU and max-pooling",
    "aten._fused_sgd_": "optimiser",
}
PEAKS = {torch.float32: "fp32", torch.bfloat16: "bf16"}
"""Names of the peak rates by the type in which the network computes."""
TILES, LOSS, REST = "tiles (ktfast's kernel)", "loss and other operators", "feed and the rest"


class Clock(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Add up the processor time of every operator, by group; `rows` has one entry per step."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.step: defaultdict[str, float] = defaultdict(float)
        self.rows: list[dict[str, float]] = []
        self.began: float | None = None
        self.is_full = False
        self.in_tiles = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        start = time.thread_time()
        result = func(*args, **(kwargs or {}))
        if not self.in_tiles:
            group = GROUPS.get(str(func.overloadpacket), LOSS)
            self.step[group] += time.thread_time() - start
        return result

    def tiles(self, *args: Any, **kwargs: Any) -> Any:
        """Cut the tiles of a step, and add up the time."""
        start, self.in_tiles = time.thread_time(), True
        result = jigsaw_tiles(*args, **kwargs)
        self.in_tiles = False
        self.step[TILES] += time.thread_time() - start
        return result

    def next_step(self, *, is_full: bool) -> None:
        """Close the row of the last step; only a step with a full batch has one."""
        now = time.thread_time()
        if self.began is not None and self.is_full:
            rest = now - self.began - sum(self.step.values())
            self.rows.append({**self.step, REST: rest})
        self.step.clear()
        self.began, self.is_full = now, is_full


class Watched:
    """A puzzle task that tells the clock when a step begins. Trials have smaller batches."""

    def __init__(self, task: TilePretext, clock: Clock, full: int) -> None:
        self.task, self.model, self.clock, self.full = task.puzzles, task.model, clock, full

    def step(self, batch: Batch, epoch: int) -> StepOutput:
        """Loss of a batch."""
        self.clock.next_step(is_full=len(batch) == self.full)
        return self.task.step(batch, epoch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="images")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--recipe", default="tiny_cpu")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="options")
    arguments = parser.parse_args()
    options = dict(option.partition("=")[::2] for option in arguments.set)
    torch.set_num_threads(1)
    config = load_config(arguments.recipe, options)
    pretext = config.pretext
    torch.manual_seed(config.seed)
    task = build_pretext(pretext_trunk(pretext), pretext, seed=config.seed, n_threads=1)
    assert isinstance(task, TilePretext), "the recipe's pretext task is no puzzle of tiles"
    initialize(task.model)
    side, batch_size = pretext.tile_size, pretext.training.batch_size
    with FlopCounterMode(display=False) as counter:
        task.model(torch.zeros(batch_size, pretext.grid**2, 3, side, side)).sum().backward()
    flops = {str(key): value for key, value in counter.get_flop_counts()["Global"].items()}
    clock = Clock()
    vars(puzzle_task)["jigsaw_tiles"] = clock.tiles
    with tempfile.TemporaryDirectory() as folder:
        images = prepare(
            ImageIndex.scan(arguments.folder), Path(folder) / "images",
            short_side=config.data.short_side, format="raw", n_threads=1,
        )  # fmt: skip
        with (
            make_feed(
                images, size=pretext.crop, batch_size=batch_size, seed=config.seed, kind="resident"
            ) as feed,
            clock,
        ):
            values = {"epochs": arguments.steps / feed.batches_per_epoch}
            train(
                Watched(task, clock, batch_size), feed, pretext.training.model_copy(update=values),
                Path(folder), name="step", seed=config.seed,
                metrics_path=Path(folder) / "metrics.jsonl", progress=False,
            )  # fmt: skip
    dtype = computing_dtype(pretext.training.precision, torch.device("cpu"))
    print_table(clock.rows[len(clock.rows) // 4 :], flops, PEAKS[dtype])


def print_table(rows: list[dict[str, float]], flops: dict[str, int], kind: str) -> None:
    """Print the median time of each group, and the rate of the convolutions beside the peak."""
    names = {name for row in rows for name in row}
    times = {name: statistics.median(row.get(name, 0.0) for row in rows) for name in names}
    total = sum(times.values())
    print(f"{len(rows)} steps of {1e3 * total:.0f} ms of processor time\n")
    print("| operators | ms per step | share, % |\n|---|---|---|")
    for name, seconds in sorted(times.items(), key=lambda item: -item[1]):
        print(f"| {name} | {1e3 * seconds:.1f} | {100 * seconds / total:.1f} |")
    peak = peaks(1, (kind,), seconds=0.004, repeats=150)[kind]
    for name in ("aten.convolution", "aten.convolution_backward"):
        rate = flops[name] / times[GROUPS[name]]
        print(f"{GROUPS[name]}: {rate / 1e9:.0f} GFLOP/s, {rate / peak:.0%} of the {kind} peak")


if __name__ == "__main__":
    main()
