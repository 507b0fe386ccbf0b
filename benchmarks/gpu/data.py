"""The rows that engines on a GPU cluster.

Mixtures are made on the device, a block of rows at a time, because reading them from a file would
take longer than clustering them. Every process makes the same rows.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from ktfast.bench.kmeans.data import load, mixture_features

BLOCK_ROWS = 1 << 16
_COMPONENTS = 200


class Data(NamedTuple):
    """The rows and the first centres of a fit."""

    x: torch.Tensor
    """float32 [n, d], on the device, or on the host for engines that read rows from there."""
    start: torch.Tensor
    """float32 [k, d] on the device: distinct rows of x."""
    device: str


def make(source: str, rows: int, clusters: int, device: str, *, on_host: bool = False) -> Data:
    """Make or read the rows, and choose the first centres.

    Parameters
    ----------
    source : str
        "mixture256" (or another number of features), or a file that `ktfast.bench.kmeans.data.load`
        reads.
    rows, clusters : int
        Number of rows and of clusters; there are at least as many rows as clusters.
    device : {"cuda", "cpu"}
        Where the engines run.
    on_host : bool, optional
        Leave the rows in pageable memory of the host.

    Returns
    -------
    data : Data
        The rows and the first centres.

    Raises
    ------
    InputError
        The source does not exist, or has fewer rows.
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
    """Blocks of overlapping Gaussians with a decaying spectrum, float32, and their places."""
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
    """Sum of squared distances of all rows to their nearest centres, summed in float64.

    A float32 product finds the nearest centres. Its errors only confuse centres whose distances
    agree to about seven digits. The function is independent of all engines.
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
    """The number of rows whose scores and float64 copies take about 1 GiB."""
    k, d = centers.shape
    return max(1, (1 << 30) // (4 * k + 24 * d))
