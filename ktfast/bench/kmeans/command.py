"""`ktfast bench kmeans`: K-means engines on the same data, first centres, threads and iterations.

The table shows the inertia of every engine beside its time, because an engine may be fast only
because its clusters are worse. ktfast computes all inertias over all rows in float64.
"""

import argparse
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ktfast.bench.core.machine import stamp
from ktfast.bench.core.options import add_numbers, add_out, add_timeout, positive
from ktfast.bench.core.row import run_row
from ktfast.bench.core.table import spread
from ktfast.bench.kmeans.data import Float32, default_clusters, first_centers, load
from ktfast.bench.kmeans.engines import AS_INSTALLED, ENGINES, Problem, Row
from ktfast.bench.kmeans.rates import rates, with_ratios
from ktfast.bench.kmeans.report import METHOD, best_settings, report
from ktfast.errors import InputError
from ktfast.native import modules
from ktfast.native.threads import n_threads
from ktfast.ops import kmeans_assign

logger = logging.getLogger(__name__)

PEERS = tuple(name for name in ENGINES if name != "ktfast")
DEFAULT_PEERS = "faiss,sklearn,superkmeans,sklearnex,torch,fastkmeans,numpy"
# Values of OPENBLAS_CORETYPE to try on each instruction set: the OpenBLAS of some wheels chooses
# slower kernels than the processor can execute.
_CORE_TYPES = {
    "amx": ("SapphireRapids", "SkylakeX", "Haswell"),
    "avx512": ("SkylakeX", "Haswell"),
    "avx2": ("Haswell",),
    "scalar": (),
}
# A core type gets a row of its own if a trial with it takes at most this share of the time.
_TRIAL_GAIN = 0.95
_TRIAL_ROWS = 10_000
_TRIAL_ITERATIONS = 2
_TRIAL_SECONDS = 1.0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the sub-command."""
    add_problem_options(parser, PEERS, DEFAULT_PEERS, mixture_rows=100_000)
    parser.add_argument(
        "--scaling", action="store_true", help="also measure 1/8, 1/4 and 1/2 of the rows"
    )
    add_out(parser, "bench/kmeans")


def add_problem_options(
    parser: argparse.ArgumentParser, peers: tuple[str, ...], default: str, *, mixture_rows: int
) -> None:
    """Declare the options that say what is clustered, by which engines and for how long.

    Parameters
    ----------
    parser : ArgumentParser
        Receives the options.
    peers : tuple of str
        Engines that may be compared with ktfast.
    default : str
        Engines that are compared unless ``--against`` is given.
    mixture_rows : int
        Rows of a mixture unless ``--rows`` is given, for the help.
    """
    parser.add_argument(
        "--against",
        metavar="PEER,...",
        default=default,
        help=f"engines to compare with ktfast, of {', '.join(peers)} (default: %(default)s)",
    )
    parser.add_argument(
        "--data",
        nargs="+",
        default=["mixture256"],
        help="one table for each: mixtureD (D features), a .npy or .npz file, or a folder of "
        "features; append :whitened for PCA to 256 whitened directions (default: mixture256)",
    )
    numbers = (
        ("rows", None, f"rows to cluster (default: all; of a mixture {mixture_rows})"),
        ("clusters", None, "clusters (default: 2000 for mixture256, else 1000)"),
        ("iterations", 10, "iterations of a fit"),
        ("threads", n_threads(), "CPU threads"),
        ("repeats", 3, "largest number of timed fits of each engine"),
    )
    add_numbers(parser, numbers, positive)
    parser.add_argument(
        "--budget",
        type=float,
        default=12.0,
        metavar="SECONDS",
        help="begin no further fit of an engine after this time (default: %(default)s)",
    )
    add_timeout(parser, 300.0, "an engine")
    parser.add_argument(
        "--falling", action="store_true", help="also show the time of each iteration of ktfast"
    )


def run(options: argparse.Namespace) -> int:
    """Measure, print and save one table for each data set.

    Parameters
    ----------
    options : Namespace
        The options of the command line.

    Returns
    -------
    status : int
        The exit status: 1 if ktfast's own fit failed, else 0.
    """
    peers, failed = chosen_peers(options.against, PEERS), False
    options.out.mkdir(parents=True, exist_ok=True)  # fails now, not after minutes of measuring
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
        failed |= own_row_failed(record["rows"])
    return int(failed)


def own_row_failed(rows: list[Row]) -> bool:
    """Whether a measurement of ktfast itself failed; failures of peers are only shown."""
    return any("problem" in row for row in rows if row["engine"] == "ktfast")


def chosen_peers(text: str, known: tuple[str, ...]) -> list[str]:
    """The engines that ``--against`` names.

    Raises
    ------
    InputError
        An engine is unknown.
    """
    names = [name for name in text.split(",") if name]
    for name in names:
        if name not in known:
            raise InputError(f"--against {name}: the peers are {', '.join(known)}")
    return names


class Comparison:
    """Runs the engines on one data set.

    Parameters
    ----------
    x : array, float32 [n, d]
        The rows. The engines' processes read the rows and the first centres from `problem.folder`.
    clusters : int
        Number of clusters.
    problem : Problem
        What every engine gets.
    timeout : float
        Seconds after which an engine is stopped.
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
        """The problem and the machine, the head of the record."""
        n, d = self.x.shape
        return {
            **stamp(("numpy",)),
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
        yield from with_ratios(
            self._finished(name, setting, self._run(name, setting))
            for name in ("ktfast", *peers)
            for setting in self._settings(name)
        )

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
        """The setting as installed, and any core type that is clearly faster in a short trial.

        Only engines that multiply with OpenBLAS have core types.
        """
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
        """The row with the rates and the inertia that follow from the engine's result."""
        row: Row = {"engine": name, "setting": setting, "note": ENGINES[name].note, **result}
        if "problem" in result:
            logger.info("%s, %s: %s", name, setting, result["problem"])
            return row
        centers = np.load(Path(self.problem.folder) / "centers.npy")
        if not np.isfinite(centers).all():
            return row | {"problem": "failed: its centres are not finite"}
        _, distances = kmeans_assign(self.x, centers, distance_dtype="float64")
        row |= rates(row, len(self.x), self.x.shape[1], self.clusters, self.peaks.get("fp32"))
        logger.info("%s, %s: %.3g s / iteration", name, setting, row["seconds_per_iteration"])
        cpu = spread(result["cpu_seconds"]).median / result["iterations"]
        return row | {"cpu_seconds_per_iteration": cpu, "inertia": float(distances.sum())}
