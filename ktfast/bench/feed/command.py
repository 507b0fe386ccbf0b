"""`ktfast bench feed`: images per CPU-second from files, shards and memory, beside other loaders.

CPU-seconds of the whole process are counted, so neither threads nor a busy machine flatter anybody;
the contestants take turns in every round. Before the clock starts, all must deliver the same
pictures.
"""

import argparse
import logging
import shlex
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ktfast.bench.core.harness import machine, spread
from ktfast.bench.feed.report import METHOD, report
from ktfast.bench.feed.rows import FILES, RAW, SHARDS, Contestant, Pixels, Task, contestants
from ktfast.errors import DataError, InputError
from ktfast.images.index import ImageIndex
from ktfast.images.source import FolderSource

logger = logging.getLogger(__name__)

TOLERANCE, SHARDS_TOLERANCE = 1.0, 4.0
"""Mean difference in levels: resampling rounds otherwise in each library, and what comes from
shards was a JPEG file once more. A picture that is one pixel off differs by about ten."""
PACKAGES = ("torch", "torchvision", "pillow", "nvidia-dali-cuda130")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the sub-command."""
    parser.add_argument("folder", type=Path, help="photographs, at any depth")
    numbers = (
        ("size", 225, "side of the squares that are delivered, px"),
        ("short-side", 256, "shorter side that images are resized to before, px"),
        ("images", 256, "at most so many images, evenly over the folder"),
        ("batch", 64, "images in a batch"),
        ("threads", 1, "decoding threads of the feeds"),
        ("repeats", 5, "timed rounds"),
    )
    for name, default, text in numbers:
        parser.add_argument(
            f"--{name}", type=_positive, default=default, help=f"{text} (default: %(default)s)"
        )
    parser.add_argument(
        "--out", type=Path, default=Path("bench/feed"), help="folder (default: %(default)s)"
    )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def run(options: argparse.Namespace) -> int:
    """Measure, print and save the table; returns the exit status."""
    if options.short_side < options.size:
        raise InputError(
            f"--short-side must be at least --size {options.size}, got {options.short_side}"
        )
    options.out.mkdir(parents=True, exist_ok=True)  # or it would be known only after minutes
    index = ImageIndex.scan(options.folder, labels="none")
    rows = np.unique(np.linspace(0, index.n - 1, options.images).astype(np.int64))
    task = Task(index.take(rows), options.size, options.short_side, options.batch, options.threads)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # torchvision resizes tensors with torch's threads
    try:
        with tempfile.TemporaryDirectory(prefix="ktfast-bench-") as folder, ExitStack() as feeds:
            record = _record(task, Path(folder), feeds, options)
    finally:
        torch.set_num_threads(threads)
    report(record, options.out)
    return 0


def _record(
    task: Task, folder: Path, feeds: ExitStack, options: argparse.Namespace
) -> dict[str, Any]:
    """Everything that is reported, as JSON."""
    began = time.process_time()
    shards = task.shards(folder / "jpeg", "jpeg")
    seconds = time.process_time() - began
    if shards.skipped:
        image = shards.skipped[0]
        raise DataError(
            f"{len(shards.skipped)} of the images cannot be decoded, the first is {image.path}"
            f" ({image.reason}); choose another folder"
        )
    prepared = {SHARDS: shards, RAW: task.shards(folder / "raw", "raw")}
    sources = {FILES: FolderSource(task.index), **prepared}
    everyone = list(contestants(task, sources, feeds))
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "command": shlex.join(["ktfast", *sys.argv[1:]]),
        "machine": machine(PACKAGES),
        "images": task.index.n,
        "file_bytes": float(task.index.sizes.mean()),
        "stored_bytes": {place: float(source.lengths.mean()) for place, source in prepared.items()},
        "size": task.size,
        "short_side": task.short_side,
        "batch": task.batch,
        "threads": task.threads,
        "repeats": options.repeats,
        "prepare": task.index.n / seconds,
        "method": " ".join(METHOD.splitlines()),
        "rows": _measured(everyone, _differences(everyone), task.index.n, options.repeats),
    }


def _differences(everyone: list[Contestant]) -> dict[int, float]:
    """Mean difference in levels of each one's pictures from those of the first.

    Raises
    ------
    DataError : it is too large for the same pictures.
    """
    first: Pixels | None = None
    found = {}
    for place, one in enumerate(everyone):
        if one.pixels is None or one.problem:
            continue
        pixels = one.pixels()
        first = pixels if first is None else first
        found[place] = float(np.abs(pixels.astype(np.int16) - first).mean())
        if found[place] > (TOLERANCE if one.source in (FILES, RAW) else SHARDS_TOLERANCE):
            raise DataError(
                f"{one.name} from {one.source} is off by {found[place]:.2f} levels: no comparison"
            )
    return found


def _measured(
    everyone: list[Contestant], differences: dict[int, float], n: int, repeats: int
) -> list[dict[str, Any]]:
    """A row for each, with the medians of rounds in which they take turns; the first warms up."""
    speeds: list[list[tuple[float, float]]] = [[] for _ in everyone]
    for turn in range(repeats + 1):
        for one, found in zip(everyone, speeds, strict=True):
            if one.problem:
                continue
            cpu, wall = time.process_time(), time.perf_counter()
            one.run()
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            if turn:
                found.append((n / cpu, n / wall))
        logger.info("round %d of %d", turn, repeats)
    base = spread([speed for speed, _ in speeds[0]]).median
    return [
        _row(one, speeds[place], base, differences.get(place)) for place, one in enumerate(everyone)
    ]


def _row(
    one: Contestant, speeds: list[tuple[float, float]], base: float, difference: float | None
) -> dict[str, Any]:
    row = {"name": one.name, "source": one.source, "role": one.role}
    if one.problem:
        return {**row, "problem": one.problem}
    of_cpu = spread([speed for speed, _ in speeds])
    return {
        **row,
        "images_per_cpu_second": of_cpu.median,
        "range": [of_cpu.least, of_cpu.most],
        "ratio": of_cpu.median / base,
        "images_per_second": spread([speed for _, speed in speeds]).median,
        "difference": difference,
    }
