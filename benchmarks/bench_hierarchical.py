"""Hierarchical K-means beside flat K-means: CPU-seconds, inertia and balance of the sizes.

    python benchmarks/bench_hierarchical.py [--rows 100000] [--features 64] [--clusters 10000]
        [--data FILE.npy] [--iterations 20] [--threads 1] [--only flat divided resampled faiss]

The rows are a file, or drawn from 50 kinds of rows. Each kind consists of 20 Gaussian clusters, and
the sizes of the kinds fall like 1 / rank. All fits do at most the same number of iterations and
have the same number k of finest clusters. Hierarchical fits have levels of k, k / 10 and k / 100
clusters, with 10 resampling steps in each of the two coarser levels:

flat          one K-means of all rows, which starts from random rows
divided       about sqrt(k) groups of rows, then clusters within each group (k1 x k2)
resampled     divided, with one resampling step in every K-means of the finest level
faiss         one K-means of faiss, which starts from random rows; needs faiss

The ratios compare with the first fit of the table. The inertia is exact: every row is compared with
all centres. The CPU-seconds of `divided` and `resampled` include this comparison and the coarser
levels. The last column describes a sample of a tenth of the rows: the normalised entropy of the
kinds of its rows (only without --data). `HierarchicalKMeans.sample` draws the balanced sample of
`divided` and `resampled`; the sample of the other fits is random.
"""

import argparse
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ktfast import HierarchicalKMeans, KMeans
from ktfast.kmeans import size_balance

Rows = npt.NDArray[np.float32]
KINDS, PER_KIND = 50, 20
KIND_SPREAD, SPREAD = 2.5, 1.2
"""Standard deviations of the kinds' centres, and of the clusters' centres within a kind."""
FITS = ("flat", "divided", "resampled", "faiss")


class Fit(NamedTuple):
    """What a fit gave.

    Attributes
    ----------
    centers : array, float32 [k, d]
        The finest centres.
    sample : array, int64 [m]
        Rows of a sample.
    """

    centers: Rows
    sample: npt.NDArray[np.int64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--clusters", type=int, default=10_000, help="at least 200")
    parser.add_argument("--data", type=Path, help="a .npy file of rows, instead of random rows")
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=FITS, default=FITS[:3], help="fits to do")
    arguments = parser.parse_args()
    if arguments.data is None:
        x, truth = skewed_mixture(arguments.rows, arguments.features)
    else:
        x, truth = np.load(arguments.data).astype(np.float32)[: arguments.rows], None
    print(f"{processor()}, {arguments.threads} thread(s), n, d, k = {len(x)}, {x.shape[1]}, "
          f"{arguments.clusters}, at most {arguments.iterations} iterations\n")  # fmt: skip
    heads = ["fit", "CPU-seconds", "of the first", "inertia", "of the first"]
    heads += ["entropy of sizes", "empty", "5, 50, 95, 100 % of sizes", "entropy of the sample"]
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    first: tuple[float, float] | None = None
    for name, run in contestants(arguments).items():
        started = time.process_time()
        found = run(x)
        seconds = time.process_time() - started
        measured = KMeans(len(found.centers), n_threads=arguments.threads)
        measured.cluster_centers_ = found.centers
        labels, distances = measured.assign(x)
        first = first or (seconds, distances.sum())
        balance = size_balance(np.bincount(labels, minlength=len(found.centers)))
        drawn = "" if truth is None else f"{entropy(truth[found.sample]):.3f}"
        print(
            f"| {name} | {seconds:.1f} | {seconds / first[0]:.3f} | {distances.sum():.6g} "
            f"| {distances.sum() / first[1]:.4f} | {balance.entropy:.4f} | {balance.empty} "
            f"| {balance.low:.0f}, {balance.median:.0f}, {balance.high:.0f}, {balance.most:.0f} "
            f"| {drawn} |",
            flush=True,
        )


def contestants(arguments: argparse.Namespace) -> dict[str, Callable[[Rows], Fit]]:
    """The fits by name; the first is the one with which the others are compared."""
    k, iterations, threads = arguments.clusters, arguments.iterations, arguments.threads

    def flat(x: Rows) -> Fit:
        model = KMeans(
            k, init="random", n_init=1, max_iter=iterations, random_state=0, n_threads=threads
        ).fit(x)
        return Fit(model.cluster_centers_, random_rows(len(x)))

    def hierarchical(resamples: Any) -> Callable[[Rows], Fit]:
        def fit(x: Rows) -> Fit:
            groups = int(np.ceil(np.sqrt(k)))
            model = HierarchicalKMeans(
                (k, k // 10, k // 100), n_groups=groups, n_resamples=resamples,
                max_iter=iterations, random_state=0, n_threads=threads,
            ).fit(x)  # fmt: skip
            return Fit(model.cluster_centers_, model.sample(len(x) // 10))

        return fit

    def with_faiss(x: Rows) -> Fit:
        import faiss

        faiss.omp_set_num_threads(threads)
        kmeans = faiss.Kmeans(
            x.shape[1], k, niter=iterations, seed=0, max_points_per_centroid=len(x),
            min_points_per_centroid=1,
        )  # fmt: skip
        kmeans.train(x)
        return Fit(kmeans.centroids, random_rows(len(x)))

    chosen = {
        "flat": flat,
        "divided": hierarchical((0, 10, 10)),
        "resampled": hierarchical((1, 10, 10)),
        "faiss": with_faiss,
    }
    return {name: chosen[name] for name in arguments.only}


def skewed_mixture(n: int, d: int) -> tuple[Rows, npt.NDArray[np.int64]]:
    """Rows of kinds whose sizes fall like 1 / rank, and the kind of each row."""
    generator = np.random.default_rng(0)
    kinds = generator.normal(size=(KINDS, d)) * KIND_SPREAD
    centers = (
        np.repeat(kinds, PER_KIND, axis=0) + generator.normal(size=(KINDS * PER_KIND, d)) * SPREAD
    )
    shares = 1 / np.arange(1, KINDS + 1)
    truth = generator.choice(KINDS, size=n, p=shares / shares.sum())
    clusters = truth * PER_KIND + generator.integers(PER_KIND, size=n)
    x = centers[clusters].astype(np.float32) + generator.normal(size=(n, d)).astype(np.float32)
    return x, truth


def random_rows(n: int) -> npt.NDArray[np.int64]:
    """A tenth of the rows, drawn at random."""
    return np.random.default_rng(0).choice(n, n // 10, replace=False)


def entropy(labels: npt.NDArray[np.int64]) -> float:
    """Normalised entropy of the kinds of some rows."""
    return size_balance(np.bincount(labels, minlength=KINDS)).entropy


def processor() -> str:
    """Name the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
