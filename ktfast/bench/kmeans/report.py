"""The table of `ktfast bench kmeans`, and the sentences and plots beside it."""

from pathlib import Path
from typing import Any

import numpy as np

from ktfast.bench.core.table import Spread, facts_line, markdown, publish
from ktfast.bench.kmeans import plots
from ktfast.bench.kmeans.engines import Row
from ktfast.bench.kmeans.rates import FIT_METHOD

COLUMNS = (
    "engine", "setting", "s / iteration (range)", "ratio", "CPU s / iteration", "fit s", "GFLOP/s",
    "of fp32 peak", "memory MiB", "inertia", "iterations", "threads", "version",
)  # fmt: skip
METHOD = f"""\
{FIT_METHOD}
Memory is the peak of the process without the data; the number in brackets is the memory before the
first fit, which the libraries take. Inertia is the sum of squared distances of all rows to their
nearest centres, computed by ktfast in float64. Each engine ran in a process of its own, in which
all OPENBLAS_*, MKL_* and OMP_* variables but OMP_NUM_THREADS were unset. Engines that multiply with
OpenBLAS also ran at the fastest OPENBLAS_CORETYPE of those tried."""


def report(record: dict[str, Any], out: Path, *, falling: bool) -> None:
    """Print the table of one data set, and save it with the measurements and the plots.

    Parameters
    ----------
    record : dict
        The measurement, from `ktfast.bench.kmeans.command.Comparison`.
    out : Path
        Folder that receives the files; made if necessary.
    falling : bool
        Also show the time of every iteration of ktfast's fit.
    """
    publish_tables(record, out, "kmeans", _parts(record), falling=falling)


def publish_tables(
    record: dict[str, Any], out: Path, stem: str, parts: list[str], *, falling: bool
) -> None:
    """Print and save the paragraphs of a comparison, with the tables and plots that belong to it.

    Parameters
    ----------
    record : dict
        The measurement: "data", "rows" and perhaps "scaling".
    out : Path
        Folder that receives the files; made if necessary.
    stem : str
        First part of the files' names; the name of the data follows.
    parts : list of str
        Paragraphs in Markdown.
    falling : bool
        Also show the time of every iteration of ktfast's fit.
    """
    history = _history(record) if falling else []
    if history:
        parts = [*parts, "### The iterations of ktfast's fit", history_table(history)]

    def draw(path: Path) -> None:
        plots.bars(record, path)
        if record.get("scaling"):
            plots.scaling(record["scaling"], path.with_name(f"{path.name}-scaling"))
        if history:
            best = best_settings(record["rows"])
            plots.falling(history, best, path.with_name(f"{path.name}-falling"))

    name = f"{stem}-{Path(record['data'].replace(':', '-')).stem}"
    publish(out, name, record, "\n\n".join(parts), draw)


def best_settings(rows: list[Row]) -> list[Row]:
    """The fastest row of each engine that could be measured."""
    measured = [row for row in rows if "problem" not in row]
    return [
        min(
            (row for row in measured if row["engine"] == name),
            key=lambda row: float(row["seconds_per_iteration"]),
        )
        for name in dict.fromkeys(row["engine"] for row in measured)
    ]


def _parts(record: dict[str, Any]) -> list[str]:
    """The paragraphs of the report."""
    peaks = ", ".join(f"{kind} {value / 1e9:.0f}" for kind, value in record["peaks"].items())
    parts = [
        f"## K-means: {record['data']}",
        f"n = {record['n']}, d = {record['d']}, k = {record['k']}; iterations: "
        f"{record['iterations']}; threads: {record['threads']}.\n"
        f"{facts_line(record['machine'])}\n"
        f"Peak rates of these threads, 10^9 operations/s: {peaks}.",
        markdown(COLUMNS, [_cells(row, record["threads"]) for row in record["rows"]]),
        notes(record["rows"]),
        METHOD,
        f"Command: `{record['command']}`, {record['date']}.",
    ]
    if record.get("scaling"):
        parts += ["### Cost against the number of rows", scaling_table(record["scaling"])]
    return parts


def notes(rows: list[Row]) -> str:
    """The notes of the engines, one line each."""
    noted = {row["engine"]: row["note"] for row in rows if row["note"]}
    return "\n".join(f"- {name}: {note}" for name, note in noted.items())


def _cells(row: Row, threads: int) -> list[str]:
    if "problem" in row:
        return [row["engine"], row["setting"], row["problem"], *["-"] * (len(COLUMNS) - 3)]
    share = row["share_of_peak"]
    own = row["peak_rss"] - row["data_bytes"]
    idle = row["idle_rss"] - row["data_bytes"]
    each = Spread(row["seconds_per_iteration"], *row["range"])
    return [
        row["engine"],
        row["setting"],
        time_cell(each, len(row["seconds"])),
        f"{row['ratio']:.2f}" if "ratio" in row else "-",
        f"{row['cpu_seconds_per_iteration']:.3f}",
        f"{float(np.median(row['seconds'])):.2f}",
        f"{row['flops'] / 1e9:.0f}",
        "-" if share is None else f"{100 * share:.0f} %",
        f"{own / 2**20:.0f} ({idle / 2**20:.0f})",
        f"{row['inertia']:.8g}",
        str(row["iterations"]),
        str(threads),
        row["version"],
    ]


def time_cell(each: Spread, fits: int) -> str:
    """Time per iteration with its range, if there was more than one fit."""
    return each.text() if fits > 1 else f"{each.median:.3f} (one fit)"


def scaling_table(points: list[Row]) -> str:
    """Table of seconds per iteration at each n.

    The last column is the time per row at the largest n, divided by that at the least n.
    """
    sizes = sorted({point["n"] for point in points})
    engines: dict[str, dict[int, float]] = {}
    for point in points:
        engines.setdefault(point["engine"], {})[point["n"]] = point["seconds_per_iteration"]
    lines = []
    for name, seconds in engines.items():
        first, last = min(seconds), max(seconds)
        ratio = (seconds[last] / last) / (seconds[first] / first)
        cells = [f"{seconds[n]:.4f}" if n in seconds else "-" for n in sizes]
        lines.append([name, *cells, f"{ratio:.2f}"])
    heads = [f"n = {n}" for n in sizes]
    return markdown(["s / iteration", *heads, "time per row, last / first"], lines)


def history_table(history: list[Row]) -> str:
    """Seconds of every iteration, and the share of skipped distances where it is known."""
    skips = any("skipped" in row for row in history)
    lines = [
        [
            str(number),
            f"{row['seconds']:.4f}",
            *([f"{100 * row.get('skipped', 0):.1f} %"] if skips else []),
        ]
        for number, row in enumerate(history, 1)
    ]
    return markdown(["iteration", "seconds", *(["distances skipped"] if skips else [])], lines)


def _history(record: dict[str, Any]) -> list[Row]:
    """The iterations of ktfast's last fit; empty if ktfast could not be measured."""
    return next((row["history"] for row in record["rows"] if row.get("history")), [])
