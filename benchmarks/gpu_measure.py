"""What gpu_session.py runs on the device, a process per section: comparisons, ceilings, speed.

    python benchmarks/gpu_measure.py compare:jigsaw_tiles ceilings bench:kmeans_assign

Every case prints a line of JSON as soon as it is done, so that nothing measured is lost if a later
one crashes. Times are the device's own, by CUDA events: before each call the device is kept busy
until the host has queued the whole call, so neither launches nor Python are counted; `call_ms`,
from calls back to back, counts both. The calls take turns over input sets that together exceed the
L2 cache several times.
"""

import argparse
import functools
import json
import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from gpu_compare import CASES, Job, Row, comparisons, cuda

from ktfast import KMeans, ops

ROTATION = 4  # input sets together, in sizes of the L2 cache
CASE_SECONDS = 1.0  # measuring time of a case
REPEATS = (7, 51)
CLOCK_HZ = 2e9  # at least that of the multiprocessors, so that waiting is never too short
CHUNK = 16_384  # rows that the torch rivals score at once: 131 MB of float32 for 2,000 centres
TILE, SIDE, N_TILES = 64, 255, 9  # the paper's


class Device:
    """Where the cases run, and its clock."""

    def __init__(self, name: str, *, small: bool) -> None:
        self.name = name
        self.on_gpu = name == "cuda"
        self.small = small
        self.cache = cuda.get_device_properties(0).L2_cache_size if self.on_gpu else 0
        self.random = torch.Generator(name)

    def sets(self, n_bytes: int) -> int:
        """The number of input sets of this size that the calls take turns over."""
        return 1 + ROTATION * self.cache // n_bytes

    def wait(self) -> None:
        if self.on_gpu:
            cuda.synchronize()

    def time(self, calls: Sequence[Callable[[], object]]) -> Row:
        """Median and quartiles of a call in ms, after a warm-up; results stay alive for a round."""
        kept: deque[object] = deque(maxlen=len(calls))
        for call in calls:
            kept.append(call())
        self.wait()
        began = time.perf_counter()
        for call in calls:
            kept.append(call())
        queued = (time.perf_counter() - began) / len(calls)
        self.wait()
        each = (time.perf_counter() - began) / len(calls)
        low, high = (3, 3) if self.small else REPEATS
        repeats = min(max(int(CASE_SECONDS / each), low), high)
        clock = self._events if self.on_gpu else self._host_clock
        times = clock([calls[i % len(calls)] for i in range(repeats)], kept, queued)
        quartiles = statistics.quantiles(times, n=4)
        names = ("ms_quartile_1", "ms", "ms_quartile_3")
        return dict(zip(names, quartiles, strict=True)) | {
            "call_ms": each * 1e3,
            "repeats": repeats,
            "input_sets": len(calls),
        }

    def _events(
        self, calls: Sequence[Callable[[], object]], kept: deque[object], queued: float
    ) -> list[float]:
        busy = int(min(2 * queued, 0.05) * CLOCK_HZ)
        pairs = []
        for call in calls:
            start, end = (cuda.Event(enable_timing=True) for _ in range(2))
            cuda._sleep(busy)
            start.record()
            kept.append(call())
            end.record()
            pairs.append((start, end))
        self.wait()
        return [start.elapsed_time(end) for start, end in pairs]

    def _host_clock(
        self, calls: Sequence[Callable[[], object]], kept: deque[object], _: float
    ) -> list[float]:
        times = []
        for call in calls:
            start = time.perf_counter()
            kept.append(call())
            times.append((time.perf_counter() - start) * 1e3)
        return times


# --- ceilings -------------------------------------------------------------------------------------
def ceilings(device: Device) -> Iterator[Job]:
    """What the device can do at most: a large copy, and large products of random matrices."""
    n_bytes = 1 << (16 if device.small else 30)
    label = {"engine": "copy", "case": f"{n_bytes:,} bytes, read and written"}
    yield label, functools.partial(time_copy, device, n_bytes)
    side = 64 if device.small else 8192
    for engine, dtype, precision in (
        ("matmul bfloat16", torch.bfloat16, "highest"),
        ("matmul tf32", torch.float32, "high"),
        ("matmul float32", torch.float32, "highest"),
    ):
        label = {"engine": engine, "case": f"{side} x {side} x {side}"}
        yield label, functools.partial(time_matmul, device, side, dtype, precision)


def time_copy(device: Device, n_bytes: int) -> list[Row]:
    source = torch.randint(256, (n_bytes,), dtype=torch.uint8, device=device.name)
    target = torch.empty_like(source)
    row = device.time([lambda: target.copy_(source)])
    row["gb_per_s"] = 2e-6 * n_bytes / row["ms"]
    return [row]


def time_matmul(device: Device, side: int, dtype: torch.dtype, precision: str) -> list[Row]:
    torch.set_float32_matmul_precision(precision)
    a, b = (torch.randn(side, side, device=device.name).to(dtype) for _ in range(2))
    row = device.time([lambda: a @ b])
    row["tflop_per_s"] = 2e-9 * side**3 / row["ms"]
    return [row]


# --- jigsaw_tiles ---------------------------------------------------------------------------------
def bench_jigsaw_tiles(device: Device) -> Iterator[Job]:
    batch = 4 if device.small else 256
    for dtype in ("float32", "float16", "bfloat16"):
        for channels_last in (False, True):
            layout = "channels last" if channels_last else "channels first"
            label = {"case": f"B {batch}, {SIDE} px, {dtype}, {layout}", "engine": "ktfast"}
            yield label, functools.partial(time_tiles, device, batch, dtype, channels_last)


def time_tiles(device: Device, batch: int, dtype: str, channels_last: bool) -> list[Row]:
    """Counted: each tile's pixels read once as uint8, written once in the dtype."""
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


# --- k-means --------------------------------------------------------------------------------------
def mixture(device: Device, n: int, d: int, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Overlapping clusters with a decaying spectrum, and rows of them as centres."""
    options: dict[str, Any] = {"device": device.name, "generator": device.random}
    means = torch.randn(200, d, **options)
    x = torch.randn(n, d, **options)
    x += means[torch.randint(200, (n,), **options)]
    x *= (1 + torch.arange(d, device=device.name)) ** -0.5
    return x, x[torch.randperm(n, **options)[:k]].clone()


def sizes(device: Device) -> list[tuple[int, int, int]]:
    if device.small:
        return [(300, 16, 8)]
    return [(200_000, 256, 2000), (1_300_000, 256, 2000), (200_000, 4096, 2000)]


def torch_assign(x: torch.Tensor, centers: torch.Tensor) -> torch.Tensor:
    """The plain way: |c|^2 / 2 - x.c by a product, a chunk of rows at a time, then argmin."""
    half_norms = centers.square().sum(1) / 2
    columns = centers.to(x.dtype).T
    labels = [(half_norms - part @ columns).argmin(1) for part in torch.split(x, CHUNK)]
    return torch.cat(labels).int()


def inertia(x: torch.Tensor, centers: torch.Tensor, labels: torch.Tensor) -> float:
    """Sum of squared distances to the centres that the labels name, in float64."""
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    for part, own in zip(torch.split(x, CHUNK), torch.split(labels.long(), CHUNK), strict=True):
        total += (part.double() - centers[own].double()).square().sum()
    return float(total)


def bench_kmeans_assign(device: Device) -> Iterator[Job]:
    for n, d, k in sizes(device):
        for engine, dtype in (
            ("ktfast", "float32"),
            ("ktfast", "float16"),
            ("torch float32", "float32"),
            ("torch tf32", "float32"),
            ("torch bfloat16", "bfloat16"),
        ):
            label = {"case": f"n {n:,}, d {d}, k {k}, {dtype} rows", "engine": engine}
            yield label, functools.partial(time_assign, device, (n, d, k), engine, dtype)


def time_assign(device: Device, size: tuple[int, int, int], engine: str, dtype: str) -> list[Row]:
    """ktfast also prepares the centres and returns distances; rows are converted beforehand."""
    n, d, k = size
    torch.set_float32_matmul_precision("high" if engine == "torch tf32" else "highest")
    data = [mixture(device, n, d, k) for _ in range(device.sets(n * d * 4))]
    rows = [x.to(getattr(torch, dtype)) for x, _ in data]

    def labels_of(x: torch.Tensor, centers: torch.Tensor) -> torch.Tensor:
        if engine != "ktfast":
            return torch_assign(x, centers)
        labels: torch.Tensor = ops.kmeans_assign(x, centers)[0]
        return labels

    row = device.time(
        [functools.partial(labels_of, x, c) for x, (_, c) in zip(rows, data, strict=True)]
    )
    row["tflop_per_s"] = 2e-9 * n * d * k / row["ms"]
    x, centers = data[0]
    labels = labels_of(rows[0], centers)
    row["inertia"] = inertia(x, centers, labels)
    exact = ops.kmeans_assign(x, centers)[0]
    row["labels_of_float32_rows"] = float((labels == exact).double().mean())
    return [row]


def bench_kmeans_update(device: Device) -> Iterator[Job]:
    for n, d, k in sizes(device):
        for skew in (1, 3):
            for engine in ("ktfast", "torch index_add_, float32 sums"):
                spread = "even" if skew == 1 else "skewed"
                label = {"case": f"n {n:,}, d {d}, k {k}, {spread} clusters", "engine": engine}
                yield label, functools.partial(time_update, device, (n, d, k), engine, skew)


def time_update(device: Device, size: tuple[int, int, int], engine: str, skew: int) -> list[Row]:
    """Counted: rows and labels read once, sums written once (float64, or torch's float32)."""
    n, d, k = size
    draw = torch.rand(n, device=device.name, generator=device.random)
    labels = (k * draw**skew).int().clamp(max=k - 1)
    ones = torch.ones(n, device=device.name)  # bincount would wait for the device
    matrices = [mixture(device, n, d, 1)[0] for _ in range(device.sets(n * d * 4))]

    def call(x: torch.Tensor) -> object:
        if engine == "ktfast":
            return ops.kmeans_update(x, labels, k)
        sums = torch.zeros(k, d, device=device.name).index_add_(0, labels, x)
        return sums, torch.zeros(k, device=device.name).index_add_(0, labels, ones)

    row = device.time([functools.partial(call, x) for x in matrices])
    sum_bytes = 8 if engine == "ktfast" else 4
    row["gb_per_s"] = (n * d * 4 + n * 4 + k * d * sum_bytes) / row["ms"] * 1e-6
    return [row]


def bench_kmeans(device: Device) -> Iterator[Job]:
    for n, d, k in sizes(device):
        label = {"case": f"n {n:,}, d {d}, k {k}, iteration of a fit", "engine": "ktfast.KMeans"}
        yield label, functools.partial(time_fit, device, (n, d, k))


def time_fit(device: Device, size: tuple[int, int, int]) -> list[Row]:
    """The host's clock around whole iterations, as the estimator itself records them."""
    n, d, k = size
    x, centers = mixture(device, n, d, k)
    model = KMeans(k, init=centers, max_iter=6, tol=0).fit(x)
    iterations = [step["seconds"] * 1e3 for step in model.history_]
    times = sorted(iterations[1:] or iterations)  # the first warms up
    median = statistics.median(times)
    row = {"ms": median, "ms_least": times[0], "ms_most": times[-1], "repeats": len(times)}
    return [row | {"tflop_per_s": 2e-9 * n * d * k / median, "inertia": model.inertia_}]


BENCHES: dict[str, Callable[[Device], Iterator[Job]]] = {
    "ceilings": ceilings,
    "bench:jigsaw_tiles": bench_jigsaw_tiles,
    "bench:kmeans_assign": bench_kmeans_assign,
    "bench:kmeans_update": bench_kmeans_update,
    "bench:KMeans": bench_kmeans,
}
SECTIONS = [*(f"compare:{op}" for op in CASES), *BENCHES]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="+", choices=SECTIONS)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--small", action="store_true", help="tiny sizes and few repeats")
    parser.add_argument("--seconds", type=float, default=math.inf, help="start no case after it")
    parser.add_argument("--seed", type=int, default=0, help="of the comparisons' inputs")
    arguments = parser.parse_args()
    deadline = time.monotonic() + arguments.seconds

    device = Device(arguments.device, small=arguments.small)
    for section in arguments.sections:
        options = {"device": device.name, "small": device.small, "seed": arguments.seed}
        kind, _, op = section.partition(":")
        jobs = comparisons(op, **options) if kind == "compare" else BENCHES[section](device)
        for label, run in jobs:
            device.random.manual_seed(1)  # the rivals of a case get the same inputs
            for row in guarded(run, deadline):
                print(json.dumps({"section": section, **label, **row}), flush=True)


def guarded(run: Callable[[], list[Row]], deadline: float) -> list[Row]:
    """The rows of a case, or one with what went wrong: the next cases still run."""
    if time.monotonic() > deadline:
        return [{"error": "not run: the section's time was up"}]
    try:
        return run()
    except Exception as error:  # whatever it is, it belongs in the table
        return [{"error": f"{type(error).__name__}: {error}"}]
    finally:
        if cuda.is_available():
            cuda.empty_cache()


if __name__ == "__main__":
    main()
