"""The CPU-seconds of K-means' seeding, as a multiple of an iteration.

    python benchmarks/bench_seeding.py [--rows 50000] [--features 128] [--clusters 200 1000 2000]

An iteration is the mean of iterations 2 to 6 of a fit from random rows. The seeding is a fit of one
iteration less the same fit from given centres. All runs use one thread.
"""

import argparse
import time

import numpy as np
import numpy.typing as npt

from ktfast import KMeans
from ktfast.kmeans.estimator import Init


def seconds(x: npt.NDArray[np.float32], k: int, init: Init, iterations: int) -> float:
    """The CPU-seconds of a fit."""
    started = time.process_time()
    KMeans(k, init=init, n_init=1, random_state=0, max_iter=iterations, tol=0, n_threads=1).fit(x)
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--features", type=int, default=128)
    parser.add_argument("--clusters", type=int, nargs="+", default=[200, 1000, 2000])
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)
    for k in arguments.clusters:
        centers = generator.normal(size=(k, arguments.features)) * 1.2
        x = centers[generator.integers(k, size=arguments.rows)].astype(np.float32)
        x += generator.normal(size=x.shape).astype(np.float32)
        given = x[generator.choice(len(x), k, replace=False)].astype(np.float64)
        one, six = (seconds(x, k, given, iterations) for iterations in (1, 6))
        iteration = (six - one) / 5
        print(f"{len(x)} rows, {k} clusters: an iteration takes {iteration:.3f} CPU-seconds")
        for method in ("k-means||", "k-means++"):
            seeding = seconds(x, k, method, 1) - one
            ratio = seeding / iteration
            print(f"  {method} takes {seeding:.3f}, as long as {ratio:.0f} iterations")


if __name__ == "__main__":
    main()
