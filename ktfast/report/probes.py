"""The report's tables of probes: this run's models by layer, and the published rows beside them."""

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ktfast.evaluation import paper
from ktfast.report import plots
from ktfast.report.words import MODEL_NAMES, number

# The published row that each of our models corresponds to; they share a colour in the plot.
_PUBLISHED = {
    "transfer": "CC+vgg-Jigsaw++",
    "pretext": "Jigsaw++",
    "labels": "ImageNet labels",
    "random": "random",
}


@dataclass(frozen=True)
class Cell:
    """One accuracy in percent, or None; and whether it is the best at its layer without labels."""

    value: float | None
    best: bool


@dataclass(frozen=True)
class Row:
    """Accuracies of one model over the table's layers."""

    name: str
    model: str
    cells: list[Cell]


@dataclass(frozen=True)
class Table:
    """Accuracies in percent, models by layers."""

    title: str
    layers: list[str]
    rows: list[Row]


def probe_section(summary: dict[str, Any] | None) -> dict[str, Any] | None:
    """Tables and plot of the probes.

    Parameters
    ----------
    summary : of the evaluate stage; accuracies as fractions.

    Returns
    -------
    {"tables", "published", "plots", "metric", "protocols"}, or None without a summary.
    """
    if summary is None:
        return None
    metric = str(summary.get("metric", "accuracy"))
    kinds = {"linear": "Linear probe", "linear_top1": "Linear probe", "knn": "Nearest neighbours"}
    tables = []
    for key, title in kinds.items():
        values = percentages(summary.get(key))
        if values:
            measure = "top-1 accuracy" if key == "linear_top1" else metric
            tables.append(comparison(f"{title}, {measure} (%)", values))
    tables += _low_label_tables(summary.get("low_label"), metric)
    published = _published_rows(paper.IMAGENET_LINEAR)
    beside_ours = [comparison("ImageNet, linear probe, top-1 accuracy (%)", published)]
    retrained = percentages(summary.get("retrained"))
    if retrained:
        title = "All above the layer trained anew"
        tables.append(comparison(f"{title}, {metric} (%)", retrained))
        rows = _published_rows(paper.IMAGENET_NONLINEAR)
        beside_ours.append(
            comparison("ImageNet, all above the layer trained anew, top-1 (%)", rows)
        )
    linear = percentages(summary.get("linear"))
    drawn = []
    if linear:
        beside = {model: published[name] for model, name in _PUBLISHED.items()}
        drawn = [
            plots.probe_curves(
                linear, MODEL_NAMES, title="This run, its own data", unit=f"{metric} (%)"
            ),
            plots.probe_curves(
                beside,
                _PUBLISHED,
                title="Published, ImageNet (different data)",
                unit="top-1 accuracy (%)",
            ),
        ]
    protocols = {
        "the linear probe": summary.get("protocol"),
        "the trainings above a layer": summary.get("retrained_protocol"),
    }
    return {
        "tables": tables,
        "published": beside_ours,
        "plots": [Markup(plot) for plot in drawn],
        "metric": metric,
        "protocols": {name: how for name, how in protocols.items() if isinstance(how, dict)},
    }


def _published_rows(rows: tuple[paper.LayerRow, ...]) -> dict[str, dict[str, float]]:
    return {row.name: dict(zip(paper.CONV_LAYERS, row.accuracy, strict=True)) for row in rows}


def _low_label_tables(regimes: Any, metric: str) -> list[Table]:
    """A table for each share of the labels."""
    tables = []
    for regime in regimes if isinstance(regimes, list) else []:
        known = regime if isinstance(regime, dict) else {}
        fraction, images = number(known.get("fraction")), number(known.get("images"))
        values = percentages(known.get("linear"))
        if values and fraction is not None and images is not None:
            share = f"{100 * fraction:g} % of the labels ({images:,.0f} images)"
            tables.append(comparison(f"Linear probe with {share}, {metric} (%)", values))
    return tables


def percentages(value: Any) -> dict[str, dict[str, float]]:
    """Model -> layer -> percent, of what is a number in a summary."""
    models: dict[str, dict[str, float]] = {}
    for model, row in (value if isinstance(value, dict) else {}).items():
        known = {key: number(item) for key, item in (row if isinstance(row, dict) else {}).items()}
        layers = {key: 100 * item for key, item in known.items() if item is not None}
        if layers:
            models[str(model)] = layers
    return models


def comparison(title: str, models: dict[str, dict[str, float]]) -> Table:
    """A table of models by columns; the best of each column without labels is marked."""
    layers = list(dict.fromkeys(layer for row in models.values() for layer in row))
    model_of = {name: model for model, name in _PUBLISHED.items()}
    unlabelled = [row for name, row in models.items() if model_of.get(name, name) != "labels"]
    best = {
        layer: max((row[layer] for row in unlabelled if layer in row), default=None)
        for layer in layers
    }
    rows = [
        Row(
            name=MODEL_NAMES.get(name, name),
            model=name if name in MODEL_NAMES else model_of.get(name, ""),
            cells=[
                Cell(row.get(layer), row in unlabelled and row.get(layer) == best[layer])
                for layer in layers
            ],
        )
        for name, row in models.items()
    ]
    return Table(title, layers, rows)
