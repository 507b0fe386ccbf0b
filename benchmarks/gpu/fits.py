"""K-means fits on the GPU: speed, exactness, streaming; sections of measure.py."""

import functools
import statistics
from collections.abc import Iterator
from typing import Any

import peak
import torch
from compare import Job, Row
from data import Data
from device import Device
from phases import K, N, Size, data_of, rates, sizes, text_of

from ktfast import KMeans, ops

ITERATIONS = {"exact": 20, "fast": 20, "float32": 4}  # iterations of a fit by precision
# The product that bounds a fit. The plan counts on float16: int8 is twice as fast, but is chosen
# only where it leaves few candidates.
PEAKS = {"exact": "float16", "fast": "float16", "float32": "float32"}
SAMPLE = 4096  # rows that are checked by brute force
TIE = 1e-11  # relative: a smaller difference of float64 distances is a rounding error
STREAMED_BYTES = 16e9  # largest size of the rows in the host's memory


# --- whole fits -----------------------------------------------------------------------------------
def fits(device: Device) -> Iterator[Job]:
    """Two equal fits: the times of the iterations, and whether the bits are the same."""
    for precision in ITERATIONS:
        for size in sizes(device):
            label = {"case": text_of(size), "precision": precision}
            yield label, functools.partial(time_fit, device, size, precision)


def fitted(data: Data, iterations: int, **options: Any) -> KMeans:
    model = KMeans(len(data.start), init=data.start, max_iter=iterations, tol=0, **options)
    return model.fit(data.x)


def same(first: KMeans, second: KMeans) -> bool:
    """Whether two fits found the same labels and centres, bit for bit."""
    pairs = (
        (first.labels_, second.labels_),
        (first.cluster_centers_, second.cluster_centers_),
    )
    return all(torch.equal(torch.as_tensor(a).cpu(), torch.as_tensor(b).cpu()) for a, b in pairs)


def time_fit(device: Device, size: Size, precision: str) -> list[Row]:
    """Times of whole iterations by the host's clock, as the estimator records them."""
    data = data_of(device, size)
    iterations = 3 if device.small else ITERATIONS[precision]
    fitted(data, 2, precision=precision)
    model = fitted(data, iterations, precision=precision)
    again = fitted(data, iterations, precision=precision)
    times = [1e3 * step["seconds"] for step in model.history_]
    row: Row = {"ms": statistics.median(times), "ms_first": times[0], "ms_last": times[-1]}
    row |= {"iterations": model.n_iter_, "same_again": same(model, again)}
    row |= {"inertia": model.inertia_, "moved_last": model.history_[-1]["moved"]}
    row["skipped_last"] = model.history_[-1]["skipped"]
    row["peak"] = f"matmul {PEAKS[precision]}"
    row["history_ms"] = " ".join(f"{value:.3g}" for value in times)
    return [rates(row, size)]


# --- exactness ------------------------------------------------------------------------------------
def exactness(device: Device) -> Iterator[Job]:
    """Labels of sampled rows, and of rows nearly half-way between centres, by brute force."""
    for size in sizes(device):
        for precision in ("exact", "float32"):
            label = {"case": text_of(size), "precision": precision}
            yield label, functools.partial(check_exact, device, size, precision)


def near_ties(data: Data, count: int) -> torch.Tensor:
    """Rows half-way between two centres, moved by the least float32 step towards one of them."""
    generator = torch.Generator().manual_seed(3)
    some = torch.randint(len(data.start), (count,), generator=generator).to(data.device)
    between = torch.cdist(data.start, data.start).fill_diagonal_(torch.inf)
    first, second = data.start[some], data.start[between.argmin(1)[some]]
    middle = (first.double() / 2 + second.double() / 2).float()
    towards_first = torch.rand(count, 1, generator=generator).to(data.device) < 0.5
    return torch.nextafter(middle, torch.where(towards_first, first, second))


def check_exact(device: Device, size: Size, precision: str) -> list[Row]:
    n, _, _ = size
    count = min(SAMPLE, n // 2)
    data = data_of(device, (min(n, 32 * SAMPLE), *size[1:]))
    step = len(data.x) // count
    rows = []
    for name, x in (("sample", data.x[::step][:count]), ("near-ties", near_ties(data, count))):
        x = x.contiguous()
        labels, distances = ops.kmeans_assign(
            x, data.start, precision=precision, distance_dtype="float64"
        )
        row: Row = {"rows": name, "n_rows": len(x)} | against_brute_force(data, x, labels)
        twin = ops.kmeans_assign(x.cpu(), data.start.cpu(), distance_dtype="float64")
        row["equal"] = float((labels.cpu() == twin[0]).double().mean())
        row["equal_distances"] = float((distances.cpu() == twin[1]).double().mean())
        rows.append(row)
    return rows


def against_brute_force(data: Data, x: torch.Tensor, labels: torch.Tensor) -> Row:
    """Count rows whose label is not the nearest centre by direct float64 distances.

    Two centres whose distances differ only by rounding are both right: such a row is a tie.
    """
    wrong = ties = 0
    centers = data.start.double()
    for part, own in zip(torch.split(x, 64), torch.split(labels.long(), 64), strict=True):
        squares = torch.stack([(row.double() - centers).square().sum(1) for row in part])
        least, best = squares.min(1)
        given = squares.gather(1, own[:, None])[:, 0]
        differs = own != best
        tied = differs & (given <= least * (1 + TIE))
        ties += int(tied.sum())
        wrong += int((differs & ~tied).sum())
    return {"wrong": wrong, "ties": ties}


# --- streaming ------------------------------------------------------------------------------------
def streaming(device: Device) -> Iterator[Job]:
    """Streamed fits: rate beside that of the link, and whether the bits equal a resident fit's."""
    features = (24,) if device.small else (256, 4096)
    for d in features:
        n = 700 if device.small else int(min(N, STREAMED_BYTES / (4 * d))) // 128 * 128
        size = (n, d, 70 if device.small else K)
        yield {"case": text_of(size)}, functools.partial(time_streamed, device, size)


def time_streamed(device: Device, size: Size) -> list[Row]:
    n, d, _ = size
    iterations = 3 if device.small else 6
    data = data_of(device, size, on_host=True)
    link = peak.copy("to device", device.name, small=device.small)
    budget = max(1 << 20, data.x.nbytes // 8)
    streamed = fitted(data, iterations, device=device.name, memory_budget=budget)
    resident = fitted(data._replace(x=data.x.to(device.name)), iterations)
    each = statistics.median(step["seconds"] for step in streamed.history_[1:])
    rate = 4 * n * d / each
    return [
        {
            "ms": 1e3 * each,
            "budget_bytes": budget,
            "gb_per_s": rate * 1e-9,
            "link_gb_per_s": link * 1e-9,
            "of_link": rate / link,
            "ms_resident": 1e3 * statistics.median(s["seconds"] for s in resident.history_[1:]),
            "iterations": streamed.n_iter_,
            "same_again": same(streamed, resident),
        }
    ]
