"""Images per CPU-second through every feed, from original files and from prepared sets.

    python benchmarks/bench_feed.py <folder of photographs> [--size 225] [--short-side 256]

CPU-seconds of the whole process are counted, so neither threads nor a busy machine flatter
anybody; the contestants take turns in every round. The baseline is what most training scripts do:
torchvision's Resize and CenterCrop on Pillow images in a DataLoader (no worker processes, whose
CPU time would go uncounted). Before the clock starts, every feed must deliver the torch feed's
pixels up to one level.
"""

import argparse
import importlib.util
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image

from ktfast.data.feed import Feed, make_feed
from ktfast.data.index import ImageIndex
from ktfast.data.prepare import prepare
from ktfast.data.source import FolderSource, PreparedSet

BATCH = 64
TOLERANCE = 1.0  # mean difference in levels; the decoders are the same, resampling rounds otherwise


class Photographs(torch.utils.data.Dataset):
    """The baseline's data set."""

    def __init__(self, index: ImageIndex, size: int, short_side: int) -> None:
        self.paths = [index.root / path for path in index.paths]
        transforms = torchvision.transforms
        self.transform = transforms.Compose(
            [
                transforms.Resize(short_side),
                transforms.CenterCrop(size),
                transforms.PILToTensor(),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> torch.Tensor:
        with Image.open(self.paths[row]) as image:
            return self.transform(image.convert("RGB"))


def pixels_of(feed: Feed) -> np.ndarray:
    images = np.empty((feed.n, feed.plan.size, feed.plan.size, 3), np.int16)
    for batch in feed.epoch(0):
        images[batch.rows.numpy()] = batch.images.numpy()
    return images


def contestants(
    files: FolderSource, jpeg: PreparedSet, raw: PreparedSet, options: dict[str, Any]
) -> dict[str, Feed]:
    feeds = {
        "original files, torch feed": make_feed(files, kind="torch", **options),
        "prepared JPEG, torch feed": make_feed(jpeg, kind="torch", **options),
        "prepared raw, torch feed": make_feed(raw, kind="torch", **options),
        "resident feed, after the first pass": make_feed(jpeg, kind="resident", **options),
    }
    if importlib.util.find_spec("nvidia.dali") is not None:
        feeds["original files, DALI feed"] = make_feed(files, kind="dali", **options)
        feeds["prepared JPEG, DALI feed"] = make_feed(jpeg, kind="dali", **options)
    return feeds


def check(feeds: dict[str, Feed]) -> None:
    for start in ("original", "prepared JPEG"):
        expected = pixels_of(feeds[f"{start}{' files' * (start == 'original')}, torch feed"])
        for name, feed in feeds.items():
            if name.startswith(start):
                difference = float(np.abs(pixels_of(feed) - expected).mean())
                if difference > TOLERANCE:
                    raise SystemExit(f"{name} is off by {difference:.2f} levels: not comparable")


def epoch_of(feed: Feed) -> Callable[[], None]:
    def run() -> None:
        for _ in feed.epoch(1):
            pass

    return run


def measure(run: Callable[[], None], n: int) -> tuple[float, float]:
    """Images per CPU-second and per second."""
    cpu, wall = time.process_time(), time.perf_counter()
    run()
    return n / (time.process_time() - cpu), n / (time.perf_counter() - wall)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=225)
    parser.add_argument("--short-side", type=int, default=256)
    parser.add_argument("--images", type=int, default=1000, help="at most this many")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    index = ImageIndex.scan(arguments.folder, labels="none")
    index = index.take(np.arange(min(index.n, arguments.images)))
    options = {
        "size": arguments.size, "short_side": arguments.short_side, "batch_size": BATCH,
        "n_threads": arguments.threads,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        cpu = time.process_time()
        jpeg = prepare(index, Path(folder) / "jpeg", short_side=arguments.short_side)
        prepare_speed = index.n / (time.process_time() - cpu)
        raw = prepare(index, Path(folder) / "raw", short_side=arguments.short_side, format="raw")
        if jpeg.skipped:
            raise SystemExit(f"{len(jpeg.skipped)} images cannot be decoded; choose another folder")
        feeds = contestants(FolderSource(index), jpeg, raw, options)
        check(feeds)
        loader = torch.utils.data.DataLoader(
            Photographs(index, arguments.size, arguments.short_side), BATCH, shuffle=True
        )
        baseline = "original files, torchvision DataLoader"
        runs = {baseline: lambda: [None for _ in loader] and None}
        runs |= {name: epoch_of(feeds[name]) for name in sorted(feeds)}
        results: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
        for run in runs.values():
            run()
        for _ in range(arguments.repeats):
            for name, run in runs.items():
                results[name].append(measure(run, index.n))
        report(results, results[baseline], index, jpeg, raw, arguments, prepare_speed)
        for feed in feeds.values():
            feed.close()


def report(
    results: dict[str, list[tuple[float, float]]],
    baseline: list[tuple[float, float]],
    index: ImageIndex,
    jpeg: PreparedSet,
    raw: PreparedSet,
    arguments: argparse.Namespace,
    prepare_speed: float,
) -> None:
    kilobytes = [float(np.mean(s.lengths)) / 1e3 for s in (jpeg, raw)]
    print(f"machine: {processor()}, {os.cpu_count()} cores, {arguments.threads} decoding threads")
    print(
        f"versions: Python {platform.python_version()}, torch {torch.__version__}, torchvision"
        f" {torchvision.__version__}, Pillow {PIL.__version__}, DALI {dali_version()}"
    )
    print(
        f"data: {index.n} images of {index.sizes.mean() / 1e3:.0f} KB (prepared: JPEG"
        f" {kilobytes[0]:.0f} KB, raw {kilobytes[1]:.0f} KB), shorter side"
        f" {arguments.short_side}, {arguments.size} px squares, batch {BATCH}"
    )
    print(f"prepare (once): {prepare_speed:,.0f} images per CPU-second")
    print(f"{arguments.repeats} rounds after one to warm up; median (lowest .. highest)\n")
    base = statistics.median(cpu for cpu, _ in baseline)
    print(f"| {'feed':40} | images per CPU-second | times | images/s |")
    print(f"|{'-' * 42}|{'-' * 23}|{'-' * 7}|{'-' * 10}|")
    for name, speeds in results.items():
        cpu = [speed for speed, _ in speeds]
        wall = statistics.median(speed for _, speed in speeds)
        middle = statistics.median(cpu)
        spread = f"{middle:,.0f} ({min(cpu):,.0f} .. {max(cpu):,.0f})"
        print(f"| {name:40} | {spread:>21} | {middle / base:5.1f} | {wall:8,.0f} |")


def processor() -> str:
    with open("/proc/cpuinfo") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return names[0] if names else platform.processor()


def dali_version() -> str:
    if importlib.util.find_spec("nvidia.dali") is None:
        return "not installed"
    import nvidia.dali

    return nvidia.dali.__version__


if __name__ == "__main__":
    main()
