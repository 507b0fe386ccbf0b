"""Dense passes of K-means as a share of what float32 multiply-adds reach at the same time.

    python benchmarks/bench_kmeans_screen.py --data mixture256 --clusters 2000 --threads 2

Every row has a guess, as from the second iteration on, and is compared with every centre; exact
distances are included. The peak is measured before and after each pass, since clocks change.
KTFAST_SIMD chooses the instruction set.
"""

import argparse
import time

import numpy as np

from ktfast.bench.kmeans import data as kmeans_data
from ktfast.native import modules
from ktfast.ops.kmeans_screen import CODES, Screen

PASS_SECONDS = 0.04  # about; long beside what starts threads, short beside what changes clocks
ROWS = 192  # of two blocks, and a multiple of it


def main() -> None:
    """Print the median share and its quartiles."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mixture256", help="as in ktfast bench kmeans")
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
    """Operations a second of each pass over the peak around it."""
    x = kmeans_data.load(args.data)
    centers = kmeans_data.first_centers(x, args.clusters).astype(np.float64)
    operations = 2 * args.clusters * x.shape[1]  # of a row
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
    """Operations a second of float32 multiply-adds."""
    return float(modules.cpu.machine_peak(kind="fp32", seconds=0.004, n_threads=threads))


if __name__ == "__main__":
    main()
