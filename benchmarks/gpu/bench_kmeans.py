"""K-means engines on a GPU: the same rows, first centres and iterations, one process per engine.

    python benchmarks/gpu/bench_kmeans.py --data mixture256 mixture4096 --against flash-kmeans,cuvs

The table has the inertia of every engine beside its time, because an engine may be fast only
because its clusters are worse. `--device cpu` tries the script without a GPU.
"""

import argparse
import logging
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from engines import ENGINES, Problem

from ktfast.bench.core.machine import stamp
from ktfast.bench.core.options import add_out
from ktfast.bench.core.row import run_row
from ktfast.bench.core.table import Spread, facts_line, markdown
from ktfast.bench.kmeans.command import add_problem_options, chosen_peers
from ktfast.bench.kmeans.data import default_clusters, load, mixture_features
from ktfast.bench.kmeans.engines import AS_INSTALLED, Row
from ktfast.bench.kmeans.rates import FIT_METHOD, rates, with_ratios
from ktfast.bench.kmeans.report import notes, publish_tables, time_cell
from ktfast.errors import InputError
from ktfast.native.threads import n_threads

logger = logging.getLogger(__name__)

PROGRAM = "python benchmarks/gpu/bench_kmeans.py"
PEERS = tuple(name for name in ENGINES if name != "ktfast")
MIXTURE_ROWS = 1_280_000
COLUMNS = (
    "engine", "ms / iteration (range)", "ratio", "TFLOP/s", "of bfloat16 peak", "first iteration s",
    "fit s", "device memory MiB", "inertia", "iterations", "version",
)  # fmt: skip
METHOD = f"""\
{FIT_METHOD}
The peak is the rate of torch's product of large bfloat16 matrices. The first iteration is a fit of
one iteration before the timed fits, in which libraries are loaded and kernels compiled. Device
memory is the largest amount taken during the first iteration, without the rows. Inertia is the sum
of squared distances of all rows to their nearest centres, which torch finds by a float32 product
and sums in float64. Each engine ran in a process of its own."""


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and save one table for each data set; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    options = parser.parse_args(arguments)
    try:
        run(options)
    except InputError as error:
        print(f"{Path(__file__).name}: {error}", file=sys.stderr)
        return 2
    return 0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--device",
        choices=("cuda", "cpu"),
        default="cuda",
        help="where the engines run (default: %(default)s)",
    )
    add_problem_options(parser, PEERS, ",".join(PEERS), mixture_rows=MIXTURE_ROWS)
    add_out(parser, "bench/kmeans")


def run(options: argparse.Namespace) -> None:
    """Measure, print and save one table for each data set.

    Raises
    ------
    InputError
        There is no GPU, or no such engine or data.
    """
    engines = ["ktfast", *chosen_peers(options.against, PEERS)]
    if options.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch sees no GPU here")
    options.out.mkdir(parents=True, exist_ok=True)  # fails now, not after minutes of measuring
    peaks = device_peaks(options.device)
    for source in options.data:
        problem = problem_of(source, options)
        record = {
            "data": source,
            **facts(problem, peaks),
            "rows": list(measured(engines, problem, peaks, timeout=options.timeout)),
        }
        parts = list(_parts(record))
        publish_tables(record, options.out, "kmeans-gpu", parts, falling=options.falling)


def problem_of(source: str, options: argparse.Namespace) -> Problem:
    """The problem that every engine gets, from the options."""
    made = mixture_features(source) is not None
    rows = options.rows or (MIXTURE_ROWS if made else len(load(source)))
    clusters = options.clusters or default_clusters(source, rows)
    if clusters > rows:
        raise InputError(f"clusters must lie in 1 .. {rows} (the rows), got {clusters}")
    return Problem(
        source, rows, clusters, options.iterations, options.repeats, options.budget, options.device
    )


def measured(
    engines: Iterable[str], problem: Problem, peaks: dict[str, float], *, timeout: float
) -> Iterator[Row]:
    """Yield a row for each engine; the row of an engine that fails says why.

    Parameters
    ----------
    engines : iterable of str
        Keys of `ENGINES`. Rows have a ratio to "ktfast" if that is the first.
    problem : Problem
        What every engine gets.
    peaks : dict of float
        Rates of the device, from `peak.peaks`.
    timeout : float
        Seconds after which an engine is stopped.

    Yields
    ------
    row : dict
        The result of the engine.
    """
    yield from with_ratios(_row(name, problem, peaks, timeout) for name in engines)


def _row(name: str, problem: Problem, peaks: dict[str, float], timeout: float) -> Row:
    row: Row = {"engine": name, "setting": AS_INSTALLED, "note": ENGINES[name].note}
    row |= run_row(
        "engines:measure",
        {"engine": name, "problem": list(problem)},
        threads=n_threads(),
        timeout=timeout,
    )
    if "problem" in row:
        logger.info("%s: %s", name, row["problem"])
        return row
    d = features_of(problem.source)
    row |= rates(row, problem.rows, d, problem.clusters, peaks.get("bfloat16"))
    logger.info("%s: %.3g ms / iteration", name, 1e3 * row["seconds_per_iteration"])
    return row


def device_peaks(device: str) -> dict[str, float]:
    """Rates of the device from `peak.peaks` in a process of its own; empty if that fails."""
    arguments = {"device": device, "small": device == "cpu"}
    found = run_row("peak:peaks", arguments, threads=n_threads())
    return {} if "problem" in found else found


def features_of(source: str) -> int:
    """The number of features of the data."""
    return mixture_features(source) or load(source, 1).shape[1]


def facts(problem: Problem, peaks: dict[str, float]) -> dict[str, Any]:
    """The problem and the machine, the head of the record."""
    return {
        **stamp(("torch", "numpy"), PROGRAM),
        "peaks": peaks,
        "n": problem.rows,
        "d": features_of(problem.source),
        "k": problem.clusters,
        "iterations": problem.iterations,
        "method": " ".join(METHOD.splitlines()),
    }


def _parts(record: dict[str, Any]) -> Iterator[str]:
    """The paragraphs of the report."""
    yield f"## K-means on a GPU: {record['data']}"
    found = ", ".join(f"{kind} {value / 1e12:.3g}" for kind, value in record["peaks"].items())
    yield (
        f"n = {record['n']}, d = {record['d']}, k = {record['k']}; iterations: "
        f"{record['iterations']}.\n"
        f"{facts_line(record['machine'])}\n"
        f"Peak rates of the device, 10^12 operations/s or bytes/s: {found}."
    )
    yield markdown(COLUMNS, [_cells(row) for row in record["rows"]])
    yield notes(record["rows"])
    yield METHOD
    yield f"Command: `{record['command']}`, {record['date']}."


def _cells(row: Row) -> list[str]:
    """A row of the table; the second cell says why an engine could not be measured."""
    if "problem" in row:
        return [row["engine"], row["problem"], *["-"] * (len(COLUMNS) - 2)]
    each = Spread(*(1e3 * s for s in (row["seconds_per_iteration"], *row["range"])))
    share, taken = row["share_of_peak"], row["device_bytes"]
    return [
        row["engine"],
        time_cell(each, len(row["seconds"])),
        f"{row['ratio']:.2f}" if "ratio" in row else "-",
        f"{row['flops'] / 1e12:.4g}",
        "-" if share is None else f"{100 * share:.1f} %",
        f"{row['first_seconds']:.2f}",
        f"{float(np.median(row['seconds'])):.3f}",
        "-" if taken is None else f"{taken / 2**20:.0f}",
        f"{row['inertia']:.9g}",
        str(row["iterations"]),
        row["version"],
    ]


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(main())
