"""The least CPU time of decoding, resizing and cropping photographs, by several libraries.

On a busy machine the mean time of a feed varies by more than the libraries differ. This script
takes the least of several readings of each photograph, in which all ways take turns.

    python benchmarks/bench_small_photographs.py FOLDER
"""

import argparse
import time
import unittest.mock
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision import io
from torchvision.transforms import v2

from ktfast.images import resize
from ktfast.images.index import ImageIndex
from ktfast.images.source import FolderSource

SHORT_SIDE, SIZE = 256, 225  # px


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="photographs, at any depth")
    parser.add_argument("--images", type=int, default=48, help="most images")
    parser.add_argument("--repeats", type=int, default=9, help="readings of an image")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # torchvision announces that its decoder will be replaced
    index = ImageIndex.scan(options.folder, labels="none")
    index = index.take(np.arange(min(index.n, options.images)))
    ways = ways_of(index)
    least = {name: np.full(index.n, np.inf) for name in ways}
    for _ in range(options.repeats):
        for row in range(index.n):
            for name, read in ways.items():
                began = time.thread_time()
                read(row)
                least[name][row] = min(least[name][row], time.thread_time() - began)
    first = least["PIL"].sum()
    for name, seconds in least.items():
        print(f"{name:28s} {1e3 * seconds.mean():.2f} CPU-ms  {first / seconds.sum():.2f}")


def ways_of(index: ImageIndex) -> dict[str, Callable[[int], object]]:
    """What is timed, by name: functions of the row of an image."""
    paths = [str(index.root / path) for path in index.paths]
    source = FolderSource(index)
    crop = v2.Compose([v2.Resize(SHORT_SIDE, antialias=True), v2.CenterCrop(SIZE)])

    def decoded(row: int) -> Image.Image:
        image = Image.open(paths[row])
        image.load()
        return image

    def tensor(row: int) -> torch.Tensor:
        image: torch.Tensor = io.decode_image(paths[row], mode="RGB")
        return image

    def with_pillow(row: int) -> None:
        with unittest.mock.patch.object(resize, "_gives_pixels_of_pillow", return_value=False):
            source.square(row, short_side=SHORT_SIDE, size=SIZE)

    return {
        "PIL": lambda row: np.asarray(crop(decoded(row).convert("RGB"))),
        "torchvision v2": lambda row: crop(tensor(row)).permute(1, 2, 0).contiguous(),
        "ktfast, Pillow's resize": with_pillow,
        "ktfast": lambda row: source.square(row, short_side=SHORT_SIDE, size=SIZE),
        "Pillow's decoder alone": decoded,
        "torchvision's decoder alone": tensor,
    }


if __name__ == "__main__":
    main()
