"""K-means against scikit-learn and faiss: same data, same first centres, same threads, whole fits.

Each engine runs in a process of its own, so that the peers' OpenBLAS can be measured both as
installed (OPENBLAS_CORETYPE unset) and at its best setting on AVX-512 machines (SkylakeX). A fit is
the same number of Lloyd iterations and the last assignment, for every engine; the inertia over all
rows stands beside the time, because a faster answer to another question is no comparison.

    python benchmarks/bench_kmeans.py --rows 100000 --features 256 --clusters 2000 --threads 2
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from importlib import metadata, util
from typing import Any, NamedTuple

import numpy as np


class Problem(NamedTuple):
    """Sizes of one comparison."""

    rows: int
    features: int
    clusters: int
    iterations: int
    threads: int
    repeats: int


class Engine(NamedTuple):
    """What to run, and the OPENBLAS_CORETYPE to run it with (None: unset)."""

    name: str
    core_type: str | None


def mixture(problem: Problem) -> tuple[Any, Any]:
    """Overlapping Gaussians with a decaying spectrum, and rows of them as first centres."""
    generator = np.random.default_rng(0)
    spectrum = (1 + np.arange(problem.features, dtype=np.float32)) ** -0.5
    means = generator.normal(size=(200, problem.features)).astype(np.float32)
    x = generator.normal(size=(problem.rows, problem.features)).astype(np.float32)
    x += means[generator.integers(0, len(means), problem.rows)]
    x *= spectrum
    return x, x[generator.choice(problem.rows, problem.clusters, replace=False)]


def run_ktfast(problem: Problem, x: Any, start: Any) -> Any:
    from ktfast import KMeans

    return KMeans(
        problem.clusters,
        init=start,
        max_iter=problem.iterations,
        tol=0,
        n_threads=problem.threads,
    ).fit(x)


def run_sklearn(problem: Problem, x: Any, start: Any) -> Any:
    from sklearn.cluster import KMeans

    model = KMeans(problem.clusters, init=start, n_init=1, max_iter=problem.iterations, tol=0)
    return model.fit(x)


def run_faiss(problem: Problem, x: Any, start: Any) -> Any:
    import faiss

    faiss.omp_set_num_threads(problem.threads)
    model = faiss.Kmeans(
        problem.features,
        problem.clusters,
        niter=problem.iterations,
        max_points_per_centroid=problem.rows,  # or it would cluster a sample
        min_points_per_centroid=1,
    )
    model.train(x, init_centroids=start)
    model.index.search(x, 1)
    return model


RUNNERS: dict[str, Callable[[Problem, Any, Any], Any]] = {
    "ktfast": run_ktfast,
    "scikit-learn": run_sklearn,
    "faiss": run_faiss,
}


def measure(name: str, problem: Problem) -> dict[str, Any]:
    """Run one engine; the objective is computed here, in float64, alike for all."""
    from ktfast.ops import kmeans_assign

    x, start = mixture(problem)
    seconds, cpu_seconds = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        RUNNERS[name](problem._replace(iterations=1), x[: max(1000, problem.clusters)], start)
        for _ in range(problem.repeats):
            began, cpu_began = time.perf_counter(), time.process_time()
            model = RUNNERS[name](problem, x, start)
            seconds.append(time.perf_counter() - began)
            cpu_seconds.append(time.process_time() - cpu_began)
    centers = np.asarray(model.centroids if name == "faiss" else model.cluster_centers_)
    _, distances = kmeans_assign(x, centers, distance_dtype="float64")
    iterations = problem.iterations if name == "faiss" else int(model.n_iter_)
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "inertia": float(distances.sum()),
        "iterations": iterations,
    }


def in_own_process(engine: Engine, problem: Problem) -> dict[str, Any]:
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith("OPENBLAS_")
    }
    environment["OMP_NUM_THREADS"] = str(problem.threads)
    if engine.core_type is not None:
        environment["OPENBLAS_CORETYPE"] = engine.core_type
    command = [sys.executable, __file__, "--engine", engine.name, "--problem", json.dumps(problem)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for option, default in zip(Problem._fields, (100_000, 256, 2000, 10, 1, 3), strict=True):
        parser.add_argument(f"--{option}", type=int, default=default)
    parser.add_argument("--engine", choices=RUNNERS, help=argparse.SUPPRESS)
    parser.add_argument("--problem", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.engine:
        print(json.dumps(measure(options.engine, Problem(*json.loads(options.problem)))))
        return
    problem = Problem(*(getattr(options, field) for field in Problem._fields))
    peers = ["scikit-learn"] + (["faiss"] if util.find_spec("faiss") else [])
    engines = [Engine("ktfast", None)]
    engines += [Engine(peer, core) for peer in peers for core in (None, "SkylakeX")]
    print(
        f"{problem}\n{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, load "
        f"{os.getloadavg()[0]:.1f}; NumPy {np.__version__}, "
        f"scikit-learn {metadata.version('scikit-learn')}\n"
    )
    # CPU seconds show what a machine that others use as well would otherwise hide.
    print("| engine | OPENBLAS_CORETYPE | s/iteration (spread) | CPU s | iterations | inertia |")
    print("|---|---|---|---|---|---|")
    for engine in engines:
        result = in_own_process(engine, problem)
        each = sorted(value / result["iterations"] for value in result["seconds"])
        cpu = statistics.median(result["cpu_seconds"]) / result["iterations"]
        print(
            f"| {engine.name} | {engine.core_type or 'unset'} | {statistics.median(each):.3f} "
            f"({each[0]:.3f}-{each[-1]:.3f}) | {cpu:.3f} | {result['iterations']} | "
            f"{result['inertia']:.8g} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
