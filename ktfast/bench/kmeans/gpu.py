"""`ktfast bench kmeans --device cuda`: K-means engines on a GPU, one process after another."""

import argparse
import logging
import shlex
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ktfast.bench.core.harness import Spread, machine, markdown, run_row, save, spread
from ktfast.bench.kmeans import plots
from ktfast.bench.kmeans.data import default_clusters, load, mixture_features
from ktfast.bench.kmeans.engines import AS_INSTALLED, Row
from ktfast.bench.kmeans.gpu_engines import ENGINES, Problem
from ktfast.bench.kmeans.report import best_settings, history_table
from ktfast.errors import InputError
from ktfast.native.threads import n_threads

logger = logging.getLogger(__name__)

MIXTURE_ROWS = 1_280_000
COLUMNS = (
    "engine", "ms / iteration (range)", "ratio", "TFLOP/s", "of bfloat16 peak", "first iteration s",
    "fit s", "device memory MiB", "inertia", "iterations", "version",
)  # fmt: skip
METHOD = """\
A fit is the given number of Lloyd iterations (assignment and update) and the last assignment, and
what the engine does to the data before; ms / iteration is a fit's time by its iterations, median
and range of the repeats. TFLOP/s counts 2nkd in an iteration, also where an engine gets around
computing all of it; the peak is that of torch's product of large bfloat16 matrices. Ratio: ms /
iteration by that of ktfast. First iteration: a fit of one iteration before the timed ones, with
whatever is loaded and compiled then. Device memory: the most taken during it, beside the rows.
Inertia: sum of squared distances of all rows to their nearest centre, found by a float32 product
and added up in float64 by torch. Each engine ran in a process of its own."""


def run(options: argparse.Namespace, engines: list[str]) -> int:
    """Measure, print and save one table for each data set; returns the exit status.

    Raises
    ------
    InputError : there is no GPU, or no such data.
    """
    if options.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch sees no GPU here")
    if options.scaling:
        raise InputError("--scaling compares CPU engines; leave it out with --device cuda")
    peaks = device_peaks(options.device)
    for source in options.data:
        problem = problem_of(source, options)
        record = {
            "data": source,
            **facts(problem, peaks),
            "rows": list(measured(engines, problem, peaks, timeout=options.timeout)),
        }
        _report(record, options.out, falling=options.falling)
    return 0


def problem_of(source: str, options: argparse.Namespace) -> Problem:
    """What every engine gets, from the command's options."""
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
    """Yield a row for each engine; one that fails, hangs or is missing says so in its row.

    Parameters
    ----------
    engines : keys of ENGINES; ratios are to "ktfast", if it is the first.
    problem : what every engine gets.
    peaks : of `gpu_peak.peaks`.
    timeout : seconds after which an engine is stopped.
    """
    base = 0.0
    for name in engines:
        row: Row = {"engine": name, "setting": AS_INSTALLED, "note": ENGINES[name].note}
        row |= run_row(
            "ktfast.bench.kmeans.gpu_engines:measure",
            {"engine": name, "problem": list(problem)},
            threads=n_threads(),
            timeout=timeout,
        )
        if "problem" not in row:
            row |= _rates(row, problem, peaks)
            base = row["seconds_per_iteration"] if name == "ktfast" else base
            if base:
                row["ratio"] = row["seconds_per_iteration"] / base
        text = row.get("problem") or f"{1e3 * row['seconds_per_iteration']:.3g} ms / iteration"
        logger.info("%s: %s", name, text)
        yield row


def device_peaks(device: str) -> dict[str, float]:
    """What `gpu_peak.peaks` finds in a process of its own; nothing where it cannot be measured."""
    arguments = {"device": device, "small": device == "cpu"}
    found = run_row("ktfast.bench.core.gpu_peak:peaks", arguments, threads=n_threads())
    return {} if "problem" in found else found


def _rates(row: Row, problem: Problem, peaks: dict[str, float]) -> Row:
    """What follows from an engine's times."""
    each = spread([seconds / row["iterations"] for seconds in row["seconds"]])
    flops = 2 * problem.rows * problem.clusters * features_of(problem.source) / each.median
    peak = peaks.get("bfloat16")
    return {
        "seconds_per_iteration": each.median,
        "range": [each.least, each.most],
        "flops": flops,
        "share_of_peak": None if peak is None else flops / peak,
    }


def features_of(source: str) -> int:
    """The number of features d of the data."""
    return mixture_features(source) or load(source, 1).shape[1]


def facts(problem: Problem, peaks: dict[str, float]) -> dict[str, Any]:
    """What was asked, and of which machine."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "command": shlex.join(["ktfast", *sys.argv[1:]]),
        "machine": machine(("torch", "numpy")),
        "peaks": peaks,
        "n": problem.rows,
        "d": features_of(problem.source),
        "k": problem.clusters,
        "iterations": problem.iterations,
        "method": " ".join(METHOD.splitlines()),
    }


def _report(record: dict[str, Any], out: Path, *, falling: bool) -> None:
    """Print the table of one data set, and save it with the measurements and the plots."""
    name = f"kmeans-gpu-{Path(record['data']).stem}"
    histories = [row["history"] for row in record["rows"] if row.get("history")]
    history: list[Row] = histories[0] if histories else []
    text = "\n\n".join(_parts(record, history if falling else []))
    save(out, name, record, text)
    print(text)
    if best_settings(record["rows"]):
        plots.bars(record, out / name)
    if falling and history:
        plots.falling(history, best_settings(record["rows"]), out / f"{name}-falling")
    print(f"\nsaved in {out}: {', '.join(sorted(path.name for path in out.glob(name + '*')))}")


def _parts(record: dict[str, Any], history: list[Row]) -> Iterator[str]:
    """The paragraphs of the report."""
    yield f"## K-means on a GPU: {record['data']}"
    rates = ", ".join(f"{kind} {value / 1e12:.3g}" for kind, value in record["peaks"].items())
    yield (
        f"n = {record['n']}, d = {record['d']}, k = {record['k']}; iterations: "
        f"{record['iterations']}.\n"
        f"{'; '.join(f'{key} {value}' for key, value in record['machine'].items())}.\n"
        f"Peaks of the device, 10^12 operations/s or bytes/s: {rates}."
    )
    yield markdown(COLUMNS, [cells(row) for row in record["rows"]])
    yield "\n".join(f"- {row['engine']}: {row['note']}" for row in record["rows"] if row["note"])
    yield METHOD
    yield f"Command: `{record['command']}`, {record['date']}."
    if history:
        yield "### The iterations of ktfast's fit"
        yield history_table(history)


def cells(row: Row) -> list[str]:
    """A row of the table; an engine that could not be measured says why in its first cell."""
    if "problem" in row:
        return [row["engine"], row["problem"], *["-"] * (len(COLUMNS) - 2)]
    each = Spread(*(1e3 * s for s in (row["seconds_per_iteration"], *row["range"])))
    share, taken = row["share_of_peak"], row["device_bytes"]
    return [
        row["engine"],
        each.text() if len(row["seconds"]) > 1 else f"{each.median:.3f} (one fit)",
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
