"""The sections of session.py that run on the device: comparisons, peak rates and speed.

    python benchmarks/gpu/measure.py compare:jigsaw_tiles ceilings kmeans:phases

Every case prints a line of JSON when it is done, so that a later crash loses no result. device.py
says how the times are measured.
"""

import argparse
import functools
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import peak
import torch
from compare import CASES, Job, Row, comparisons, cuda
from device import Device
from end_to_end import end_to_end
from fits import exactness, fits, streaming
from paths import paths
from peers import peers
from phases import phases, profiled
from train import training

from ktfast import ops

TILE, SIDE, N_TILES = 64, 255, 9  # the paper's


# --- ceilings -------------------------------------------------------------------------------------
def ceilings(device: Device) -> Iterator[Job]:
    """Peak rates of the device: large products of random matrices, and copies."""
    for kind in peak.PRODUCTS:
        yield {"engine": f"matmul {kind}"}, functools.partial(time_product, device, kind)
    for kind in peak.COPIES:
        yield {"engine": kind}, functools.partial(time_copy, device, kind)


def time_product(device: Device, kind: str) -> list[Row]:
    rate = peak.product(kind, device.name, small=device.small)
    return [{"tflop_per_s": rate * 1e-12} if rate else {"instead": "torch has no such product"}]


def time_copy(device: Device, kind: str) -> list[Row]:
    return [{"gb_per_s": peak.copy(kind, device.name, small=device.small) * 1e-9}]


# --- jigsaw_tiles ---------------------------------------------------------------------------------
def bench_jigsaw_tiles(device: Device) -> Iterator[Job]:
    """The speed of jigsaw_tiles in every type and layout."""
    batch = 4 if device.small else 256
    for dtype in ("float32", "float16", "bfloat16"):
        for channels_last in (False, True):
            layout = "channels last" if channels_last else "channels first"
            label = {"case": f"B {batch}, {SIDE} px, {dtype}, {layout}"}
            yield label, functools.partial(time_tiles, device, batch, dtype, channels_last)


def time_tiles(device: Device, batch: int, dtype: str, channels_last: bool) -> list[Row]:
    """Time the op. Counted bytes: each tile's pixels are read as uint8 and written in the dtype."""
    new = functools.partial(torch.randint, device=device.name, generator=device.random)
    permutations = torch.rand(701, N_TILES, device=device.name).argsort(dim=1).to(torch.uint8)
    ids = new(1 << 62, (batch,))

    def call(images: torch.Tensor, epoch: int) -> object:
        return ops.jigsaw_tiles(
            images,
            permutations,
            sample_ids=ids,
            seed=1,
            epoch=epoch,
            dtype=dtype,
            channels_last=channels_last,
        )

    sets = [
        new(256, (batch, SIDE, SIDE, 3), dtype=torch.uint8)
        for _ in range(device.sets(batch * SIDE * SIDE * 3))
    ]
    row = device.time([functools.partial(call, images, i) for i, images in enumerate(sets)])
    pixels = batch * N_TILES * 3 * TILE * TILE
    row["images_per_s"] = batch / row["ms"] * 1e3
    row["gb_per_s"] = pixels * (1 + getattr(torch, dtype).itemsize) / row["ms"] * 1e-6
    return [row]


BENCHES: dict[str, Callable[[Device], Iterator[Job]]] = {
    "paths": paths,
    "ceilings": ceilings,
    "bench:jigsaw_tiles": bench_jigsaw_tiles,
    "kmeans:phases": phases,
    "kmeans:fits": fits,
    "kmeans:exact": exactness,
    "kmeans:stream": streaming,
    **{f"peers:{d}": functools.partial(peers, features=d) for d in (256, 4096)},
    "profile": profiled,
}
TRAININGS: dict[str, Callable[[Device, Path | None], Iterator[Job]]] = {
    "end_to_end": end_to_end,
    "train": training,
}
SECTIONS = [*(f"compare:{op}" for op in CASES), *BENCHES, *TRAININGS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="+", choices=SECTIONS)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--small", action="store_true", help="tiny sizes and few repeats")
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="begin no case after this time"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the comparisons' inputs")
    parser.add_argument("--images", type=Path, help="photographs for the trainings")
    arguments = parser.parse_args()
    deadline = time.monotonic() + arguments.seconds

    device = Device(arguments.device, small=arguments.small)
    for section in arguments.sections:
        for label, run in jobs_of(section, device, arguments):
            device.random.manual_seed(1)  # all engines of a case get the same inputs
            for row in guarded(run, deadline):
                print(json.dumps({"section": section, **label, **row}), flush=True)


def jobs_of(section: str, device: Device, arguments: argparse.Namespace) -> Iterator[Job]:
    kind, _, op = section.partition(":")
    if kind == "compare":
        return comparisons(op, device=device.name, small=device.small, seed=arguments.seed)
    if section in TRAININGS:
        return TRAININGS[section](device, arguments.images)
    return BENCHES[section](device)


def guarded(run: Callable[[], list[Row]], deadline: float) -> list[Row]:
    """The rows of a case. An error becomes a row, so that the next cases still run."""
    if time.monotonic() > deadline:
        return [{"error": "not run: the section's time was up"}]
    try:
        return run()
    except Exception as error:  # every error belongs in the table
        return [{"error": f"{type(error).__name__}: {error}"}]
    finally:
        if cuda.is_available():
            cuda.empty_cache()


if __name__ == "__main__":
    main()
