"""`ktfast bench feed`: images per CPU-second from files, shards and memory, beside other loaders.

The benchmark counts the CPU-seconds of the whole process, because other work on the machine changes
wall-clock time more. Before the clock starts, all contestants must deliver the same pictures. Then
the contestants take turns in every round.
"""

import argparse
import logging
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ktfast.bench.core.machine import stamp
from ktfast.bench.core.options import add_numbers, add_out, positive
from ktfast.bench.core.photographs import prepared, sample
from ktfast.bench.core.table import spread
from ktfast.bench.feed.report import METHOD, report
from ktfast.bench.feed.rows import FILES, RAW, SHARDS, Contestant, Pixels, Task, contestants
from ktfast.errors import DataError, InputError
from ktfast.images.source import FolderSource
from ktfast.remote import argument_path

logger = logging.getLogger(__name__)

TOLERANCE, SHARDS_TOLERANCE = 1.0, 4.0
"""Largest mean difference of two contestants' pixels, in levels of 255: every library rounds
differently when it resizes, and an image from a shard was compressed once more. A picture that is
shifted by one pixel differs by about ten levels."""
PACKAGES = ("torch", "torchvision", "pillow", "nvidia-dali-cuda130")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the sub-command."""
    parser.add_argument("folder", type=argument_path, help="photographs, at any depth")
    numbers = (
        ("size", 225, "side of the delivered squares, pixels"),
        ("short-side", 256, "shorter side of the resized images that the squares are cut from"),
        ("images", 256, "use at most this number of images, spread evenly over the folder"),
        ("batch", 64, "images in a batch"),
        ("threads", 1, "decoding threads of the feeds"),
        ("repeats", 5, "timed rounds"),
    )
    add_numbers(parser, numbers, positive)
    add_out(parser, "bench/feed")


def run(options: argparse.Namespace) -> int:
    """Measure, print and save the table; returns the exit status."""
    if options.short_side < options.size:
        raise InputError(
            f"--short-side must be at least --size {options.size}, got {options.short_side}"
        )
    options.out.mkdir(parents=True, exist_ok=True)  # fails now, not after minutes of measuring
    index = sample(options.folder, options.images)
    task = Task(index, options.size, options.short_side, options.batch, options.threads)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # torchvision resizes tensors with torch's threads
    try:
        with tempfile.TemporaryDirectory(prefix="ktfast-bench-") as folder, ExitStack() as feeds:
            record = _record(task, Path(folder), feeds, options.repeats)
    finally:
        torch.set_num_threads(threads)
    report(record, options.out)
    return 0


def _record(task: Task, folder: Path, feeds: ExitStack, repeats: int) -> dict[str, Any]:
    """Everything that is reported, as JSON."""
    options: Any = {"short_side": task.short_side, "n_threads": task.threads}
    began = time.process_time()
    shards = prepared(task.index, folder / "jpeg", **options)
    seconds = time.process_time() - began
    stored = {SHARDS: shards, RAW: prepared(task.index, folder / "raw", format="raw", **options)}
    everyone = list(contestants(task, {FILES: FolderSource(task.index), **stored}, feeds))
    return {
        **stamp(PACKAGES),
        "images": task.index.n,
        "file_bytes": float(task.index.sizes.mean()),
        "stored_bytes": {place: float(source.lengths.mean()) for place, source in stored.items()},
        "size": task.size,
        "short_side": task.short_side,
        "batch": task.batch,
        "threads": task.threads,
        "repeats": repeats,
        "prepare": task.index.n / seconds,
        "method": " ".join(METHOD.splitlines()),
        "rows": _measured(everyone, _pixel_differences(everyone), task.index.n, repeats),
    }


def _pixel_differences(everyone: list[Contestant]) -> dict[int, float]:
    """Mean difference in levels of each contestant's pictures from the first contestant's.

    Raises
    ------
    DataError
        A difference is too large for the same pictures.
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
                f"{one.name} from {one.source} is off by {found[place]:.2f} levels; every"
                " contestant must deliver the same pictures"
            )
    return found


def _measured(
    everyone: list[Contestant], differences: dict[int, float], n: int, repeats: int
) -> list[dict[str, Any]]:
    """Measure every contestant in every round, after one round that warms up."""
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
