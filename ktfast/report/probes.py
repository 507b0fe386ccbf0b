"""The report's section on probes: tables of this run's models by layer, and published results."""

from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from ktfast.evaluation import paper
from ktfast.evaluation.results import ByModel, EvaluationSummary, LowLabelRegime, ProtocolDetails
from ktfast.report import plots
from ktfast.report.formats import MODEL_NAMES

# The published row that corresponds to each model of a run. Both have the same colour in the plots.
_PUBLISHED = {
    "transfer": "CC+vgg-Jigsaw++",
    "pretext": "Jigsaw++",
    "labels": "ImageNet labels",
    "random": "random",
}


@dataclass(frozen=True)
class Cell:
    """A value in percent or None; `best` marks a column's best among models without labels."""

    value: float | None
    best: bool


@dataclass(frozen=True)
class Row:
    """One row of a table: the printed name, the model (sets the colour), the cells."""

    name: str
    model: str
    cells: list[Cell]


@dataclass(frozen=True)
class Table:
    """A table in percent: one row per model, one column per layer, class or protocol."""

    title: str
    columns: list[str]
    rows: list[Row]


@dataclass(frozen=True)
class ProbeSection:
    """What the section on probes shows.

    Attributes
    ----------
    tables : list of Table
        This run's accuracies.
    published : list of Table
        Published accuracies.
    plots : list of Markup
        Accuracy over the layers, as SVG.
    protocols : dict of str to dict
        Details of each protocol by the protocol's printed name.
    """

    tables: list[Table]
    published: list[Table]
    plots: list[Markup]
    protocols: dict[str, ProtocolDetails]


def probe_section(summary: EvaluationSummary | None) -> ProbeSection | None:
    """Tables and plots of the probes; None if the stage evaluate was not run."""
    if summary is None:
        return None
    metric, retraining = summary.metric, summary.retraining
    candidates = [
        (f"Linear probe, {metric} (%)", summary.linear),
        ("Linear probe, top-1 accuracy (%)", summary.linear_top1),
        (f"Nearest neighbours, {metric} (%)", summary.knn),
        *(_low_label_table(regime, metric) for regime in summary.low_label),
    ]
    published = [("ImageNet, linear probe, top-1 accuracy (%)", paper.IMAGENET_LINEAR)]
    protocols = {"the linear probe": summary.protocol}
    if retraining is not None:
        title = "All layers above the column's layer trained anew"
        candidates.append((f"{title}, {metric} (%)", retraining.mean_per_class))
        published.append((f"ImageNet, {title[0].lower()}{title[1:]}, top-1 (%)",
                          paper.IMAGENET_NONLINEAR))  # fmt: skip
        protocols["the trainings above a layer"] = retraining.protocol
    return ProbeSection(
        tables=[comparison(title, percentages(rows)) for title, rows in candidates if rows],
        published=[comparison(title, _published_rows(rows)) for title, rows in published],
        plots=_plots(percentages(summary.linear), metric),
        protocols={name: protocol for name, protocol in protocols.items() if protocol},
    )


def _plots(linear: ByModel, metric: str) -> list[Markup]:
    """Linear probes over the layers: this run's and the published ones."""
    if not linear:
        return []
    published = _published_rows(paper.IMAGENET_LINEAR)
    beside = {model: published[name] for model, name in _PUBLISHED.items()}
    ours = plots.probe_curves(
        linear, MODEL_NAMES, title="This run, its own data", unit=f"{metric} (%)"
    )
    theirs = plots.probe_curves(
        beside,
        _PUBLISHED,
        title="Published, ImageNet (different data)",
        unit="top-1 accuracy (%)",
    )
    # matplotlib escapes the text that it writes into an SVG.
    return [Markup(ours), Markup(theirs)]


def _published_rows(rows: tuple[paper.LayerRow, ...]) -> ByModel:
    return {row.name: dict(zip(paper.CONV_LAYERS, row.accuracy, strict=True)) for row in rows}


def _low_label_table(regime: LowLabelRegime, metric: str) -> tuple[str, ByModel]:
    share = f"{100 * regime.fraction:g} % of the labels ({regime.images:,} images)"
    return f"Linear probe with {share}, {metric} (%)", regime.linear


def percentages(rows: Mapping[str, Mapping[str, float | None]]) -> ByModel:
    """Convert fractions by model and column into percent; leave out None and empty rows."""
    known = {
        model: {column: 100 * value for column, value in row.items() if value is not None}
        for model, row in rows.items()
    }
    return {model: row for model, row in known.items() if row}


def comparison(title: str, models: ByModel) -> Table:
    """Make a table of models; mark each column's best value among models that saw no labels.

    Parameters
    ----------
    title : str
        Caption of the table.
    models : dict of str to dict of str to float
        Value in percent by model and column. Models are names of a run or published names.

    Returns
    -------
    Table
        The table.
    """
    columns = list(dict.fromkeys(column for row in models.values() for column in row))
    model_of = {name: model for model, name in _PUBLISHED.items()}
    unlabelled = [row for name, row in models.items() if model_of.get(name, name) != "labels"]
    best = {
        column: max((row[column] for row in unlabelled if column in row), default=None)
        for column in columns
    }
    rows = [
        Row(
            name=MODEL_NAMES.get(name, name),
            model=name if name in MODEL_NAMES else model_of.get(name, ""),
            cells=[
                Cell(row.get(column), row in unlabelled and row.get(column) == best[column])
                for column in columns
            ],
        )
        for name, row in models.items()
    ]
    return Table(title, columns, rows)
