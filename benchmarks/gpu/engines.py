"""The K-means engines that are compared on a GPU: whole fits from the same first centres.

A fit is the given number of Lloyd iterations (assignment and update) and the last assignment, on
all rows. Each engine runs in a process of its own, because some engines compile for minutes, run
out of memory or crash.
"""

import functools
import importlib
import math
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from data import Data, inertia, make
from memory import DeviceMemory

from ktfast.bench.core.machine import version_of
from ktfast.bench.kmeans.engines import OWN_START, Fit, Row, history_of, repeated

# Scores of a chunk of rows; a chunk stays in the L2 cache for some thousand centres.
_CHUNK_SCORES = 1 << 24
# Device memory of the streamed engine, as a share of the rows.
_STREAM_SHARE = 1 / 8


class Problem(NamedTuple):
    """The problem that every engine of a comparison gets."""

    source: str
    """See `data.make`."""
    rows: int
    clusters: int
    iterations: int
    repeats: int
    """Largest number of timed fits."""
    seconds: float
    """No further fit begins after the timed fits have taken this time together."""
    device: str


class Engine(NamedTuple):
    """A library, and the function fit(data, iterations) that calls it."""

    package: str
    """The distribution to install."""
    module: str
    fit: Callable[[Data, int], Fit]
    on_host: bool = False
    """Whether the engine reads the rows from the host's memory."""
    note: str = ""


def _ktfast(**options: Any) -> Callable[[Data, int], Fit]:
    def fit(data: Data, iterations: int) -> Fit:
        return _estimator_fit(data, iterations, **options)

    return fit


def _ktfast_streamed(data: Data, iterations: int) -> Fit:
    budget = math.ceil(_STREAM_SHARE * data.x.nbytes)
    return _estimator_fit(data, iterations, device=data.device, memory_budget=budget)


def _estimator_fit(data: Data, iterations: int, **options: Any) -> Fit:
    from ktfast import KMeans

    model = KMeans(len(data.start), init=data.start, max_iter=iterations, tol=0, **options)
    model.fit(data.x)
    return Fit(model.cluster_centers_, model.n_iter_, model.history_)


def _torch(precision: str) -> Callable[[Data, int], Fit]:
    """Lloyd's algorithm in plain torch, a chunk of rows at a time."""

    def fit(data: Data, iterations: int) -> Fit:
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        narrow = data.x.bfloat16() if precision == "bfloat16" else data.x
        centers, n = data.start.clone(), len(data.x)
        chunk = max(1, _CHUNK_SCORES // len(centers))
        for step in range(iterations + 1):
            half_norms = (centers.square().sum(1) / 2).to(narrow.dtype)
            columns = centers.to(narrow.dtype).T
            sums, counts = torch.zeros_like(centers), centers.new_zeros(len(centers))
            for first in range(0, n, chunk):
                rows = slice(first, first + chunk)
                part = narrow[rows].to(data.device)  # copies if the rows lie on the host
                labels = torch.addmm(half_norms, part, columns, alpha=-1).argmin(1)
                if step < iterations:  # the last pass only assigns
                    wide = part if part.dtype == centers.dtype else data.x[rows]
                    sums.index_add_(0, labels, wide)
                    counts.index_add_(0, labels, torch.ones_like(labels, dtype=counts.dtype))
            if step < iterations:
                means = sums / counts[:, None].clamp(min=1)
                centers = torch.where(counts[:, None] > 0, means, centers)
        return Fit(centers, iterations)

    return fit


def _flash_kmeans(dtype: torch.dtype) -> Callable[[Data, int], Fit]:
    def fit(data: Data, iterations: int) -> Fit:
        from flash_kmeans import batch_kmeans_Euclid
        from flash_kmeans.assign_euclid_triton import euclid_assign_triton

        x, start = data.x.to(dtype)[None], data.start.to(dtype)[None]
        _, centers, done = batch_kmeans_Euclid(
            x, len(data.start), max_iters=iterations, tol=-1.0, init_centroids=start
        )
        euclid_assign_triton(x, centers, x.square().sum(-1))
        return Fit(centers[0].float(), done)

    return fit


def _fastkmeans(data: Data, iterations: int) -> Fit:
    from fastkmeans import FastKMeans

    n, d = data.x.shape
    model = FastKMeans(
        d, len(data.start), niter=iterations, tol=0, device=data.device, max_points_per_centroid=n
    )
    rows = data.x.numpy()
    model.train(rows)
    model.predict(rows)
    return Fit(torch.from_numpy(model.centroids), iterations)


def _cuvs(data: Data, iterations: int) -> Fit:
    from cuvs.cluster import kmeans

    options = kmeans.KMeansParams(
        n_clusters=len(data.start), init_method="Array", max_iter=iterations, tol=0.0, n_init=1
    )
    found = kmeans.fit(options, data.x, centroids=data.start.clone())
    kmeans.predict(options, data.x, found.centroids)
    return Fit(torch.as_tensor(found.centroids, device=data.device), int(found.n_iter))


def _cuml(data: Data, iterations: int) -> Fit:
    import cupy
    from cuml.cluster import KMeans

    start = cupy.from_dlpack(data.start)
    model = KMeans(len(start), init=start, n_init=1, max_iter=iterations, tol=0.0)
    model.fit(cupy.from_dlpack(data.x))
    return Fit(torch.as_tensor(model.cluster_centers_, device=data.device), int(model.n_iter_))


_PLAIN = "addmm, argmin, index_add_ in chunks"

ENGINES = {
    "ktfast": Engine(
        "ktfast",
        "ktfast.kmeans.estimator",
        _ktfast(),
        note="exact labels, reproducible bit for bit",
    ),
    "ktfast-fast": Engine(
        "ktfast",
        "ktfast.kmeans.estimator",
        _ktfast(precision="fast"),
        note='precision "fast": no exact distances for rows with several candidates: approximate',
    ),
    "ktfast-float32": Engine(
        "ktfast",
        "ktfast.kmeans.estimator",
        _ktfast(precision="float32"),
        note="a float32 screen, exact labels",
    ),
    "ktfast-streamed": Engine(
        "ktfast",
        "ktfast.kmeans.estimator",
        _ktfast_streamed,
        on_host=True,
        note="rows stream from the host, memory_budget an eighth of them; exact labels",
    ),
    "torch-fp32": Engine("torch", "torch", _torch("float32"), note=_PLAIN),
    "torch-tf32": Engine("torch", "torch", _torch("tf32"), note=f"{_PLAIN}; approximate"),
    "torch-bf16": Engine(
        "torch", "torch", _torch("bfloat16"), note=f"{_PLAIN}; scores in bfloat16: approximate"
    ),
    "torch-host": Engine(
        "torch",
        "torch",
        _torch("float32"),
        on_host=True,
        note="torch-fp32 that sends all rows from pageable host memory in every iteration, as "
        "faiss-gpu's host API does (faiss-gpu also updates the centres on the CPU)",
    ),
    "flash-kmeans": Engine(
        "flash-kmeans",
        "flash_kmeans",
        _flash_kmeans(torch.float32),
        note="float32 rows, multiplied as tf32: approximate",
    ),
    "flash-kmeans-fp16": Engine(
        "flash-kmeans",
        "flash_kmeans",
        _flash_kmeans(torch.float16),
        note="rows and centres in float16: approximate",
    ),
    "fastkmeans": Engine(
        "fastkmeans",
        "fastkmeans",
        _fastkmeans,
        on_host=True,
        note=f"rows in float16 from the host: approximate; {OWN_START}",
    ),
    "cuvs": Engine("cuvs-cu13", "cuvs", _cuvs),
    "cuml": Engine("cuml-cu13", "cuml", _cuml),
}


def measure(engine: str, problem: list[Any]) -> Row:
    """Fit repeatedly in this process, which should do nothing else.

    Parameters
    ----------
    engine : str
        Key of `ENGINES`.
    problem : list
        The fields of a `Problem`.

    Returns
    -------
    row : dict
        "seconds" of each fit; "first_seconds" of a fit of one iteration before the timed fits, in
        which libraries are loaded and kernels compiled; "iterations" of one fit; "device_bytes",
        the largest amount of device memory taken during the first iteration, without the rows
        (None on the CPU); "data_bytes", "inertia", "version", and "history" where the engine keeps
        one.
    """
    given, chosen = Problem(*problem), ENGINES[engine]
    importlib.import_module(chosen.module)
    data = make(given.source, given.rows, given.clusters, given.device, on_host=chosen.on_host)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some engines warn if a fit has not converged
        with DeviceMemory(given.device) as memory:
            first, _ = _timed(chosen, data, 1)
        seconds: list[float] = []
        timed = functools.partial(_timed, chosen, data, given.iterations)
        for took, found in repeated(timed, given.repeats, given.seconds):  # noqa: B007
            seconds.append(took)
    centers = torch.as_tensor(found.centers, device=data.device)
    if not torch.isfinite(centers).all():
        return {"problem": "failed: its centres are not finite"}
    result = {
        "seconds": seconds,
        "first_seconds": first,
        "iterations": int(found.iterations),
        "device_bytes": memory.most,
        "data_bytes": data.x.nbytes,
        "inertia": inertia(data, centers),
        "version": version_of(chosen.package),
    }
    return result | history_of(found)


def _timed(engine: Engine, data: Data, iterations: int) -> tuple[float, Fit]:
    """Seconds until the device has finished a fit, and the fit."""
    _wait(data.device)
    began = time.perf_counter()
    found = engine.fit(data, iterations)
    _wait(data.device)
    return time.perf_counter() - began, found


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()
