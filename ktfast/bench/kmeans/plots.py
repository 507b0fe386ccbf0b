"""The plots of `ktfast bench kmeans`; every plot is saved as PNG and SVG."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ktfast.bench.core import figure as figures
from ktfast.bench.core.figure import INK, OURS, PALE, PEER, Bar, figure
from ktfast.bench.core.table import Spread
from ktfast.bench.kmeans.engines import AS_INSTALLED, Row

_COLORS = ("#d98218", "#2a9d6f", "#9b59b6", "#c0392b", "#16a2b8", "#7f6a4f", "#e377a2")


def bars(record: dict[str, Any], path: Path) -> None:
    """Time per iteration of every engine and setting, fastest on top.

    Parameters
    ----------
    record : dict
        The measurement, from `ktfast.bench.kmeans.command.Comparison`.
    path : Path
        Path of the files without their suffix.
    """
    rows = [row for row in record["rows"] if "problem" not in row]
    rows.sort(key=lambda row: float(row["seconds_per_iteration"]))
    names = {OURS: "ktfast", PEER: "another library", PALE: "at a slower setting"}
    colors = {_color(row, rows) for row in rows}
    threads = f", threads: {record['threads']}" if "threads" in record else ""
    figures.bars(
        path,
        [_bar(row, rows) for row in rows],
        title=f"K-means on {Path(record['data']).name}: n = {record['n']:,}, d = "
        f"{record['d']:,}, k = {record['k']:,}{threads}",
        xlabel="seconds per iteration (median, range), lower is better",
        legend={color: name for color, name in names.items() if color in colors},
    )


def _bar(row: Row, rows: list[Row]) -> Bar:
    each = float(row["seconds_per_iteration"])
    ratio = f"  ({row['ratio']:.1f}×)" if row.get("ratio", 1) != 1 else ""
    return Bar(
        _label(row),
        Spread(each, *row["range"]),
        f"{each:.3g} s{ratio}",
        _color(row, rows),
        row["engine"] == "ktfast",
    )


def scaling(points: list[Row], path: Path) -> None:
    """Time per iteration against the number of rows.

    Parameters
    ----------
    points : list of dict
        "engine", "n" and "seconds_per_iteration" of each measurement.
    path : Path
        Path of the files without their suffix.
    """
    engines = dict.fromkeys(point["engine"] for point in points)
    with figure(path, 4.2) as axes:
        for name, color in zip(engines, _line_colors(list(engines)), strict=True):
            own = sorted(
                (point["n"], point["seconds_per_iteration"])
                for point in points
                if point["engine"] == name
            )
            n, seconds = np.array(own).T
            axes.plot(
                n, seconds, color=color, marker="o", markersize=4.5, label=name,
                linewidth=2.6 if name == "ktfast" else 1.6, zorder=3 if name == "ktfast" else 2,
            )  # fmt: skip
            if name == "ktfast":
                axes.plot([0, n[-1]], [0, seconds[-1]], color=INK, linewidth=1, linestyle=":")
        axes.set(
            xlim=(0, None), ylim=(0, None), xlabel="rows (n)", ylabel="seconds per iteration",
            title="Cost against the number of rows (dotted: proportional)",
        )  # fmt: skip
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.legend()


def falling(history: list[Row], rows: list[Row], path: Path) -> None:
    """Time of every iteration of ktfast's fit, and the share of skipped distances.

    Parameters
    ----------
    history : list of dict
        `KMeans.history_`. "skipped" is drawn where it is present.
    rows : list of dict
        One row for each engine. The mean times of scikit-learn and faiss are drawn as lines.
    path : Path
        Path of the files without their suffix.
    """
    steps = np.arange(1, len(history) + 1)
    with figure(path, 4.2) as axes:
        seconds = [row["seconds"] for row in history]
        axes.plot(
            steps, seconds, color=OURS, marker="o", markersize=4, linewidth=2.2, label="ktfast"
        )
        means = [row for row in rows if row["engine"] in ("faiss", "sklearn")]
        for row, style in zip(means, ((0, (6, 3)), (0, (1, 2))), strict=False):
            label = f"{row['engine']}, mean of its iterations"
            axes.axhline(row["seconds_per_iteration"], color=INK, linestyle=style, label=label)
        axes.set(ylim=(0, None), xlabel="iteration", ylabel="seconds")
        axes.set_title("Time of each iteration of one fit")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if any("skipped" in row for row in history):
            _skipped(axes, steps, [100 * row.get("skipped", 0) for row in history])
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=4)


def _skipped(axes: Axes, steps: NDArray[np.int64], percent: list[float]) -> None:
    """Draw the share of skipped distances on an axis of its own."""
    color = _COLORS[0]
    axes.plot([], [], color=color, linestyle="-.", label="distances skipped")
    share = axes.twinx()
    share.plot(steps, percent, color=color, linestyle="-.")
    share.set(ylim=(0, 105))
    share.set_ylabel("distances skipped (%)", color=color)
    share.grid(visible=False)


def _color(row: Row, rows: list[Row]) -> str:
    """ktfast's colour, a peer's, or a pale one for a peer's slower setting."""
    if row["engine"] == "ktfast":
        return OURS
    best = min(
        float(other["seconds_per_iteration"]) for other in rows if other["engine"] == row["engine"]
    )
    return PEER if row["seconds_per_iteration"] == best else PALE


def _label(row: Row) -> str:
    approximate = " (approximate)" if "approximate" in row["note"] else ""
    setting = "" if row["setting"] == AS_INSTALLED else f", {row['setting']}"
    return f"{row['engine']}{approximate}{setting}"


def _line_colors(engines: list[str]) -> list[str]:
    peers = iter(_COLORS * (1 + len(engines) // len(_COLORS)))
    return [OURS if name == "ktfast" else next(peers) for name in engines]
