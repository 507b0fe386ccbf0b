"""The plots of the report, as SVG text. Text and axes take the page's colours, light or dark."""

import html
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ktfast.evaluation.results import ByModel
from ktfast.report.formats import amount
from ktfast.report.summaries import MetricsRow

COLORS = {
    "transfer": "#2f6fde",
    "pretext": "#d98218",
    "labels": "#2a9d6f",
    "random": "#8b94a3",
    "loss": "#2f6fde",
    "accuracy": "#2a9d6f",
}
# matplotlib knows no CSS variables: `_svg` replaces these two colours by variables.
_INK, _RULE = "#010203", "#010204"
_STYLE = {
    "svg.fonttype": "none",
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _RULE,
    "xtick.color": _RULE,
    "ytick.color": _RULE,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "grid.color": _RULE,
    "grid.linewidth": 0.7,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}
_WIDTH = 4.8  # inches, 461 px: the text stays legible if the page is 400 px wide


def training_curves(
    rows: Sequence[MetricsRow], *, chance: float | None, name: str
) -> tuple[str, ...]:
    """Draw loss and accuracy of one training over its epochs.

    Parameters
    ----------
    rows : sequence of MetricsRow
        Rows of the training.
    chance : float, optional
        Accuracy of guessing. The plots show it, and its loss -ln(chance), as a line.
    name : str
        Name of the training; makes the ids in the SVGs unique.

    Returns
    -------
    tuple of str
        SVG of the loss, of the accuracy, and of the measures of the features. A plot without any
        value is left out.
    """
    loss = _series([(row.epoch, row.loss) for row in rows])
    accuracy = _series([(row.epoch, row.accuracy) for row in rows])
    plots = []
    if len(loss):
        words = f"Loss on training batches, {_from_to(loss)}"
        with panel(f"{name}-loss", 2.2, words) as (axes, svgs):
            _curve(axes, loss, COLORS["loss"])
            axes.set(title="Loss on training batches", ylabel="cross-entropy (nats)")
            axes.set(xlabel="epoch")
            if chance:
                _level(axes, -math.log(chance), "guessing", below=True)
        plots += svgs
    if len(accuracy):
        accuracy = accuracy * [1, 100]
        words = f"Accuracy on training batches in percent, {_from_to(accuracy)}"
        with panel(f"{name}-accuracy", 2.2, words) as (axes, svgs):
            _curve(axes, accuracy, COLORS["accuracy"])
            axes.set(title="Accuracy on training batches", ylabel="accuracy (%)")
            axes.set(xlabel="epoch", ylim=_from_zero(axes))
            if chance:
                _level(axes, 100 * chance, "guessing", below=False)
        plots += svgs
    return (*plots, *_feature_curves(rows, name))


def _feature_curves(rows: Sequence[MetricsRow], name: str) -> list[str]:
    """Draw the measures of a pretext network's features that were taken during its training."""
    measures = (
        (
            "neighbours",
            _series([(row.epoch, row.neighbours) for row in rows]) * [1, 100],
            "Accuracy of the features' nearest neighbours in percent",
            {"title": "Nearest neighbours of the features", "ylabel": "accuracy (%)"},
        ),
        (
            "agreement",
            _series([(row.epoch, row.agreement) for row in rows]),
            "Agreement of two clusterings of the features with different seeds",
            {"title": "Agreement of two clusterings", "ylabel": "adjusted Rand index"},
        ),
    )
    plots = []
    for key, values, words, texts in measures:
        if not len(values):
            continue
        with panel(f"{name}-{key}", 2.35, f"{words}, {_from_to(values)}") as (axes, svgs):
            x, y = values.T
            axes.plot(x, y, color=COLORS["accuracy"], marker="o", markersize=4.5)
            axes.set(**texts, xlabel="epoch")
            if y.min() >= 0:  # an adjusted Rand index can be negative
                axes.set(ylim=_from_zero(axes))
            if x[0] == 0:
                _level(axes, float(y[0]), "random weights", below=True)
        plots += svgs
    return plots


def probe_curves(models: ByModel, names: Mapping[str, str], *, title: str, unit: str) -> str:
    """Draw the accuracy of several models over the layers.

    Parameters
    ----------
    models : dict of str to dict of str to float
        Accuracy in percent by model and layer. A model has the same colour in every plot.
    names : dict of str to str
        Name of each model in the legend.
    title : str
        Title of the plot; also makes the ids in the SVG unique.
    unit : str
        Label of the accuracy axis.

    Returns
    -------
    str
        The SVG.
    """
    layers = list(dict.fromkeys(layer for row in models.values() for layer in row))
    words = f"{title}: {unit} by layer. {_in_words(models, names)}"
    with panel(title, 2.9, words) as (axes, svgs):
        for model, row in models.items():
            positions = [layers.index(layer) for layer in row]
            first = model == "transfer"
            axes.plot(
                positions, list(row.values()), color=COLORS.get(model, _INK), marker="o",
                markersize=4.5, label=names.get(model, model), linewidth=2.6 if first else 1.7,
                zorder=3 if first else 2,
            )  # fmt: skip
        axes.set_xticks(range(len(layers)), layers, rotation=0 if len(layers) < 8 else 40)
        axes.set(title=title, ylabel=unit, ylim=_from_zero(axes))
        axes.grid(axis="x", visible=False)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, handlelength=1.5)
    return svgs[0]


def cluster_plots(sizes: NDArray[np.int64], inertia: Sequence[float]) -> tuple[str, ...]:
    """Draw a histogram of cluster sizes, and the inertia over the iterations.

    Parameters
    ----------
    sizes : array, int64 [k]
        Number of images of each cluster; empty if unknown.
    inertia : sequence of float
        Inertia after each iteration of K-means; empty if unknown.

    Returns
    -------
    tuple of str
        SVG of the sizes and SVG of the inertia. A plot without any value is left out.
    """
    plots = []
    if len(sizes):
        words = (
            f"Histogram of the sizes of {len(sizes):,} clusters: {sizes.min():,} to "
            f"{sizes.max():,} images, median {amount(float(np.median(sizes)))}"
        )
        with panel("cluster-sizes", 2.4, words) as (axes, svgs):
            axes.hist(sizes, bins=_size_bins(sizes).tolist(), color=COLORS["transfer"])
            middle = float(np.median(sizes))
            axes.axvline(middle, color=_INK, linewidth=1, linestyle=(0, (4, 3)))
            axes.annotate(
                f"median {amount(middle)}", (middle, 1), xycoords=("data", "axes fraction"),
                xytext=(5, -9), textcoords="offset points", fontsize=8.5,
            )  # fmt: skip
            axes.set(title="Cluster sizes", xlabel="images in a cluster", ylabel="clusters")
            axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        plots += svgs
    if inertia:
        words = (
            f"Inertia of K-means over {len(inertia)} iterations, from {amount(inertia[0])} to "
            f"{amount(inertia[-1])}"
        )
        with panel("inertia", 2.4, words) as (axes, svgs):
            steps = np.arange(1, len(inertia) + 1)
            axes.plot(steps, inertia, color=COLORS["transfer"], marker="o", markersize=2.5)
            axes.set(title="K-means", xlabel="iteration", ylabel="inertia (sum of squares)")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        plots += svgs
    return tuple(plots)


def _from_to(series: NDArray[np.float64]) -> str:
    """The first and the last point of a series float64 [m, 2], in words."""
    (x, y), (last_x, last_y) = series[0], series[-1]
    return f"from {y:.3g} at epoch {x:.3g} to {last_y:.3g} at epoch {last_x:.3g}"


def _in_words(models: ByModel, names: Mapping[str, str]) -> str:
    """The values of several models by layer, in words."""
    rows = (
        f"{names.get(model, model)}: "
        + ", ".join(f"{layer} {value:.1f}" for layer, value in row.items())
        for model, row in models.items()
    )
    return "; ".join(rows)


def _size_bins(sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Edges of bins that hold the same number of integers each."""
    width = max(1, math.ceil((int(sizes.max()) - int(sizes.min()) + 1) / 40))
    edges = np.arange(int(sizes.min()), int(sizes.max()) + 2 * width, width, dtype=np.float64)
    return edges - 0.5


def _series(pairs: Sequence[tuple[float | None, float | None]]) -> NDArray[np.float64]:
    """Pairs (epoch, value) that have both numbers, float64 [m, 2]."""
    known = [pair for pair in pairs if None not in pair]
    return np.array(known, dtype=np.float64).reshape(-1, 2)


def _curve(axes: Axes, series: NDArray[np.float64], color: str) -> None:
    """Draw the values in a pale colour and their running mean on top."""
    x, y = series.T
    span = max(1, len(y) // 40)
    if span > 1:
        axes.plot(x, y, color=color, alpha=0.28, linewidth=0.9)
        padded = np.pad(y, (span // 2, (span - 1) // 2), "edge")
        y = np.convolve(padded, np.full(span, 1 / span), "valid")
    axes.plot(x, y, color=color, marker="o" if len(y) == 1 else "")
    axes.margins(x=0.01)


def _from_zero(axes: Axes) -> tuple[float, float | None]:
    """Give limits from 0 to a little above the highest point, so that its marker is whole."""
    highest = float(axes.dataLim.y1)
    return 0.0, 1.06 * highest if highest > 0 else None


def _level(axes: Axes, value: float, text: str, *, below: bool) -> None:
    axes.axhline(value, color=_INK, linewidth=1, linestyle=(0, (4, 3)), alpha=0.7)
    axes.annotate(
        text, (1, value), xycoords=("axes fraction", "data"), xytext=(-3, -11 if below else 4),
        textcoords="offset points", ha="right", fontsize=8.5,
    )  # fmt: skip


@contextmanager
def panel(name: str, height: float, words: str = "") -> Iterator[tuple[Axes, list[str]]]:
    """Yield axes, and a list that receives the SVG text of the drawing when the block ends.

    Parameters
    ----------
    name : str
        Name of the plot; makes the ids in the SVG unique.
    height : float
        Height in inches.
    words : str
        Describes the drawing for readers who do not see it. Empty: the name describes it.

    Yields
    ------
    panel : tuple of Axes and list of str
        The axes, and the list.
    """
    style: Any = {**_STYLE, "svg.hashsalt": name}
    svgs: list[str] = []
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure.subplots(), svgs
        svgs.append(_svg(figure, words or name))


def _svg(figure: Figure, words: str) -> str:
    """The figure as an <svg> element, without prologue, metadata and ids of groups."""
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "var(--ink)").replace(_RULE, "var(--rule)")
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    # Use the page's font. It is narrower than matplotlib's, so that texts still fit.
    text = re.sub(r"'[^']*DejaVu[^;\"]*", "inherit", text)
    size = r'width="[\d.]+pt" height="[\d.]+pt"'
    attributes = f'class="plot" role="img" aria-label="{html.escape(words)}"'
    return re.sub(size, lambda _: attributes, text, count=1)
