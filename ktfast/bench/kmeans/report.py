"""The table of `ktfast bench kmeans`, what is said beside it, and where it is saved."""

from pathlib import Path
from typing import Any

import numpy as np

from ktfast.bench.core.harness import Spread, markdown, save
from ktfast.bench.kmeans import plots
from ktfast.bench.kmeans.engines import Row

COLUMNS = (
    "engine", "setting", "s / iteration (range)", "ratio", "CPU s / iteration", "fit s", "GFLOP/s",
    "of fp32 peak", "memory MiB", "inertia", "iterations", "threads", "version",
)  # fmt: skip
METHOD = """\
A fit is the given number of Lloyd iterations (assignment and update) and the last assignment, and
what the engine does to the data before; s / iteration is a fit's time by its iterations, median
and range of the repeats. GFLOP/s counts 2nkd in an iteration, also where an engine gets around
computing all of it. Ratio: s / iteration by that of ktfast. Memory: the most the process held,
without the data, and of it what it held before the first fit (the libraries). Inertia: sum of
squared distances of all rows to their nearest centre, found and added up in float64 by ktfast.
Each engine ran in a process of its own with all OPENBLAS_*, MKL_* and OMP_* variables unset but
OMP_NUM_THREADS; engines with OpenBLAS ran also at the fastest OPENBLAS_CORETYPE of those tried."""


def report(record: dict[str, Any], out: Path, *, falling: bool) -> None:
    """Print the table of one data set, and save it with the measurements and the plots.

    Parameters
    ----------
    record : what was measured; see `ktfast.bench.kmeans.command.Comparison`.
    out : folder, made if need be.
    falling : also plot the time of every iteration of ktfast's fit.
    """
    name = f"kmeans-{Path(record['data'].replace(':', '-')).stem}"
    text = "\n\n".join(_parts(record, falling=falling))
    save(out, name, record, text)
    print(text)
    if best_settings(record["rows"]):
        plots.bars(record, out / name)
    if record.get("scaling"):
        plots.scaling(record["scaling"], out / f"{name}-scaling")
    if falling and _history(record):
        plots.falling(_history(record), best_settings(record["rows"]), out / f"{name}-falling")
    print(f"\nsaved in {out}: {', '.join(sorted(path.name for path in out.glob(name + '*')))}")


def best_settings(rows: list[Row]) -> list[Row]:
    """The fastest row of each engine, without those that failed."""
    measured = [row for row in rows if "problem" not in row]
    return [
        min(
            (row for row in measured if row["engine"] == name),
            key=lambda row: float(row["seconds_per_iteration"]),
        )
        for name in dict.fromkeys(row["engine"] for row in measured)
    ]


def _parts(record: dict[str, Any], *, falling: bool) -> list[str]:
    """The paragraphs of the report."""
    machine = record["machine"]
    peaks = ", ".join(f"{kind} {value / 1e9:.0f}" for kind, value in record["peaks"].items())
    noted = {row["engine"]: row["note"] for row in record["rows"] if row["note"]}
    parts = [
        f"## K-means: {record['data']}",
        f"n = {record['n']}, d = {record['d']}, k = {record['k']}; iterations: "
        f"{record['iterations']}; threads: {record['threads']}.\n"
        f"{'; '.join(f'{key} {value}' for key, value in machine.items())}.\n"
        f"Peaks of these threads, 10^9 operations/s: {peaks}.",
        markdown(COLUMNS, [_cells(row, record["threads"]) for row in record["rows"]]),
        "\n".join(f"- {name}: {note}" for name, note in noted.items()),
        METHOD,
        f"Command: `{record['command']}`, {record['date']}.",
    ]
    if record.get("scaling"):
        parts += ["### Cost against the number of rows", scaling_table(record["scaling"])]
    if falling and _history(record):
        parts += ["### The iterations of ktfast's fit", history_table(_history(record))]
    return parts


def _cells(row: Row, threads: int) -> list[str]:
    if "problem" in row:
        return [row["engine"], row["setting"], row["problem"], *["-"] * (len(COLUMNS) - 3)]
    share = row["share_of_peak"]
    own = row["peak_rss"] - row["data_bytes"]
    idle = row["idle_rss"] - row["data_bytes"]
    each = Spread(row["seconds_per_iteration"], *row["range"])
    fits = len(row["seconds"])
    return [
        row["engine"],
        row["setting"],
        each.text() if fits > 1 else f"{each.median:.3f} (one fit)",
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


def scaling_table(points: list[Row]) -> str:
    """Seconds per iteration for each n, and how far the cost of a row changes over them."""
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
    """Seconds of every iteration, and the share of distances it skipped where that is known."""
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
    """The iterations of ktfast's last fit, if it could be measured."""
    return next((row["history"] for row in record["rows"] if row.get("history")), [])
