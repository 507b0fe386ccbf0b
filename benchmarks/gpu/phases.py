"""The phases of a K-means iteration on the GPU; a section of measure.py.

The rows and first centres are those of bench_kmeans.py: overlapping Gaussians with a decaying
spectrum, made on the device, and distinct rows.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from compare import Job, Row, cuda
from data import Data, make
from device import Device
from ncu import short

from ktfast import KMeans, ops

N, K = 1_280_000, 2000
FEATURES = (256, 4096, 512, 9216)  # the most important first, because the time may run out
ROW_BYTES = 600  # labels, distances and workspace of a row, beside x and its codes
PROFILED_ROWS = 1 << 18
MEAN_ROWS = 1 << 16

Size = tuple[int, int, int]


def sizes(device: Device) -> list[tuple[int, int, int]]:
    """n, d and k of each case; fewer rows where x in float32 and codes of 16 bits do not fit."""
    if device.small:
        return [(700, 24, 70)]
    return [(device.rows_that_fit(N, 6 * d + ROW_BYTES), d, K) for d in FEATURES]


def text_of(size: Size) -> str:
    n, d, k = size
    return f"n {n:,}, d {d}, k {k}"


def data_of(device: Device, size: Size, *, on_host: bool = False) -> Data:
    n, d, k = size
    return make(f"mixture{d}", n, k, device.name, on_host=on_host)


def rates(row: Row, size: Size) -> Row:
    n, d, k = size
    row["tflop_per_s"] = 2e-9 * n * d * k / row["ms"]
    return row


def phases(device: Device) -> Iterator[Job]:
    """Every phase by CUDA events, and the kernels of an assignment pass by torch.profiler.

    float16 comes first at the two most important sizes. int8 comes last, because at 4,096 features
    it leaves most rows of a mixture undecided without guesses, and each such pass takes seconds.
    """
    for code, size in order_of(sizes(device)) if device.on_gpu else ():
        job = functools.partial(time_screen, device, size, code)
        yield {"case": text_of(size), "code": code}, job
    for size in sizes(device):
        yield {"case": text_of(size)}, functools.partial(time_float32, device, size)


def order_of(cases: list[Size]) -> list[tuple[str, Size]]:
    """The codes and sizes of `phases`, the most important first."""
    return [(code, size) for code in ("float16", "int8") for size in cases]


def time_screen(device: Device, size: Size, code: str) -> list[Row]:
    return Screening(device, data_of(device, size), size, code).rows()


def time_float32(device: Device, size: Size) -> list[Row]:
    data = data_of(device, size)
    return [update_row(device, data, size), float32_row(device, data, size)]


def update_row(device: Device, data: Data, size: Size) -> Row:
    """The update from all rows; in a fit the update reads only the rows that changed cluster."""
    n, d, k = size
    labels = (torch.arange(n, device=device.name) * 7919 % k).int()
    row: Row = {"phase": "update, all rows"}
    row |= device.time([lambda: ops.kmeans_update(data.x, labels, k)])
    row["gb_per_s"] = (n * d * 4 + n * 4 + k * d * 8) / row["ms"] * 1e-6
    return row


def float32_row(device: Device, data: Data, size: Size) -> Row:
    call = functools.partial(ops.kmeans_assign, data.x, data.start, precision="float32")
    row = {"phase": "assign, prepare included", "code": "float32", "peak": "matmul float32"}
    return rates(row | device.time([call]), size)


class Screening:
    """The phases of the tensor-core screen with one code, on the same rows and centres."""

    def __init__(self, device: Device, data: Data, size: Size, code: str) -> None:
        from ktfast.ops.kmeans_tensor import TensorScreen

        self.device, self.size, self.code, self.x = device, size, code, data.x
        n = size[0]
        mean = data.x[:MEAN_ROWS].mean(0)
        self.screen = TensorScreen(mean, code, like=data.x)
        self.codes = self.screen.empty_codes(n)
        self.labels = torch.empty(n, dtype=torch.int32, device=device.name)
        self.distances = torch.empty(n, dtype=torch.float64, device=device.name)
        self.centers = data.start.double()
        self.screen.encode(data.x, self.codes)
        self.use(self.centers)

    def use(self, centers: torch.Tensor) -> None:
        self.centers = centers
        self.prepared = self.screen.prepare(centers)

    def assign(self, before: torch.Tensor | None = None, **options: Any) -> None:
        """One assignment pass, with the given labels as guesses or without guesses."""
        if before is not None:
            self.labels.copy_(before)  # a thousandth of the bytes that the pass reads
        self.screen.assign(
            self.x,
            self.centers,
            self.prepared,
            self.labels,
            self.distances,
            codes=self.codes,
            guessed=before is not None,
            **options,
        )

    def rows(self) -> list[Row]:
        found = [self.row("encode", lambda: self.screen.encode(self.x, self.codes), flops=False)]
        prepare = functools.partial(self.screen.prepare, self.centers)
        found.append(self.row("prepare", prepare, flops=False))
        found.append(self.row("assign, no guess", self.assign))
        found[-1]["candidates_per_row"] = self.candidates(None)
        before = self.labels.clone()
        sums, counts = ops.kmeans_update(self.x, before, self.size[2])
        means = sums / counts[:, None].clamp(min=1)
        self.use(torch.where(counts[:, None] > 0, means, self.centers).float().double())
        guessed = functools.partial(self.assign, before)
        found.append(self.row("assign, guessed", guessed))
        found[-1]["candidates_per_row"] = self.candidates(before)
        unchecked = functools.partial(self.assign, before, certify=False)
        found.append(self.row("assign, guessed, no certificate", unchecked))
        return found + [self.label(f"kernel {name}") | row for name, row in kernel_times(guessed)]

    def label(self, phase: str) -> Row:
        return {"phase": phase, "code": self.code}

    def row(self, phase: str, call: Callable[[], object], *, flops: bool = True) -> Row:
        row = self.label(phase) | self.device.time([call])
        return rates(row | {"peak": f"matmul {self.code}"}, self.size) if flops else row

    def candidates(self, before: torch.Tensor | None) -> float:
        """The number of candidates per row."""
        passed = torch.zeros(1, dtype=torch.int64, device=self.device.name)
        self.assign(before, n_passed=passed)
        return int(passed) / self.size[0]


def kernel_times(call: Callable[[], object]) -> Iterator[tuple[str, Row]]:
    """The time of each of ktfast's kernels in one call, on the device's clock."""
    call()
    cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call()
        cuda.synchronize()
    for kernel in profile.key_averages():
        if "ktfast::" in kernel.key:
            row = {"ms": kernel.self_device_time_total / 1e3, "launches": kernel.count}
            yield short(kernel.key), row


# --- for ncu --------------------------------------------------------------------------------------
def profiled(device: Device) -> Iterator[Job]:
    """A fit of two iterations at sizes that fill the device, after a fit that warms up."""
    for d in (24,) if device.small else (256, 4096):
        size = (700, d, 70) if device.small else (PROFILED_ROWS, d, K)
        yield {"case": text_of(size)}, functools.partial(run_fit, device, size)


def run_fit(device: Device, size: Size) -> list[Row]:
    data = data_of(device, size)
    model = KMeans(size[2], init=data.start, max_iter=2, tol=0)
    model.fit(data.x)
    if device.on_gpu:
        cuda.cudart().cudaProfilerStart()
    model.fit(data.x)
    if device.on_gpu:
        cuda.cudart().cudaProfilerStop()
    return [{"iterations": model.n_iter_}]
