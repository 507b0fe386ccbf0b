"""Decode the JPEG files of a folder at reduced and at full size: other pixels, and CPU-seconds.

The target is two thirds of half of each photograph, so that every photograph is decoded at 1/2 of
its size with the smallest margin. The differences are therefore the largest that ktfast allows. A
last row shows how much storing the resized image as a JPEG file of quality 95 changes its pixels.
With --short-side the target is fixed instead, and the script also measures `prepare`.

    python benchmarks/bench_reduced_decoding.py FOLDER
    python benchmarks/bench_reduced_decoding.py FOLDER --short-side 256
"""

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from ktfast.images.decode import decode
from ktfast.images.index import ImageIndex
from ktfast.images.jpeg import MARGIN
from ktfast.images.prepare import prepare
from ktfast.images.source import Decoding


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="photographs, at any depth")
    parser.add_argument("--short-side", type=int, help="px; the target's shorter side")
    parser.add_argument("--images", type=int, default=256, help="most images, spread evenly")
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds of prepare")
    options = parser.parse_args()
    index = ImageIndex.scan(options.folder, labels="none")
    index = index.take(np.unique(np.linspace(0, index.n - 1, options.images).astype(np.int64)))
    print(pixels(index, options.short_side))
    if options.short_side:
        print(speed(index, options.short_side, options.repeats))


def pixels(index: ImageIndex, short_side: int | None) -> str:
    """How much reduced decoding and storing change the resized pixels."""
    reducing, storing = [], []
    for name in index.paths:
        data = (index.root / name).read_bytes()
        full = decode(data, name, None)
        target = short_side or int(min(full.shape) / 2 / MARGIN)
        reduced = decode(data, name, target)
        if not reduced.is_reduced:
            continue
        image = full.resized(target)
        stored = io.BytesIO()
        image.save(stored, "JPEG", quality=95, subsampling="4:2:0")
        reducing.append(change(image, reduced.resized(target)))
        storing.append(change(image, Image.open(stored)))
    lines = [f"{len(reducing)} of {index.n} images are decoded at reduced size"]
    for name, rows in (("reduced decoding", reducing), ("storing, quality 95", storing)):
        if rows:
            means, most, psnr = zip(*rows, strict=True)
            lines.append(
                f"{name}: mean difference {statistics.mean(means):.2f} levels, largest {max(most)},"
                f" PSNR median {statistics.median(psnr):.1f} dB, lowest {min(psnr):.1f} dB"
            )
    return "\n".join(lines)


def change(one: Image.Image, other: Image.Image) -> tuple[float, int, float]:
    """Mean and largest absolute difference in levels, and the PSNR in dB."""
    wrong = np.abs(np.asarray(one).astype(int) - np.asarray(other))
    psnr = 10 * np.log10(255**2 / max(float(np.square(wrong).mean()), 1e-9))
    return float(wrong.mean()), int(wrong.max()), float(psnr)


def speed(index: ImageIndex, short_side: int, repeats: int) -> str:
    """CPU milliseconds per image of `prepare`; the two ways take turns in every round."""
    kinds: tuple[Decoding, ...] = ("full", "reduced")
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(repeats):
        for kind in kinds:
            with tempfile.TemporaryDirectory() as folder:

                def work(kind: Decoding = kind, folder: str = folder) -> None:
                    prepare(index, folder, short_side=short_side, decoding=kind, n_threads=1)

                seconds[kind].append(cpu_seconds(work))
    full, reduced = (1e3 * statistics.median(seconds[kind]) / index.n for kind in kinds)
    return (
        f"prepare, median of {repeats}: {full:.2f} CPU-ms an image fully decoded, {reduced:.2f} "
        f"reduced, {full / reduced:.2f} times as fast"
    )


def cpu_seconds(work: Callable[[], None]) -> float:
    """CPU-seconds of all threads of this process."""
    began = time.process_time()
    work()
    return time.process_time() - began


if __name__ == "__main__":
    main()
