"""`ktfast bench kmeans`: K-means engines on the same data, first centres, threads and iterations.

The inertia over all rows, computed alike for every engine, stands beside the time, because a faster
answer to another question is no comparison.
"""

import argparse
import logging
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ktfast.bench.core.harness import machine, run_row, spread
from ktfast.bench.kmeans.data import Float32, default_clusters, first_centers, load
from ktfast.bench.kmeans.engines import AS_INSTALLED, ENGINES, Problem, Row
from ktfast.bench.kmeans.report import METHOD, best_settings, report
from ktfast.errors import InputError
from ktfast.native import modules
from ktfast.native.threads import n_threads
from ktfast.ops import kmeans_assign

logger = logging.getLogger(__name__)

PEERS = tuple(name for name in ENGINES if name != "ktfast")
GPU_PEERS = (
    "ktfast-fast", "ktfast-float32", "ktfast-streamed", "torch-fp32", "torch-tf32", "torch-bf16",
    "torch-host", "flash-kmeans", "flash-kmeans-fp16", "fastkmeans", "cuvs", "cuml",
)  # fmt: skip
DEFAULT_PEERS = {
    "cpu": "faiss,sklearn,superkmeans,sklearnex,torch,fastkmeans,numpy",
    "cuda": ",".join(GPU_PEERS),
}
# What OpenBLAS can be told to take the processor for; wheels choose worse by themselves on some.
_CORE_TYPES = {
    "amx": ("SapphireRapids", "SkylakeX", "Haswell"),
    "avx512": ("SkylakeX", "Haswell"),
    "avx2": ("Haswell",),
    "scalar": (),
}
# A core type is another setting only if it is faster by more than a trial's noise.
_TRIAL_GAIN = 0.95
_TRIAL_ROWS = 10_000
_TRIAL_ITERATIONS = 2
_TRIAL_SECONDS = 1.0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the sub-command."""
    parser.add_argument(
        "--device", choices=tuple(DEFAULT_PEERS), default="cpu", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--against",
        metavar="PEER,...",
        help=f"what to measure beside ktfast: on the CPU of {', '.join(PEERS)} (default: "
        f"{DEFAULT_PEERS['cpu']}); on a GPU of {', '.join(GPU_PEERS)} (default: all)",
    )
    parser.add_argument(
        "--data",
        nargs="+",
        default=["mixture256"],
        help="mixtureD (D features), .npy or .npz file, or folder of features, each perhaps with "
        ":whitened behind it (PCA, 256 directions); one table for each (default: mixture256)",
    )
    numbers = (
        ("rows", None, "rows to cluster (default: all; of a mixture 100000, on a GPU 1280000)"),
        ("clusters", None, "k (default: 2000 for mixture256, else 1000)"),
        ("iterations", 10, "iterations of a fit (default: %(default)s)"),
        ("threads", n_threads(), "CPU threads (default: %(default)s)"),
        ("repeats", 3, "timed fits of each engine, at most (default: %(default)s)"),
    )
    for name, default, text in numbers:
        parser.add_argument(f"--{name}", type=_positive, default=default, help=text)
    parser.add_argument(
        "--budget",
        type=float,
        default=12.0,
        metavar="SECONDS",
        help="begin no further repeat of an engine after this long (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="stop an engine after this long (default: %(default)s)",
    )
    parser.add_argument(
        "--scaling", action="store_true", help="also time per iteration at 1/8, 1/4 and 1/2 of n"
    )
    parser.add_argument(
        "--falling", action="store_true", help="also the time of every iteration of ktfast's fit"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("bench/kmeans"), help="folder (default: %(default)s)"
    )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def run(options: argparse.Namespace) -> int:
    """Measure, print and save one table for each data set; returns the exit status."""
    peers = _peers(options.against, options.device)
    options.out.mkdir(parents=True, exist_ok=True)  # or it would be known only after minutes
    if options.device == "cuda":
        from ktfast.bench.kmeans import (
            gpu as kmeans_gpu,  # needs torch, which no CPU row should have to share
        )

        return kmeans_gpu.run(options, ["ktfast", *peers])
    for source in options.data:
        x = load(source, options.rows)
        clusters = options.clusters or default_clusters(source, len(x))
        start = first_centers(x, clusters)
        with tempfile.TemporaryDirectory(prefix="ktfast-bench-") as folder:
            np.save(Path(folder) / "x.npy", x)
            np.save(Path(folder) / "start.npy", start)
            problem = Problem(
                folder, len(x), options.iterations, options.threads, options.repeats, options.budget
            )
            comparison = Comparison(x, clusters, problem, options.timeout)
            record = {"data": source, **comparison.facts(), "rows": list(comparison.rows(peers))}
            if options.scaling:
                record["scaling"] = list(comparison.scaling(record["rows"]))
        report(record, options.out, falling=options.falling)
    return 0


def _peers(text: str | None, device: str) -> list[str]:
    known = PEERS if device == "cpu" else GPU_PEERS
    names = [name for name in (text or DEFAULT_PEERS[device]).split(",") if name]
    for name in names:
        if name not in known:
            raise InputError(f"--against {name}: the peers are {', '.join(known)}")
    return names


class Comparison:
    """Runs the engines on one data set.

    Parameters
    ----------
    x : float32 [n, d]; the processes read it, and the first centres, from `problem.folder`.
    clusters : k.
    problem : what every engine gets.
    timeout : seconds after which an engine is stopped.
    """

    def __init__(self, x: Float32, clusters: int, problem: Problem, timeout: float) -> None:
        self.x = x
        self.clusters = clusters
        self.problem = problem
        self.timeout = timeout
        threads = problem.threads
        measured = run_row("ktfast.bench.core.peak:peaks", {"threads": threads}, threads=threads)
        self.peaks: dict[str, float] = {} if "problem" in measured else measured

    def facts(self) -> dict[str, Any]:
        """What was asked, and of which machine."""
        n, d = self.x.shape
        return {
            "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            "command": shlex.join(["ktfast", *sys.argv[1:]]),
            "machine": machine(("numpy",)),
            "peaks": self.peaks,
            "n": n,
            "d": d,
            "k": self.clusters,
            "iterations": self.problem.iterations,
            "threads": self.problem.threads,
            "method": " ".join(METHOD.splitlines()),
        }

    def rows(self, peers: list[str]) -> Iterator[Row]:
        """Yield a row for ktfast, and one or two for each peer."""
        base = 0.0
        for name in ("ktfast", *peers):
            for setting in self._settings(name):
                row = self._finished(name, setting, self._run(name, setting))
                each = row.get("seconds_per_iteration", 0.0)
                base = each if name == "ktfast" else base
                if base and each:
                    row["ratio"] = each / base
                yield row

    def scaling(self, rows: list[Row]) -> Iterator[Row]:
        """Yield the time per iteration of each engine at its best setting, for growing n."""
        for row in best_settings(rows):
            for part in (8, 4, 2):
                n = len(self.x) // part
                result = self._run(row["engine"], row["setting"], self.problem._replace(rows=n))
                if "seconds" in result:
                    each = spread(result["seconds"]).median / result["iterations"]
                    yield {"engine": row["engine"], "n": n, "seconds_per_iteration": each}
            each = row["seconds_per_iteration"]
            yield {"engine": row["engine"], "n": len(self.x), "seconds_per_iteration": each}

    def _settings(self, name: str) -> list[str]:
        """As installed, and the core type that is clearly faster in a short trial, if one is."""
        cores = _CORE_TYPES[modules.simd_level()] if ENGINES[name].openblas else ()
        trial = self.problem._replace(
            rows=min(len(self.x), max(_TRIAL_ROWS, self.clusters)),
            iterations=_TRIAL_ITERATIONS,
            seconds=_TRIAL_SECONDS,
        )
        seconds = {}
        for setting in (AS_INSTALLED, *cores) if cores else ():
            result = self._run(name, setting, trial)
            if "seconds" in result:
                seconds[setting] = min(result["seconds"])
            elif setting == AS_INSTALLED:
                break  # the row itself will say what is wrong
        best = min(seconds, key=lambda setting: seconds[setting], default=AS_INSTALLED)
        if best == AS_INSTALLED or seconds[best] > _TRIAL_GAIN * seconds[AS_INSTALLED]:
            return [AS_INSTALLED]
        return [AS_INSTALLED, best]

    def _run(self, name: str, setting: str, problem: Problem | None = None) -> Row:
        return run_row(
            "ktfast.bench.kmeans.engines:measure",
            {"engine": name, "problem": list(problem or self.problem)},
            threads=self.problem.threads,
            environment={} if setting == AS_INSTALLED else {"OPENBLAS_CORETYPE": setting},
            timeout=self.timeout,
        )

    def _finished(self, name: str, setting: str, result: Row) -> Row:
        """The row with what follows from the engine's centres and times."""
        row: Row = {"engine": name, "setting": setting, "note": ENGINES[name].note, **result}
        if "problem" in result:
            logger.info("%s, %s: %s", name, setting, result["problem"])
            return row
        centers = np.load(Path(self.problem.folder) / "centers.npy")
        if not np.isfinite(centers).all():
            return row | {"problem": "failed: its centres are not finite"}
        _, distances = kmeans_assign(self.x, centers, distance_dtype="float64")
        each = spread([value / result["iterations"] for value in result["seconds"]])
        cpu = spread(result["cpu_seconds"]).median / result["iterations"]
        n, d = self.x.shape
        flops = 2 * n * self.clusters * d / each.median
        logger.info("%s, %s: %s s / iteration", name, setting, each.text())
        return row | {
            "seconds_per_iteration": each.median,
            "range": [each.least, each.most],
            "cpu_seconds_per_iteration": cpu,
            "flops": flops,
            "share_of_peak": flops / self.peaks["fp32"] if "fp32" in self.peaks else None,
            "inertia": float(distances.sum()),
        }
