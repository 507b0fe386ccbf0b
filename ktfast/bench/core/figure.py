"""The look of the benchmarks' plots, each saved as PNG and SVG."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

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
    """Axes to draw on; the figure is saved as PNG and SVG when the block ends."""
    style: Any = _STYLE
    with matplotlib.rc_context(style):
        drawn = Figure(figsize=(8, height), layout="constrained")
        FigureCanvasAgg(drawn)
        yield drawn.subplots()
        drawn.savefig(path.with_name(f"{path.name}.png"), dpi=160)
        drawn.savefig(path.with_name(f"{path.name}.svg"), metadata={"Date": None})
