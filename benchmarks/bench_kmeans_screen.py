"""Assignment passes of K-means as a share of the processor's peak of float32 multiply-adds.

    python benchmarks/bench_kmeans_screen.py --data mixture256 --clusters 2000 --threads 2

Every row has a guess, as in the second and later iterations, and the screen compares every row with
every centre. The time includes exact distances. The peak is measured before and after each pass,
because the processor's clock changes. KTFAST_SIMD chooses the instruction set.
"""

import argparse
import time

import numpy as np

from ktfast.bench.kmeans import data as kmeans_data
from ktfast.native import modules
from ktfast.ops.kmeans_screen import CODES, Screen

# Approximate time of a pass: threads start in much less, and the processor's clock is stable for
# longer.
PASS_SECONDS = 0.04
ROWS = 192  # rows of two blocks; a thread gets a multiple


def main() -> None:
    """Print the median share and its quartiles."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mixture256", help="rows, as in ktfast bench kmeans")
    parser.add_argument("--clusters", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--code", choices=CODES, default="float32")
    parser.add_argument("--repeats", type=int, default=41)
    args = parser.parse_args()
    low, middle, high = np.percentile(shares(args), [25, 50, 75])
    print(
        f"{args.data} k {args.clusters} {args.code} {modules.simd_level()} "
        f"threads {args.threads}: {middle:.1%} of the float32 peak ({low:.1%} to {high:.1%})"
    )


def shares(args: argparse.Namespace) -> list[float]:
    """Operations per second of each pass, divided by the peak before and after the pass."""
    x = kmeans_data.load(args.data)
    centers = kmeans_data.first_centers(x, args.clusters).astype(np.float64)
    operations = 2 * args.clusters * x.shape[1]  # per row
    step = ROWS * args.threads
    rows = max(step, int(PASS_SECONDS * peak(args.threads) / operations) // step * step)
    x = np.ascontiguousarray(x[:rows])
    screen = Screen(x.mean(0), args.code, n_threads=args.threads)
    prepared = screen.prepare(centers)
    labels, distances = np.zeros(len(x), np.int32), np.empty(len(x))
    screen.assign(x, centers, prepared, labels, distances)
    found = []
    for _ in range(args.repeats):
        before = peak(args.threads)
        start = time.perf_counter()
        screen.assign(x, centers, prepared, labels, distances, guessed=True)
        seconds = time.perf_counter() - start
        found.append(2 * len(x) * operations / seconds / (before + peak(args.threads)))
    return found


def peak(threads: int) -> float:
    """Operations per second of float32 multiply-adds."""
    return float(modules.cpu.machine_peak(kind="fp32", seconds=0.004, n_threads=threads))


if __name__ == "__main__":
    main()
