"""The plots of `ktfast bench kmeans`, each as PNG and SVG."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ktfast.bench.core.figure import INK, OURS, PALE, PEER, figure
from ktfast.bench.kmeans.engines import AS_INSTALLED, Row

_COLORS = ("#d98218", "#2a9d6f", "#9b59b6", "#c0392b", "#16a2b8", "#7f6a4f", "#e377a2")


def bars(record: dict[str, Any], path: Path) -> None:
    """Time per iteration of every engine and setting, fastest on top.

    Parameters
    ----------
    record : what was measured; see `ktfast.bench.kmeans.command.Comparison`.
    path : of the files, without suffix.
    """
    rows = [row for row in record["rows"] if "problem" not in row]
    rows.sort(key=lambda row: -float(row["seconds_per_iteration"]))
    seconds = np.array([row["seconds_per_iteration"] for row in rows])
    least, most = np.array([row["range"] for row in rows]).T
    height = 1.8 + 0.34 * len(rows)  # inches
    with figure(path, height) as axes:
        axes.barh(
            range(len(rows)), seconds, height=0.66, color=[_color(row, rows) for row in rows],
            xerr=(seconds - least, most - seconds), error_kw={"ecolor": INK, "elinewidth": 1},
        )  # fmt: skip
        for place, row in enumerate(rows):
            ratio = f"  ({row['ratio']:.1f}×)" if row.get("ratio", 1) != 1 else ""
            text = f"{row['seconds_per_iteration']:.3g} s{ratio}"
            axes.annotate(
                text, (most[place], place), xytext=(5, 0), textcoords="offset points",
                va="center", fontsize=9, weight="bold" if row["engine"] == "ktfast" else "normal",
            )  # fmt: skip
        axes.set_yticks(range(len(rows)), [_label(row) for row in rows])
        axes.grid(axis="y", visible=False)
        axes.set(
            xlim=(0, 1.22 * most.max()),
            xlabel="seconds per iteration (median, range), lower is better",
            title=f"K-means on {Path(record['data']).name}: n = {record['n']:,}, d = "
            f"{record['d']:,}, k = {record['k']:,}"
            + (f", threads: {record['threads']}" if "threads" in record else ""),
        )
        colors = {_color(row, rows) for row in rows}
        names = {OURS: "ktfast", PEER: "another library", PALE: "at a slower setting"}
        handles = [Patch(color=c, label=n) for c, n in names.items() if c in colors]
        axes.legend(
            handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.75 / height), ncols=3
        )


def scaling(points: list[Row], path: Path) -> None:
    """Time per iteration against the number of rows.

    Parameters
    ----------
    points : engine, n and seconds_per_iteration of each measurement.
    path : of the files, without suffix.
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
    """Time of every iteration of ktfast's fit, and the share of distances it skipped.

    Parameters
    ----------
    history : `KMeans.history_`; "skipped" is drawn if it is there.
    rows : of the table, one for each engine; scikit-learn and faiss give their mean time.
    path : of the files, without suffix.
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
    """Draw the share of distances that were not computed on an axis of its own."""
    color = _COLORS[0]
    axes.plot([], [], color=color, linestyle="-.", label="distances skipped")
    share = axes.twinx()
    share.plot(steps, percent, color=color, linestyle="-.")
    share.set(ylim=(0, 105))
    share.set_ylabel("distances skipped (%)", color=color)
    share.grid(visible=False)


def _color(row: Row, rows: list[Row]) -> str:
    """Ours, a peer's, or pale: as installed where another setting is faster."""
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
