"""The vectors that engines on a GPU are compared on, made there or read into its memory.

A file of this size would take longer to read than the engines take to cluster it, so mixtures are
made on the device, a block of rows at a time: the same in every process.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from ktfast.bench.kmeans.data import load, mixture_features

BLOCK_ROWS = 1 << 16
_COMPONENTS = 200


class Data(NamedTuple):
    """What an engine clusters, and from where it starts."""

    x: torch.Tensor
    """float32 [n, d], on the device or, for engines that read it from there, on the host."""
    start: torch.Tensor
    """float32 [k, d] on the device: distinct rows of x."""
    device: str


def make(source: str, rows: int, clusters: int, device: str, *, on_host: bool = False) -> Data:
    """The vectors and first centres.

    Parameters
    ----------
    source : "mixture256" (or another number of features), or a file as `kmeans_data.load` reads it.
    rows, clusters : n, at least k.
    device : "cuda" or "cpu".
    on_host : leave x in pageable memory of the host.

    Raises
    ------
    InputError : there is no such source, or it has fewer rows.
    """
    features = mixture_features(source)
    if features is None:
        whole = torch.from_numpy(load(source, rows))
        x = whole if on_host else whole.to(device)
    else:
        x = torch.empty(rows, features, device="cpu" if on_host else device)
        for place, block in blocks(rows, features, device):
            x[place] = block.to(x.device)
    chosen = np.random.default_rng(1).choice(rows, clusters, replace=False)
    start = x[torch.from_numpy(chosen).to(x.device)].to(device)
    return Data(x, start, device)


def blocks(rows: int, features: int, device: str) -> Iterator[tuple[slice, torch.Tensor]]:
    """Overlapping Gaussians with a decaying spectrum, as `kmeans_data.mixture`: float32 blocks."""
    generator = torch.Generator(device).manual_seed(0)
    means = torch.randn(_COMPONENTS, features, device=device, generator=generator)
    spectrum = (1 + torch.arange(features, device=device)) ** -0.5
    for first in range(0, rows, BLOCK_ROWS):
        count = min(BLOCK_ROWS, rows - first)
        block = torch.randn(count, features, device=device, generator=generator)
        which = torch.randint(_COMPONENTS, (count,), device=device, generator=generator)
        block += means[which]
        block *= spectrum
        yield slice(first, first + count), block


def inertia(data: Data, centers: torch.Tensor) -> float:
    """Sum of squared distances of all rows to their nearest centre, summed in float64.

    The nearest is found by a float32 product, whose errors confuse centres that are equally far to
    seven digits. Independent of every engine.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    centers = centers.to(data.device, torch.float32)
    half_norms = centers.double().square().sum(1).float() / 2
    total = torch.zeros((), dtype=torch.float64, device=data.device)
    for rows in torch.split(data.x, _rows_at_once(centers)):
        part = rows.to(data.device)
        nearest = torch.addmm(half_norms, part, centers.T, alpha=-1).argmin(1)
        total += (part.double() - centers[nearest].double()).square().sum()
    torch.set_float32_matmul_precision(before)
    return float(total)


def _rows_at_once(centers: torch.Tensor) -> int:
    """Rows whose scores and float64 copies take about a gigabyte."""
    k, d = centers.shape
    return max(1, (1 << 30) // (4 * k + 24 * d))
