"""Measure after how many steps a puzzle network leaves chance, and how good its features are.

    python benchmarks/bench_plateau.py windows VOC2012/JPEGImages windows/train --list train.txt
    python benchmarks/bench_plateau.py train --folder clothing clothing/train clothing/test \
        --settings none plain cells --seeds 0 1 2 --steps 400 --results plateau.jsonl
    python benchmarks/bench_plateau.py table --results plateau.jsonl

`train` trains the puzzle network of a recipe once per folder, setting and seed, and appends a line
to the results. A training whose line exists is not repeated. Settings:

none            no training: the features of random weights
plain           the loss of the recipe without the loss of the cells (pretext.cell_loss = 0)
cells           pretext.cell_loss = 1
clipped         plain, and the gradient is shortened to norm 1 (pretext.training.clip_norm)
cells-clipped   cells, and the gradient is shortened to norm 1
slow            plain, at a learning rate of 0.02 instead of 0.05
cells-slow      cells, at a learning rate of 0.02 instead of 0.05
few             plain; the first fifth of the steps uses 10 permutations only
cells-few       cells; the first fifth of the steps uses 10 permutations only

The features are the maps of the layer that the recipe clusters, averaged to 3 x 3 cells, of whole
photographs. Their measure is the mean per-class accuracy of a vote of the 10 nearest neighbours.

`windows` cuts random squares from photographs. `subset` links a part of a folder.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ktfast.config import Config, load_config
from ktfast.evaluation.knn import knn_accuracy
from ktfast.features.teachers import trunk_teacher
from ktfast.images.feeds.base import Batch
from ktfast.images.feeds.make import make_feed
from ktfast.images.index import ImageIndex
from ktfast.images.prepare import prepare
from ktfast.images.source import PreparedSet
from ktfast.models import Trunk, initialize
from ktfast.pipeline.steps.networks import pretext_trunk
from ktfast.pretext.held_out import held_out_measure
from ktfast.pretext.jigsaw import TilePretext
from ktfast.pretext.registry import build_pretext
from ktfast.pretext.task import JigsawTask
from ktfast.training.loop import StepOutput, train

CELLS = {"pretext.cell_loss": 1.0}
PLAIN = {"pretext.cell_loss": 0.0}
CLIPPED = {"pretext.training.clip_norm": 1.0}
SLOW = {"pretext.training.learning_rate": 0.02}
SETTINGS: dict[str, dict[str, float]] = {
    "none": PLAIN,
    "plain": PLAIN,
    "cells": CELLS,
    "clipped": {**PLAIN, **CLIPPED},
    "cells-clipped": {**CELLS, **CLIPPED},
    "slow": {**PLAIN, **SLOW},
    "cells-slow": {**CELLS, **SLOW},
    "few": PLAIN,
    "cells-few": CELLS,
}
FEW, FEW_SHARE = 10, 0.2
HELD_OUT_EPOCH = 2**31 - 1
MULTIPLE = 5.0
"""A network has left chance if its accuracy is this multiple of the accuracy of guessing."""
LOG_EVERY = 10
NEIGHBOURS, PROBE_ROWS = 10, 1500


class FewFirst:
    """A puzzle task whose first steps use the first permutations only.

    Parameters
    ----------
    task : JigsawTask
        The task.
    steps : int
        Number of the first steps.
    """

    def __init__(self, task: JigsawTask, steps: int) -> None:
        self.task, self.model, self.left = task, task.model, steps
        self.all = task.permutations
        task.permutations = self.all[:FEW]

    def step(self, batch: Batch, epoch: int) -> StepOutput:
        """Loss of a batch."""
        if self.left == 0:
            self.task.permutations = self.all
        self.left -= 1
        return self.task.step(batch, epoch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    windows = commands.add_parser("windows", help="cut random squares from photographs")
    windows.add_argument("source", type=Path)
    windows.add_argument("out", type=Path)
    windows.add_argument("--list", type=Path, help="file with one photograph's name per line")
    windows.add_argument("--count", type=int, default=16, help="squares per photograph")
    windows.add_argument("--side", type=int, nargs=2, default=[128, 256], help="px; least and most")
    subset = commands.add_parser("subset", help="link every n-th image of a folder")
    subset.add_argument("source", type=Path)
    subset.add_argument("out", type=Path)
    subset.add_argument("--every", type=int, required=True)
    training = commands.add_parser("train", help="train, and print the table")
    training.add_argument("--folder", nargs=3, action="append", metavar=("NAME", "TRAIN", "TEST"))
    training.add_argument("--settings", nargs="+", choices=SETTINGS, default=["plain", "cells"])
    training.add_argument("--seeds", type=int, nargs="+", default=[0])
    training.add_argument("--steps", type=int, default=400)
    training.add_argument("--recipe", default="tiny_cpu")
    training.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="options")
    training.add_argument("--work", type=Path, help="keeps the prepared images")
    table = commands.add_parser("table", help="print the table of the results")
    for command in (training, table):
        command.add_argument("--results", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.command == "windows":
        cut_windows(arguments)
    elif arguments.command == "subset":
        link_subset(arguments)
    else:
        if arguments.command == "train":
            train_all(arguments)
        print_table(read_results(arguments.results))


def cut_windows(arguments: argparse.Namespace) -> None:
    """Cut random squares from photographs, and write them as JPEG."""
    names = arguments.list and set(arguments.list.read_text().split())
    generator = np.random.default_rng(0)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for path in sorted(arguments.source.iterdir()):
        if names and path.stem not in names:
            continue
        photograph = Image.open(path).convert("RGB")
        for number in range(arguments.count):
            side = int(generator.integers(arguments.side[0], arguments.side[1] + 1))
            side = min(side, *photograph.size)
            left, top = (int(generator.integers(0, n - side + 1)) for n in photograph.size)
            window = photograph.crop((left, top, left + side, top + side))
            window.resize((128, 128)).save(arguments.out / f"{path.stem}_{number}.jpg", quality=95)


def link_subset(arguments: argparse.Namespace) -> None:
    """Link every n-th image of a folder, in the order of the paths."""
    index = ImageIndex.scan(arguments.source)
    for path in index.paths[:: arguments.every]:
        link = arguments.out / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to((arguments.source / path).resolve())


def train_all(arguments: argparse.Namespace) -> None:
    """Do every training whose result is missing."""
    done = {identity(row) for row in read_results(arguments.results)}
    options = dict(option.partition("=")[::2] for option in arguments.set)
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        for seed in arguments.seeds:
            for name, *folders in arguments.folder:
                sets = None
                for setting in arguments.settings:
                    row = {"folder": name, "setting": setting, "seed": seed}
                    row |= {"recipe": arguments.recipe, "options": options}
                    row["steps"] = 0 if setting == "none" else arguments.steps
                    if identity(row) in done:
                        continue
                    overrides = {**options, **SETTINGS[setting], "seed": seed}
                    config = load_config(arguments.recipe, overrides)
                    sets = sets or [prepared(Path(f), work, config) for f in folders]
                    row |= measured(config, setting, row["steps"], *sets)
                    with open(arguments.results, "a") as file:
                        file.write(json.dumps(row) + "\n")
                    print({key: row[key] for key in row if key != "curve"}, flush=True)


def identity(row: dict[str, Any]) -> str:
    """Name what a training depends on."""
    names = ("folder", "setting", "seed", "recipe", "options", "steps")
    return json.dumps([row[name] for name in names], sort_keys=True)


def prepared(folder: Path, work: Path, config: Config) -> PreparedSet:
    """Resize the images of a folder, or open the resized images."""
    out = work / f"{'_'.join(folder.resolve().parts[1:])}-{config.data.short_side}"
    if (out / "index.json").is_file():
        return PreparedSet.open(out)
    return prepare(
        ImageIndex.scan(folder), out, short_side=config.data.short_side, format="raw", n_threads=1
    )


def measured(
    config: Config, setting: str, steps: int, images: PreparedSet, held_out: PreparedSet
) -> dict[str, Any]:
    """Train one network, and measure its puzzles and its features."""
    pretext = config.pretext
    torch.manual_seed(config.seed)
    trunk, threads = pretext_trunk(pretext), torch.get_num_threads()
    task = build_pretext(trunk, pretext, seed=config.seed, n_threads=threads)
    assert isinstance(task, TilePretext), "the recipe's pretext task is no puzzle of tiles"
    initialize(task.model)
    options: dict[str, Any] = {"size": pretext.crop, "batch_size": pretext.training.batch_size}
    curve: list[dict[str, float]] = []
    clock = time.monotonic()
    if steps:
        with make_feed(images, **options, seed=config.seed, kind="resident") as feed:
            curve = trained(task.puzzles, feed, config, setting, steps)
    result: dict[str, Any] = {"seconds": time.monotonic() - clock, "curve": curve}
    with make_feed(held_out, **options, shuffle=True, kind="torch") as feed:
        solved = held_out_measure(task, feed, epoch=HELD_OUT_EPOCH, max_images=PROBE_ROWS)
    return result | {
        "images": images.n,
        "chance": 1 / pretext.permutations,
        "solved": solved,
        "neighbours": neighbours(trunk, config, images, held_out),
        "machine": machine(),
    }


def trained(
    task: JigsawTask, feed: Any, config: Config, setting: str, steps: int
) -> list[dict[str, float]]:
    """Train a network; return the loss and the accuracy of every `LOG_EVERY` steps."""
    values = {"epochs": steps / feed.batches_per_epoch, "log_every": LOG_EVERY}
    training = config.pretext.training.model_copy(update=values)
    few = FewFirst(task, round(FEW_SHARE * steps)) if setting.endswith("few") else task
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "metrics.jsonl"
        train(
            few, feed, training, Path(folder), name=setting, seed=config.seed, metrics_path=rows,
            progress=False,
        )  # fmt: skip
        curve = [json.loads(line) for line in rows.read_text().splitlines()]
    kept = ("step", "loss", "accuracy", "cell_accuracy")
    return [{key: row[key] for key in kept if key in row} for row in curve]


def neighbours(
    trunk: Trunk, config: Config, images: PreparedSet, held_out: PreparedSet
) -> float | None:
    """Measure the features by their nearest neighbours; None without classes."""
    if len(images.classes) < 2:
        return None
    layer = config.features.layer or trunk.layers[-1]
    teach = trunk_teacher(trunk, layer, pool=3, pooling="mean")
    features, labels = [], []
    for source in (images, held_out):
        rows = np.unique(np.linspace(0, source.n - 1, PROBE_ROWS).astype(int))
        maps = [teach(torch.from_numpy(np.stack(part))) for part in squares(source, rows, config)]
        features.append(torch.cat(maps))
        labels.append(source.labels[rows])
    found = knn_accuracy(features[0], labels[0], features[1], labels[1], k=NEIGHBOURS)
    return found.mean_per_class


def squares(source: PreparedSet, rows: Any, config: Config) -> Iterator[list[Any]]:
    """Read the squares of some rows in batches."""
    sizes = {"short_side": config.data.short_side, "size": config.pretext.crop}
    for part in np.array_split(rows, max(1, len(rows) // 64)):
        yield [source.square(int(row), **sizes) for row in part]


def machine() -> str:
    """Name the processor, the number of threads and the version of torch."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (
        f"{names[0] if names else platform.processor()}, {torch.get_num_threads()} thread(s), "
        f"torch {torch.__version__}"
    )


def read_results(path: Path) -> list[dict[str, Any]]:
    """Read the lines of the results."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def leaves_chance(row: dict[str, Any]) -> float | None:
    """First step at which the mean accuracy of `LOG_EVERY` steps is well above chance."""
    for point in row["curve"]:
        if point["accuracy"] >= MULTIPLE * row["chance"]:
            return float(point["step"])
    return None


def spread(values: Sequence[float | None]) -> str:
    """Mean of some percentages, and their least and largest value."""
    known = [100 * value for value in values if value is not None]
    if not known:
        return "–"
    mean = f"{statistics.mean(known):.1f}"
    return mean if len(known) == 1 else f"{mean} ({min(known):.1f} to {max(known):.1f})"


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print one Markdown table per recipe, set of options and machine."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        options = " ".join(f"{name}={value}" for name, value in row["options"].items())
        title = f"{row['recipe']} {options}\n{row['machine']}"
        groups.setdefault(title, []).append(row)
    for title, group in groups.items():
        print(f"\n{title}\n")
        heads = ["folder (images)", "setting", "steps", "seeds", "leaves chance at"]
        heads += ["puzzles, %", "10-NN, %"]
        print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
        cells: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for row in group:
            key = (row["folder"], row["images"], row["steps"], row["setting"])
            cells.setdefault(key, []).append(row)
        for (folder, images, steps, setting), found in sorted(cells.items()):
            left = [leaves_chance(row) for row in found]
            when = ", ".join("never" if step is None else f"{step:.0f}" for step in left)
            print(
                f"| {folder} ({images:,}) | {setting} | {steps} | {len(found)} "
                f"| {when if steps else '–'} | {spread([row['solved'] for row in found])} "
                f"| {spread([row['neighbours'] for row in found])} |"
            )


if __name__ == "__main__":
    main()
