"""The style of the benchmarks' plots, and bar plots; every plot is saved as PNG and SVG."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ktfast.bench.core.table import Spread

OURS, PEER, PALE = "#2f6fde", "#8b94a3", "#c9ced6"
INK = "#1d2430"
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ktfast",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": PEER,
    "xtick.color": PEER,
    "ytick.color": PEER,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "grid.color": "#e3e6ea",
    "legend.frameon": False,
    "legend.fontsize": 9,
}


@contextmanager
def figure(path: Path, height: float) -> Iterator[Axes]:
    """Axes to draw on; the figure is saved when the block ends.

    Parameters
    ----------
    path : Path
        Path of the files without their suffix.
    height : float
        Height in inches; the width is 8 inches.

    Yields
    ------
    axes : Axes
        Empty axes.
    """
    style: Any = _STYLE
    with matplotlib.rc_context(style):
        drawn = Figure(figsize=(8, height), layout="constrained")
        FigureCanvasAgg(drawn)
        yield drawn.subplots()
        drawn.savefig(path.with_name(f"{path.name}.png"), dpi=160)
        drawn.savefig(path.with_name(f"{path.name}.svg"), metadata={"Date": None})


class Bar(NamedTuple):
    """One bar of a plot."""

    label: str
    values: Spread
    text: str
    """Stands beside the bar."""
    color: str
    bold: bool


def bars(
    path: Path,
    rows: Sequence[Bar],
    *,
    title: str,
    xlabel: str,
    legend: Mapping[str, str],
    logarithmic: bool = False,
) -> None:
    """Draw horizontal bars with their ranges, the first row on top.

    Parameters
    ----------
    path : Path
        Path of the files without their suffix.
    rows : sequence of Bar
        The bars. Nothing is drawn if there are none.
    title, xlabel : str
        Texts above and below the axes.
    legend : mapping of str
        Meaning of each colour.
    logarithmic : bool, optional
        Draw the values on a logarithmic axis.
    """
    if not rows:
        return
    upwards = rows[::-1]
    middle, least, most = np.array([row.values for row in upwards]).T
    height = 1.8 + 0.34 * len(rows)  # inches
    with figure(path, height) as axes:
        axes.barh(
            range(len(rows)), middle, height=0.66, color=[row.color for row in upwards],
            xerr=(middle - least, most - middle), error_kw={"ecolor": INK, "elinewidth": 1},
        )  # fmt: skip
        for place, row in enumerate(upwards):
            axes.annotate(
                row.text, (most[place], place), xytext=(5, 0), textcoords="offset points",
                va="center", fontsize=9, weight="bold" if row.bold else "normal",
            )  # fmt: skip
        axes.set_yticks(range(len(rows)), [row.label for row in upwards])
        axes.grid(axis="y", visible=False)
        if logarithmic:
            axes.set_xscale("log")
        limits = (middle.min() / 2, 8 * most.max()) if logarithmic else (0, 1.22 * most.max())
        axes.set(xlim=limits, xlabel=xlabel, title=title)
        axes.legend(
            handles=[Patch(color=color, label=text) for color, text in legend.items()],
            loc="upper center", bbox_to_anchor=(0.5, -0.75 / height), ncols=3,
        )  # fmt: skip
