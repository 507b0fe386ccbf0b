"""How long K-means takes on many machines: a model, fitted to a few processes of this machine.

    python benchmarks/scale_model.py measure --out scale.json
    python benchmarks/scale_model.py predict scale.json --plot docs/images/scale.svg

An iteration over n rows of d features with k clusters on P processes takes

    w * 2 n k d / (P R)  +  16 k d / B  +  2 (P - 1) L    seconds.

R is the arithmetic of a process in operations per second, B the bandwidth in bytes per second, and
L the latency in seconds. w is the share of the arithmetic that an iteration needs: exact K-means
skips rows whose nearest centre is known. If w is 1, communication takes 8 P R / (n B) times as long
as the arithmetic, whatever k and d are.

`measure` runs one fit on 1, 2 and 4 processes, compares the hashes of the centres, and stores w and
R by iteration, in CPU-seconds, because the processes may have to share cores. It also times sums of
several sizes over the processes, which give B and L. `predict` checks that one R fits all numbers
of processes, and then replays w for a large problem, also with stragglers and with nodes that fail.
"""

import argparse
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
PROCESSES = (1, 2, 4)
REPEATS = 3
SUMS = (1 << 10, 1 << 14, 1 << 17, 1 << 20)
"""Lengths of the vectors of int64 whose sums are timed."""


def measure(options: argparse.Namespace) -> None:
    """Run the fit on every number of processes, and write what was measured."""
    found: dict[str, Any] = {"n": options.rows, "d": options.features, "k": options.clusters}
    for size in PROCESSES:
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            port = server.getsockname()[1]
        common = {**os.environ, "WORLD_SIZE": str(size), "OMP_NUM_THREADS": "1"}
        common |= {"MASTER_ADDR": "127.0.0.1"}
        # Two cores that share execution units are slower when both work. So a second, independent
        # process works beside the single one.
        places = [(0, port), (0, port + 1)] if size == 1 else [(rank, port) for rank in range(size)]
        command = [sys.executable, __file__, "worker", *map(str, (options.rows, options.features))]
        started = [
            subprocess.Popen(
                [*command, str(options.clusters)],
                env={**common, "RANK": str(rank), "MASTER_PORT": str(place)},
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank, place in places
        ]
        found[str(size)] = [json.loads(each.communicate()[0]) for each in started][:size]
        print(f"{size} processes: centres {found[str(size)][0]['centers'][:16]}", flush=True)
    if len({each["centers"] for size in PROCESSES for each in found[str(size)]}) != 1:
        raise SystemExit("the centres differ between the numbers of processes")
    Path(options.out).write_text(json.dumps(found))


def worker(n: int, d: int, k: int) -> None:
    """Fit a part of the rows as one process, and print the times of its iterations and sums."""
    from ktfast import KMeans
    from ktfast.kmeans.distributed import TorchCommunicator
    from ktfast.kmeans.progress import Progress

    class Timed(TorchCommunicator):
        seconds = 0.0  # CPU-seconds of the exchange of data

        def _wait(self, begin: Any) -> None:
            before = time.process_time()
            super()._wait(begin)
            self.seconds += time.process_time() - before

    own = Timed()
    rows = [_rows(block, d, k) for block in range(own.rank, n // 1000, own.size)]
    x, observe = np.concatenate(rows), Progress.observe
    start = _rows(0, d, k, seed=1)[: k % 1000]
    start = np.concatenate([start, *(_rows(i, d, k, seed=1) for i in range(1, k // 1000 + 1))])

    def timed(self: Progress, result: Any) -> None:
        seconds.append(time.process_time() - own.seconds)
        observe(self, result)

    Progress.observe = timed  # type: ignore[method-assign]
    fits = []
    for _ in range(REPEATS):
        seconds = [time.process_time() - own.seconds]
        model = KMeans(k, init=start, max_iter=12, tol=0, distributed=own, n_threads=1)
        model.fit(x)
        fits.append(np.diff(seconds))
    sums: dict[int, float] = {}
    for length in SUMS if own.size > 1 else ():
        vector, clock = np.zeros(length, np.int64), []
        for _ in range(15):
            own.barrier()
            before = time.perf_counter()
            own.sum(vector)
            clock.append(time.perf_counter() - before)
        sums[length] = float(np.median(clock))
    own.close()
    centers = hashlib.sha256(np.sort(model.cluster_centers_, axis=0).tobytes()).hexdigest()
    least = np.min(fits, axis=0).tolist()  # other programs only add CPU-seconds
    print(json.dumps({"cpu": least, "sums": sums, "centers": centers}))


def _rows(block: int, d: int, k: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """A thousand rows around k overlapping centres."""
    centers = np.random.default_rng(9).normal(size=(k, d)) * 1.2
    generator = np.random.default_rng([seed, block])
    x = centers[generator.integers(k, size=1000)] + generator.normal(size=(1000, d))
    return np.asarray(x, np.float32)


class Model:
    """The model of the time of an iteration, fitted to what `measure` has stored.

    Attributes
    ----------
    work : array [iterations]
        w of each iteration.
    rates : dict of int to float
        R by number of processes, from the iteration with w = 1.
    errors : dict of int to float
        Relative error of the CPU-seconds of the whole fit, by number of processes.
    bandwidth, latency : float
        B and L between processes of this machine.
    """

    def __init__(self, found: dict[str, Any]) -> None:
        operations = 2.0 * found["n"] * found["d"] * found["k"]
        cpu = {
            size: np.sum([each["cpu"] for each in found[str(size)]], axis=0) for size in PROCESSES
        }
        self.work: Floats = cpu[1] / cpu[1].max()
        self.rates = {size: float(operations / seconds.max()) for size, seconds in cpu.items()}
        self.errors = {
            size: float(seconds.sum() / cpu[1].sum() - 1) for size, seconds in cpu.items()
        }
        lengths, seconds, hops = [], [], []
        for size in PROCESSES[1:]:
            for length in SUMS:
                times = [each["sums"][str(length)] for each in found[str(size)]]
                lengths.append(16.0 * length * (size - 1) / size)  # bytes of a ring
                hops.append(2.0 * (size - 1))
                seconds.append(max(times))
        table, target = np.stack([lengths, hops], 1), np.array(seconds)
        weights = 1 / target  # relative errors count
        slope, self.latency = np.linalg.lstsq(
            table * weights[:, None], target * weights, rcond=None
        )[0]
        self.bandwidth = 1 / slope


def iteration(problem: argparse.Namespace, nodes: int) -> tuple[float, float]:
    """Seconds of arithmetic and of communication of an iteration with w = 1."""
    n, d, k = problem.rows, problem.features, problem.clusters
    arithmetic = 2 * n * k * d / (nodes * problem.rate)
    return arithmetic, 16 * k * d / problem.bandwidth + 2 * (nodes - 1) * problem.latency


def replay(problem: argparse.Namespace, nodes: int, work: Floats, seed: int = 0) -> float:
    """Seconds of a fit whose nodes differ in speed and fail now and then.

    Each node is a constant factor slower (a lognormal spread of 3 %), and in each iteration one
    node in 200 takes twice as long. All wait for the slowest node. If a node fails, all iterations
    since the last checkpoint are lost, and the restart takes `restart` seconds.
    """
    generator = np.random.default_rng([seed, nodes])
    arithmetic, communication = iteration(problem, nodes)
    speed = np.exp(np.abs(generator.normal(0, 0.03, nodes)))
    spans = []
    for share in np.resize(work, problem.iterations):
        slow = 1.0 + (generator.random(nodes) < 1 / 200)
        spans.append(share * arithmetic * float((speed * slow).max()) + communication)
    clock, done, since = 0.0, 0, 0.0
    saved = 0
    next_fault = generator.exponential(problem.mtbf / nodes)
    while done < len(spans):
        if clock + spans[done] > next_fault:
            clock = next_fault + problem.restart
            next_fault = clock + generator.exponential(problem.mtbf / nodes)
            done, since = saved, 0.0
            continue
        clock, since, done = clock + spans[done], since + spans[done], done + 1
        if since >= 60:  # checkpoint_seconds of KMeans
            saved, since = done, 0.0
    return clock


def predict(options: argparse.Namespace) -> None:
    """Print the fit and the predictions, and draw them."""
    model = Model(json.loads(Path(options.file).read_text()))
    print("work of each iteration, w:", " ".join(f"{share:.2f}" for share in model.work))
    for size, rate in model.rates.items():
        print(f"{size} processes: R {rate / 1e9:.1f} GFLOP/s, error {model.errors[size]:.1%}")
    print(f"this machine: B {model.bandwidth / 1e9:.2f} GB/s, L {model.latency * 1e6:.0f} us")
    nodes = [1 << i for i in range(11)]
    work = model.work
    total = np.resize(work, options.iterations).sum()
    rows = []
    for count in nodes:
        arithmetic, communication = iteration(options, count)
        runs = [replay(options, count, work, seed) for seed in range(20)]
        plain = total * arithmetic + options.iterations * communication
        rows.append((count, total * arithmetic, plain, *np.percentile(runs, [50, 5, 95])))
        print(
            f"{count:5d} nodes: communication {communication / arithmetic:7.2%} of the arithmetic "
            f"at w = 1; a fit {plain / 3600:8.2f} h, with stragglers and faults "
            f"{rows[-1][3] / 3600:8.2f} h ({rows[-1][4] / 3600:.2f} to {rows[-1][5] / 3600:.2f})"
        )
    if options.plot:
        draw(options, np.array(rows))


def draw(options: argparse.Namespace, rows: Floats) -> None:
    """Draw hours by number of nodes, and the share of the communication."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "scale"
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    nodes, hours = rows[:, 0], rows[:, 1:] / 3600
    left.loglog(nodes, hours[:, 0], "--", color="0.6", label="arithmetic alone")
    left.loglog(nodes, hours[:, 1], color="#00796b", label="with communication")
    left.loglog(nodes, hours[:, 2], "o-", color="#d84315", ms=4, label="stragglers and faults too")
    left.fill_between(nodes, hours[:, 3], hours[:, 4], color="#d84315", alpha=0.2, lw=0)
    left.set(xlabel="nodes", ylabel="hours of a fit")
    left.legend(frameon=False)
    shares = [np.divide(*iteration(options, int(count))[::-1]) for count in nodes]
    simple = 8 * nodes * options.rate / (options.rows * options.bandwidth)
    right.loglog(nodes, np.array(shares) * 100, color="#00796b", label="model")
    right.loglog(nodes, simple * 100, ":", color="black", label="8 P R / (n B)")
    right.set(xlabel="nodes", ylabel="communication, % of the arithmetic")
    right.legend(frameon=False)
    for axes in (left, right):
        axes.set_xticks([1, 4, 16, 64, 256, 1024], labels=["1", "4", "16", "64", "256", "1,024"])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    figure.savefig(options.plot, metadata={"Date": None} if options.plot.endswith("svg") else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("measure", help="run a fit on 1, 2 and 4 processes")
    run.add_argument("--out", default="scale.json")
    for name, count in (("rows", 200_000), ("features", 128), ("clusters", 500)):
        run.add_argument(f"--{name}", type=int, default=count)
    ahead = commands.add_parser("predict", help="predict the time of a large fit")
    ahead.add_argument("file", help="what measure has written")
    ahead.add_argument("--plot", default="", help="file of the picture")
    for name, value, text in (
        ("rows", 10**9, "rows"),
        ("features", 1024, "features"),
        ("clusters", 32_768, "clusters"),
        ("iterations", 20, "iterations; those that were measured are repeated"),
    ):
        ahead.add_argument(f"--{name}", type=int, default=value, help=text)
    for name, number, text in (
        ("rate", 1e13, "R of a node, operations per second"),
        ("bandwidth", 12.5e9, "B of a node, bytes per second"),
        ("latency", 2e-5, "L, seconds"),
        ("mtbf", 30 * 86400.0, "mean seconds between two faults of one node"),
        ("restart", 300.0, "seconds from a fault to the next iteration"),
    ):
        ahead.add_argument(f"--{name}", type=float, default=number, help=text)
    commands.add_parser("worker").add_argument("sizes", type=int, nargs=3)
    options = parser.parse_args()
    if options.command == "worker":
        worker(*options.sizes)
    else:
        {"measure": measure, "predict": predict}[options.command](options)


if __name__ == "__main__":
    main()
