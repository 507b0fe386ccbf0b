"""The speed of jigsaw_tiles beside code of a data loader, and beside a copy of memory.

    python benchmarks/bench_jigsaw_tiles.py [--batch 256] [--repeats 15] [--threads 1 2]

Both comparisons count CPU-seconds of the process, and the contestants take turns in every round.

1. Images per CPU-second on one thread, beside a baseline of PIL and torchvision. The baseline makes
   the same tiles from the same random choices; drawing the choices costs the baseline no time. The
   script compares the baseline's tiles with ktfast's before the clock starts.
2. The share of the speed of memory. The script counts the bytes that must move: each source pixel
   of a tile is read once, and each output is written once. Beside the op it measures a memcpy of
   the same number of bytes (half of them read, half written) with the same number of threads.
   CPU-seconds are divided by the number of threads, so that other work on the machine counts less.
   NumPy allocates all memory, because NumPy asks the system for huge pages. "New" memory is
   allocated in every call of the op or of the copy, and the system clears it first. Clearing writes
   every byte of the output once more. That adds half to the bytes that a copy moves, and four
   fifths to the bytes that the op moves for float32 tiles. "Used" memory was written before.

KTFAST_SIMD=avx2 or KTFAST_SIMD=scalar lowers the instruction set.
"""

import argparse
import ctypes
import os
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

# Before OpenMP is loaded: threads that wait for the next call must not use CPU time.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image
from torchvision.transforms import functional

from ktfast import ops, permutation_set
from ktfast.native import modules
from ktfast.native.threads import usable_cores

TILE, GRID, SIZE = 64, 3, 255
TOLERANCE = 1e-5  # absolute, for numbers near 1: float32 sums in another order
PROJECTION = torch.eye(3) - torch.tensor([[1, -2, 1], [-2, 4, -2], [1, -2, 1]]) / 6
KINDS = [(kind, last) for kind in ("float32", "float16", "bfloat16") for last in (False, True)]


def baseline(images: list[Image.Image], choices: dict[str, list[Any]]) -> torch.Tensor:
    """The puzzles of a batch, made one tile at a time as code of a data loader does."""
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


def photograph_like(batch: int) -> torch.Tensor:
    """Smooth random images, so that PIL and the kernels see neither noise nor constants."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.integers(0, 256, (batch, 3, 16, 16), dtype=np.uint8))
    fine = torch.nn.functional.interpolate(coarse.float(), SIZE, mode="bicubic").clamp(0, 255)
    return fine.byte().permute(0, 2, 3, 1).contiguous()


def memory(n_bytes: int) -> np.ndarray:
    """New memory that starts at a multiple of 64 bytes."""
    whole = np.empty(n_bytes + 64, np.uint8)
    start = -whole.ctypes.data % 64
    return whole[start : start + n_bytes]


class Puzzles:
    """Calls of the op on one batch of images."""

    def __init__(self, batch: int) -> None:
        images = photograph_like(batch)
        self.images = torch.from_numpy(memory(images.numel())).view(images.shape).copy_(images)
        self.permutations = torch.from_numpy(permutation_set(701).astype(np.uint8))
        self.ids = torch.arange(batch)

    def make(self, n_threads: int = 1, **options: Any) -> tuple[Any, ...]:
        return ops.jigsaw_tiles(
            self.images, self.permutations, sample_ids=self.ids, seed=1, epoch=0,
            n_threads=n_threads, **options,
        )  # fmt: skip

    def memory(self, kind: str, channels_last: bool) -> torch.Tensor:
        """New memory for the tiles."""
        dtype = getattr(torch, kind)
        size = len(self.ids) * GRID * GRID * 3 * TILE * TILE * dtype.itemsize
        tiles = torch.from_numpy(memory(size)).view(dtype).view(len(self.ids), GRID * GRID, -1)
        if channels_last:
            return tiles.view(*tiles.shape[:2], TILE, TILE, 3).permute(0, 1, 4, 2, 3)
        return tiles.view(*tiles.shape[:2], 3, TILE, TILE)


class Copy:
    """A memcpy of a number of bytes by several threads."""

    def __init__(self, n_bytes: int, n_threads: int) -> None:
        self.part = n_bytes // n_threads
        self.source, self.used = memory(n_bytes), memory(n_bytes)
        self.source[:] = self.used[:] = 1
        self.n_threads = n_threads
        self.pool = ThreadPoolExecutor(n_threads)

    def into(self, target: np.ndarray) -> None:
        starts = range(0, self.part * self.n_threads, self.part)
        places = [(target.ctypes.data + at, self.source.ctypes.data + at) for at in starts]
        work = [self.pool.submit(ctypes.memmove, *place, self.part) for place in places[1:]]
        ctypes.memmove(*places[0], self.part)  # releases the interpreter lock
        for done in work:
            done.result()

    def into_used(self) -> None:
        self.into(self.used)

    def into_new(self) -> None:
        self.into(memory(self.source.nbytes))


def measure(calls: dict[Any, Callable[[], object]], repeats: int) -> dict[Any, list[float]]:
    """CPU-seconds of every call in every round, after one round that warms up."""
    seconds: dict[Any, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            start = time.process_time()
            call()
            if turn:
                seconds[name].append(time.process_time() - start)
    return seconds


def against_baseline(puzzles: Puzzles, repeats: int) -> None:
    """Images per CPU-second on one thread."""
    pictures = [Image.fromarray(image.numpy()) for image in puzzles.images]
    tiles, _, drawn = puzzles.make(return_choices=True)
    choices = {name: values.tolist() for name, values in vars(drawn).items()}
    difference = float((baseline(pictures, choices) - tiles).abs().max())
    if difference > TOLERANCE:
        raise SystemExit(f"the baseline's tiles differ by {difference:.2g}")
    half: dict[str, Any] = {"dtype": "bfloat16", "channels_last": True}
    used = puzzles.make(**half)[0]
    seconds = measure(
        {
            "PIL + torchvision, float32": lambda: baseline(pictures, choices),
            "ktfast, float32": puzzles.make,
            "ktfast, float32, out=": lambda: puzzles.make(out=tiles),
            "ktfast, bfloat16 channels-last, out=": lambda: puzzles.make(**half, out=used),
        },
        repeats,
    )
    print(f"largest difference from the baseline {difference:.1e}\n")
    print(f"| one thread {'':25} | images/CPU-s |   quartiles   | ratio |")
    print(f"|{'-' * 38}|{'-' * 14}|{'-' * 15}|{'-' * 7}|")
    base = statistics.median(next(iter(seconds.values())))
    for name, times in seconds.items():
        low, middle, high = (len(pictures) / t for t in statistics.quantiles(times, n=4)[::-1])
        quartiles = f"{low:6.0f}-{high:<6.0f}"
        print(
            f"| {name:36} | {middle:12.0f} | {quartiles} | {base * middle / len(pictures):5.1f} |"
        )


def against_copy(puzzles: Puzzles, n_threads: int, repeats: int) -> None:
    """Bytes that must move per second, as a share of memcpy's."""
    n = len(puzzles.ids)
    pixels = n * GRID * GRID * 3 * TILE * TILE
    calls: dict[Any, Callable[[], object]] = {}
    moved = {}
    for kind, last in KINDS:
        options = {"dtype": kind, "channels_last": last}
        moved[kind] = pixels * (1 + getattr(torch, kind).itemsize)
        used = puzzles.memory(kind, last)
        copy = Copy(moved[kind] // 2, n_threads)

        def make(out: torch.Tensor | None, options: dict[str, Any] = options) -> None:
            if out is None:
                out = puzzles.memory(options["dtype"], options["channels_last"])
            puzzles.make(n_threads, out=out, **options)

        calls[kind, last, "new"] = partial(make, None)
        calls[kind, last, "new copy"] = copy.into_new
        calls[kind, last, "used"] = partial(make, used)
        calls[kind, last, "used copy"] = copy.into_used
    seconds = {key: statistics.median(t) for key, t in measure(calls, repeats).items()}
    print(f"\n| {n_threads} thread{'s' * (n_threads > 1):1} "
          "                 | memory | images/s | GB/s | memcpy GB/s | share |")  # fmt: skip
    print(f"|{'-' * 28}|{'-' * 8}|{'-' * 10}|{'-' * 6}|{'-' * 13}|{'-' * 7}|")
    for kind, last in KINDS:
        for memory in ("new", "used"):
            own, copied = (seconds[kind, last, memory + x] / n_threads for x in ("", " copy"))
            label = f"{kind}, channels {'last' if last else 'first'}"
            print(
                f"| {label:26} | {memory:6} | {n / own:8.0f} | {moved[kind] / own / 1e9:4.1f} | "
                f"{moved[kind] / copied / 1e9:11.1f} | {copied / own:5.0%} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    puzzles = Puzzles(arguments.batch)
    print(
        f"{platform.machine()}, {usable_cores()} cores, {modules.simd_level()}, "
        f"load {os.getloadavg()[0]:.1f}; torch {torch.__version__}, torchvision "
        f"{torchvision.__version__}, Pillow {PIL.__version__}"
    )
    print(
        f"{arguments.batch} images of {SIZE} px, 9 tiles of {TILE} px, medians of "
        f"{arguments.repeats} rounds"
    )
    against_baseline(puzzles, arguments.repeats)
    for n_threads in arguments.threads:
        against_copy(puzzles, n_threads, arguments.repeats)


if __name__ == "__main__":
    main()
