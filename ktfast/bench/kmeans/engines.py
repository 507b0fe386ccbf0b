"""The K-means engines that are compared: whole fits from given first centres, one process each.

For every engine, a fit is the given number of Lloyd iterations (assignment and update) and the last
assignment, on all rows. Engines that sample the rows by default are told to use all of them.
"""

import importlib
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ktfast.bench.core.machine import version_of

Float32 = NDArray[np.float32]
Row = dict[str, Any]
Result = TypeVar("Result")

AS_INSTALLED = "as installed"
"""The setting of an engine without any variable that describes the processor."""


class Problem(NamedTuple):
    """The problem that every engine of a comparison gets."""

    folder: str
    """Holds x.npy, float32 [n, d], and start.npy, float32 [k, d]; receives centers.npy."""
    rows: int
    """Only this number of rows of x is clustered, from the first on."""
    iterations: int
    threads: int
    repeats: int
    """Largest number of timed fits."""
    seconds: float
    """No further fit begins after the timed fits have taken this time together."""


class Fit(NamedTuple):
    """The result of an engine."""

    centers: Any
    """[k, d]"""
    iterations: int
    history: list[dict[str, float]] | None = None


class Engine(NamedTuple):
    """A library, and the function fit(x, start, iterations, threads) that calls it."""

    package: str
    """The distribution to install."""
    module: str
    fit: Callable[[Float32, Float32, int, int], Fit]
    openblas: bool = False
    """Whether the speed depends on the kernels that OpenBLAS chooses for the processor."""
    note: str = ""


def _ktfast(x: Float32, start: Float32, iterations: int, threads: int) -> Fit:
    from ktfast import KMeans

    model = KMeans(len(start), init=start, max_iter=iterations, tol=0, n_threads=threads).fit(x)
    return Fit(model.cluster_centers_, model.n_iter_, model.history_)


def _faiss(x: Float32, start: Float32, iterations: int, threads: int) -> Fit:
    import faiss

    faiss.omp_set_num_threads(threads)
    model = faiss.Kmeans(
        x.shape[1],
        len(start),
        niter=iterations,
        max_points_per_centroid=len(x),  # faiss would cluster a sample
        min_points_per_centroid=1,
    )
    model.train(x, init_centroids=start)
    model.index.search(x, 1)
    return Fit(model.centroids, len(model.obj))  # faiss ends if the objective stays the same


def _sklearn(x: Float32, start: Float32, iterations: int, threads: int) -> Fit:
    from sklearn.cluster import KMeans

    # OMP_NUM_THREADS of this process sets the threads of OpenMP and OpenBLAS.
    model = KMeans(len(start), init=start, n_init=1, max_iter=iterations, tol=0).fit(x)
    return Fit(model.cluster_centers_, model.n_iter_)


def _sklearnex(x: Float32, start: Float32, iterations: int, threads: int) -> Fit:
    import daal4py
    from sklearnex.cluster import KMeans

    daal4py.daalinit(threads)
    model = KMeans(len(start), init=start, n_init=1, max_iter=iterations, tol=0).fit(x)
    return Fit(model.cluster_centers_, model.n_iter_)


def _superkmeans(x: Float32, start: Float32, iterations: int, threads: int) -> Fit:
    from superkmeans import SuperKMeans

    model = SuperKMeans(
        len(start),
        x.shape[1],
        hierarchical=False,
        iters=iterations,
        sampling_fraction=1.0,  # superkmeans would cluster a sample
        max_points_per_cluster=len(x),
        n_threads=threads,
        early_termination=False,
        seed=0,
    )
    centers = model.train(x)
    model.assign_training_points(x, centers)
    return Fit(centers, iterations)


def _torch(x: Float32, start: Float32, iterations: int, threads: int) -> Fit:
    return _torch_lloyd(x, start, iterations, threads, "float32")


def _torch_bf16(x: Float32, start: Float32, iterations: int, threads: int) -> Fit:
    return _torch_lloyd(x, start, iterations, threads, "bfloat16")


def _torch_lloyd(x: Float32, start: Float32, iterations: int, threads: int, dtype: str) -> Fit:
    """Lloyd's algorithm in plain torch, in blocks that fit the caches."""
    import torch

    torch.set_num_threads(threads)
    rows, centers = torch.from_numpy(x), torch.from_numpy(start).clone()
    narrow = rows.to(getattr(torch, dtype))
    labels = torch.empty(len(x), dtype=torch.int64)

    def assign() -> None:
        halved_norms = (centers**2).sum(1).to(narrow.dtype) / 2
        factors = centers.to(narrow.dtype).T
        for place in range(0, len(x), 4096):
            block = slice(place, place + 4096)
            torch.argmin(
                torch.addmm(halved_norms, narrow[block], factors, alpha=-1), 1, out=labels[block]
            )

    for _ in range(iterations):
        assign()
        counts = torch.bincount(labels, minlength=len(centers))
        sums = torch.zeros_like(centers).index_add_(0, labels, rows)
        filled = counts > 0
        centers[filled] = sums[filled] / counts[filled, None]
    assign()
    return Fit(centers.numpy(), iterations)


def _numpy(x: Float32, start: Float32, iterations: int, threads: int) -> Fit:
    """Lloyd's algorithm in plain NumPy, in blocks that fit the caches."""
    # OMP_NUM_THREADS of this process sets the threads of OpenBLAS.
    centers = start.copy()
    labels = np.empty(len(x), np.int64)

    def assign() -> None:
        halved_norms = (centers**2).sum(1) / 2
        for place in range(0, len(x), 4096):
            block = slice(place, place + 4096)
            labels[block] = (halved_norms - x[block] @ centers.T).argmin(1)

    for _ in range(iterations):
        assign()
        order = np.argsort(labels, kind="stable")
        filled, first, counts = np.unique(labels[order], return_index=True, return_counts=True)
        centers[filled] = np.add.reduceat(x[order], first) / counts[:, None]
    assign()
    return Fit(centers, iterations)


def _fastkmeans(x: Float32, start: Float32, iterations: int, threads: int) -> Fit:
    import torch
    from fastkmeans import FastKMeans

    torch.set_num_threads(threads)
    model = FastKMeans(
        x.shape[1], len(start), niter=iterations, tol=0, gpu=False, max_points_per_centroid=len(x)
    )
    model.train(x)
    model.predict(x)
    return Fit(model.centroids, iterations)


OWN_START = "takes no first centres: starts from random rows of its own"

ENGINES = {
    "ktfast": Engine(
        "ktfast", "ktfast.kmeans.estimator", _ktfast, note="exact labels, reproducible bit for bit"
    ),
    "faiss": Engine("faiss-cpu", "faiss", _faiss, openblas=True, note="subsampling lifted"),
    "sklearn": Engine("scikit-learn", "sklearn", _sklearn, openblas=True, note="lloyd"),
    "superkmeans": Engine(
        "superkmeans",
        "superkmeans",
        _superkmeans,
        openblas=True,
        note=f"approximate; {OWN_START}; subsampling lifted, early termination off",
    ),
    "sklearnex": Engine("scikit-learn-intelex", "sklearnex", _sklearnex),
    "torch": Engine("torch", "torch", _torch, note="addmm, argmin, index_add_; float32"),
    "torch-bf16": Engine(
        "torch", "torch", _torch_bf16, note="as torch, with scores in bfloat16: approximate"
    ),
    "numpy": Engine("numpy", "numpy", _numpy, openblas=True, note="matmul, argmin, reduceat"),
    "fastkmeans": Engine("fastkmeans", "fastkmeans", _fastkmeans, note=OWN_START),
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
        "seconds" and "cpu_seconds" of each fit, "iterations" of one fit, "peak_rss" (largest
        number of bytes that the process held), "idle_rss" (bytes before the first fit, with data
        and libraries), "data_bytes", "version", and "history" where the engine keeps one. The
        centres are written to centers.npy.
    """
    given, chosen = Problem(*problem), ENGINES[engine]
    importlib.import_module(chosen.module)
    folder = Path(given.folder)
    x, start = np.load(folder / "x.npy")[: given.rows], np.load(folder / "start.npy")
    idle_rss = _resident("VmRSS")
    seconds: list[float] = []
    cpu_seconds: list[float] = []

    def timed() -> tuple[float, Fit]:
        began, cpu_began = time.perf_counter(), time.process_time()
        found = chosen.fit(x, start, given.iterations, given.threads)
        took = time.perf_counter() - began
        cpu_seconds.append(time.process_time() - cpu_began)
        return took, found

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some engines warn if a fit has not converged
        chosen.fit(x[: max(1000, 4 * len(start))], start, 1, given.threads)
        for took, found in repeated(timed, given.repeats, given.seconds):  # noqa: B007
            seconds.append(took)
    result = {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "iterations": int(found.iterations),
        "peak_rss": _resident("VmHWM"),
        "idle_rss": idle_rss,
        "data_bytes": x.nbytes,
        "version": version_of(chosen.package),
    }
    np.save(folder / "centers.npy", np.asarray(found.centers, np.float32))
    return result | history_of(found)


def repeated(
    timed: Callable[[], tuple[float, Result]], repeats: int, seconds: float
) -> Iterator[tuple[float, Result]]:
    """Call a function once, and again until a number of calls or a time is reached.

    Parameters
    ----------
    timed : callable
        Returns its seconds and a result.
    repeats : int
        Largest number of calls.
    seconds : float
        No further call begins after the calls have taken this time together.

    Yields
    ------
    outcome : tuple of (float, object)
        What each call returned.
    """
    total, calls = 0.0, 0
    while calls == 0 or (calls < repeats and total < seconds):
        took, found = timed()
        total, calls = total + took, calls + 1
        yield took, found


def history_of(found: Fit) -> Row:
    """The history of a fit in Python's own numbers, under "history"; empty without a history."""
    rows = [{key: float(value) for key, value in row.items()} for row in found.history or []]
    return {"history": rows} if rows else {}


def _resident(field: str) -> int:
    """Bytes that this process holds now (VmRSS), or the largest number so far (VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {field}")
