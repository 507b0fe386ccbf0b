"""Images per CPU-second turned into Jigsaw++ puzzles, beside a plain PIL and torchvision baseline.

    python benchmarks/bench_jigsaw_tiles.py [--batch 128] [--repeats 15]

The baseline makes the same tiles from the same choices, which it is given for free: crops of PIL
bands, torchvision's tensors, one mean and std per tile. Its tiles are compared with ktfast's before
the clock starts. One thread; CPU-seconds of the process; the contestants take turns in every
round. Both write new memory each time, as a training loop would; the line "into warm memory" shows
what the kernel does when its output needs no new pages, and the copy is what memory allows.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image
from torchvision.transforms import functional

from ktfast import _backend, ops, permutation_set

TILE, GRID, SIZE = 64, 3, 255
TOLERANCE = 1e-5  # absolute, of numbers around 1: float32 sums in another order
PROJECTION = torch.eye(3) - torch.tensor([[1, -2, 1], [-2, 4, -2], [1, -2, 1]]) / 6


def baseline(images: list[Image.Image], choices: dict[str, list[Any]]) -> torch.Tensor:
    """The puzzles of a batch the way data-loader code makes them, one tile at a time."""
    batch = []
    for row in range(len(images)):
        for slot in range(GRID * GRID):
            fake = choices["occluded"][row][slot]
            image = images[choices["donor"][row] if fake else row]
            cell = choices["cells"][row][slot]
            top, left = cell // GRID * (SIZE // GRID), cell % GRID * (SIZE // GRID)
            bands = []
            for band, (y, x) in zip(image.split(), choices["offsets"][row][slot], strict=True):
                box = (left + x, top + y, left + x + TILE, top + y + TILE)
                bands.append(band.crop(box))
            tile = functional.to_tensor(Image.merge("RGB", bands))
            if choices["donor_gray" if fake else "gray"][row]:
                tile = tile.mean(dim=0, keepdim=True).expand(3, TILE, TILE)
            elif choices["donor_projection" if fake else "projection"][row]:
                tile = torch.einsum("ij,jyx->iyx", PROJECTION, tile)
            batch.append((tile - tile.mean()) / tile.std(correction=0))
    return torch.stack(batch).view(len(images), GRID * GRID, 3, TILE, TILE)


class WarmMemory:
    """While open, big outputs come from memory that is already mapped."""

    def __init__(self) -> None:
        self.kept: dict[Any, Any] = {}
        self.allocate = _backend.empty

    def __enter__(self) -> None:
        _backend.empty = self.empty

    def __exit__(self, *_: object) -> None:
        _backend.empty = self.allocate

    def empty(self, shape: tuple[int, ...], dtype: str, like: Any) -> Any:
        if len(shape) < 5:
            return self.allocate(shape, dtype, like)
        if (shape, dtype) not in self.kept:
            self.kept[shape, dtype] = self.allocate(shape, dtype, like)
        return self.kept[shape, dtype]


def photograph_like(batch: int) -> torch.Tensor:
    """Smooth random images, so that PIL and the kernels see neither noise nor constants."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.integers(0, 256, (batch, 3, 16, 16), dtype=np.uint8))
    fine = torch.nn.functional.interpolate(coarse.float(), SIZE, mode="bicubic").clamp(0, 255)
    return fine.byte().permute(0, 2, 3, 1).contiguous()


def measure(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """CPU-seconds of every call, in rounds in which all take turns, after one warm-up round."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            start = time.process_time()
            call()
            if turn:
                seconds[name].append(time.process_time() - start)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    images = photograph_like(arguments.batch)
    pictures = [Image.fromarray(image.numpy()) for image in images]
    permutations = permutation_set(701)
    warm = WarmMemory()

    def make(**options: Any) -> tuple[Any, ...]:
        return ops.jigsaw_tiles(
            images,
            permutations,
            sample_ids=range(arguments.batch),
            seed=1,
            epoch=0,
            n_threads=1,
            **options,
        )

    def make_warm(**options: Any) -> tuple[Any, ...]:
        with warm:
            return make(**options)

    tiles, _, drawn = make(return_choices=True)
    choices = {name: values.tolist() for name, values in vars(drawn).items()}
    difference = float((baseline(pictures, choices) - tiles).abs().max())
    if difference > TOLERANCE:
        raise SystemExit(f"the baseline's tiles differ by {difference:.2g}")
    half = {"dtype": torch.bfloat16, "channels_last": True}
    seconds = measure(
        {
            "PIL + torchvision, float32": lambda: baseline(pictures, choices),
            "ktfast, float32": make,
            "ktfast, bfloat16 channels-last": lambda: make(**half),
            "ktfast, float32, into warm memory": make_warm,
            "ktfast, bfloat16 channels-last, into warm memory": lambda: make_warm(**half),
            "copy of the float32 tiles to new memory": tiles.clone,
            "copy of the float32 tiles to warm memory": lambda: warm.empty(
                tiles.shape, "float32", tiles
            ).copy_(tiles),
        },
        arguments.repeats,
    )

    print(
        f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, one thread, "
        f"{_backend.simd_level()}; torch {torch.__version__}, torchvision "
        f"{torchvision.__version__}, Pillow {PIL.__version__}"
    )
    print(
        f"{arguments.batch} images of {SIZE} px, 9 tiles of {TILE} px, {arguments.repeats} rounds; "
        f"largest difference from the baseline {difference:.1e}"
    )
    base = statistics.median(next(iter(seconds.values())))
    print(f"{'':50}{'images/CPU-s':>13}{'quartiles':>16}{'ratio':>8}")
    for name, times in seconds.items():
        low, middle, high = statistics.quantiles(times, n=4)
        quartiles = f"{arguments.batch / high:.0f}-{arguments.batch / low:.0f}"
        rate = arguments.batch / middle
        print(f"{name:50}{rate:13.0f}{quartiles:>16}{base / middle:8.1f}")


if __name__ == "__main__":
    main()
