"""The report's section on probes: tables of this run's models by layer, and published results."""

import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from ktfast.evaluation import paper
from ktfast.evaluation.layer_choice import choose_layers
from ktfast.evaluation.results import ByModel, EvaluationSummary, LowLabelRegime, ProtocolDetails
from ktfast.report import plots
from ktfast.report.formats import MODEL_NAMES, amount
from ktfast.report.published import Published, by_layer, notes_on

# Models, and rows of the paper, that were trained on the true labels.
_SUPERVISED = ("labels", "ImageNet labels")
_NOTES_ON_DRAWS = (
    "After ±: the standard deviation over the draws of the training images. The draws share their "
    "test images.",
)
Spreads = dict[str, dict[str, float]]
"""Standard deviation in percent, by model and layer."""


@dataclass(frozen=True)
class Cell:
    """A value in percent or None.

    Attributes
    ----------
    value : float, optional
        The value.
    best : bool
        Whether the value is the best of its column among models that saw no labels.
    chosen : bool
        Whether held-out training images chose this column for the model of the row.
    spread : float, optional
        Standard deviation of the value over several draws, in percent.
    """

    value: float | None
    best: bool
    chosen: bool = False
    spread: float | None = None


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
    notes: list[str] = field(default_factory=list)

    @property
    def is_wide(self) -> bool:
        """Whether the table needs the width of the page: values with ±, one column per layer."""
        spread = any(cell.spread is not None for row in self.rows for cell in row.cells)
        return spread and 3 < len(self.columns) <= 7


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
    chosen : bool
        Whether held-out training images chose a layer of each model.
    remark : str
        Which published row is the counterpart of the transferred network.
    """

    tables: list[Table]
    published: list[Table]
    plots: list[Markup]
    protocols: dict[str, ProtocolDetails]
    chosen: bool
    remark: str


def probe_section(
    summary: EvaluationSummary | None, beside: Published, names: Mapping[str, str] = MODEL_NAMES
) -> ProbeSection | None:
    """Tables and plots of the probes; None if the stage evaluate was not run.

    Parameters
    ----------
    summary : EvaluationSummary, optional
        Summary of the stage evaluate.
    beside : Published
        The published counterparts of the run.
    names : mapping of str to str
        Printed names of the run's models.

    Returns
    -------
    ProbeSection or None
        The section.
    """
    if summary is None:
        return None
    metric = summary.metric
    first = next(iter(summary.sets.values()), summary)
    retraining = summary.retraining or first.retraining
    tables = _tables(summary, names)
    protocols = {"the linear probe": summary.protocol or first.protocol}
    for name, found in (summary.variants or first.variants).items():
        protocols[f"the linear probe {name}"] = found.protocol
    if retraining is not None:
        protocols["the trainings above a layer"] = retraining.protocol
    for regime in summary.fine_tuned or first.fine_tuned:
        protocols["fine-tuning"] = regime.protocol
    for name, on_set in summary.sets.items():
        tables += _tables(on_set, names, of=f"{name}: ")
    return ProbeSection(
        tables=tables,
        published=_published(beside, retrained=retraining is not None),
        plots=_plots(percentages(summary.linear), metric, beside, names),
        protocols={name: protocol for name, protocol in protocols.items() if protocol},
        chosen=bool(_chosen(summary.linear, summary.linear_held_out)),
        remark=beside.remark,
    )


def _tables(summary: EvaluationSummary, names: Mapping[str, str], of: str = "") -> list[Table]:
    """Tables of the probes on one labelled set; `of` begins their titles."""
    metric, unknown = summary.metric, set(summary.models) - set(MODEL_NAMES)
    candidates: list[tuple[str, ByModel, ByModel, Spreads]] = [
        (f"Linear probe, {metric} (%)", summary.linear, summary.linear_held_out, {}),
        ("Linear probe, top-1 accuracy (%)", summary.linear_top1, {}, {}),
        (f"Nearest neighbours, {metric} (%)", summary.knn, summary.knn_held_out, {}),
        *(_low_label_table(regime, metric) for regime in summary.low_label),
    ]
    for variant, found in summary.variants.items():
        title = f"Linear probe, protocol {variant}"
        candidates.append((f"{title}, {metric} (%)", found.linear, {}, {}))
        candidates.append((f"{title}, top-1 accuracy (%)", found.top1, {}, {}))
    candidates += [
        _low_label_table(regime, metric, "Whole network fine-tuned")
        for regime in summary.fine_tuned
    ]
    if summary.retraining is not None:
        title = f"All layers above the column's layer trained anew, {metric} (%)"
        candidates.append((title, summary.retraining.mean_per_class, {}, {}))
    return [
        comparison(
            f"{of}{title}",
            percentages(rows),
            chosen=_chosen(rows, held_out),
            names=names,
            spreads=spreads,
            notes=_NOTES_ON_DRAWS if spreads else (),
            unranked=unknown,
        )
        for title, rows, held_out, spreads in candidates
        if rows
    ]


def _chosen(accuracy: ByModel, held_out: ByModel) -> dict[str, str]:
    """Layer of each model that held-out training images chose; empty if they chose none."""
    choice = choose_layers(accuracy, held_out)
    return {} if choice.by_test else {model: layer for model, (layer, _) in choice.chosen.items()}


def _published(beside: Published, *, retrained: bool) -> list[Table]:
    """Published accuracies with the protocols and on the data sets of this run."""
    tables: list[tuple[str, Sequence[paper.LayerRow]]]
    tables = [("ImageNet, linear probe, top-1 accuracy (%)", paper.IMAGENET_LINEAR)]
    if beside.on_places:
        tables.insert(0, ("Places205, linear probe, top-1 accuracy (%)", paper.PLACES_LINEAR))
    if retrained:
        title = "ImageNet, all layers above the column's layer trained anew, top-1 (%)"
        tables.append((title, paper.IMAGENET_NONLINEAR))
    return [
        comparison(title, by_layer(rows), beside=beside, notes=notes_on(rows))
        for title, rows in tables
    ]


def _plots(
    linear: ByModel, metric: str, beside: Published, names: Mapping[str, str]
) -> list[Markup]:
    """Linear probes over the layers: this run's, and their published counterparts."""
    if not linear:
        return []
    drawn = [
        plots.probe_curves(linear, names, title="This run, its own data", unit=f"{metric} (%)")
    ]
    published = by_layer(paper.IMAGENET_LINEAR)
    if beside.methods:
        drawn.append(
            plots.probe_curves(
                {model: published[name] for model, name in beside.methods.items()},
                beside.methods,
                title="Published, ImageNet (different data)",
                unit="top-1 accuracy (%)",
            )
        )
    # matplotlib escapes the text that it writes into an SVG.
    return [Markup(plot) for plot in drawn]


def _low_label_table(
    regime: LowLabelRegime, metric: str, method: str = "Linear probe"
) -> tuple[str, ByModel, ByModel, Spreads]:
    share = f"{amount(regime.count)} label{'' if regime.count == 1 else 's'} per class"
    if regime.fraction is not None:
        share = f"{100 * regime.fraction:g} % of the labels"
        share = "all labels" if regime.fraction == 1 else share
    drawn = {len(row) for draws in regime.draws.values() for row in draws.values()}
    repeats = f", mean of {max(drawn)} draws" if drawn else ""
    title = f"{method} with {share} ({regime.images:,} images{repeats}), {metric} (%)"
    return title, regime.linear, {}, _spreads(regime)


def _spreads(regime: LowLabelRegime) -> Spreads:
    """Standard deviation over the draws in percent, by model and layer; empty for single draws."""
    return {
        model: {
            layer: 100 * statistics.stdev(values)
            for layer, values in draws.items()
            if len(values) > 1
        }
        for model, draws in regime.draws.items()
    }


def percentages(rows: Mapping[str, Mapping[str, float | None]]) -> ByModel:
    """Convert fractions by model and column into percent; leave out None and empty rows."""
    known = {
        model: {column: 100 * value for column, value in row.items() if value is not None}
        for model, row in rows.items()
    }
    return {model: row for model, row in known.items() if row}


def comparison(
    title: str,
    models: ByModel,
    *,
    beside: Published | None = None,
    chosen: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
    names: Mapping[str, str] = MODEL_NAMES,
    spreads: Spreads | None = None,
    unranked: Collection[str] = (),
) -> Table:
    """Make a table of models; mark each column's best value among models that saw no labels.

    Parameters
    ----------
    title : str
        Caption of the table.
    models : dict of str to dict of str to float
        Value in percent by model and column. Models are names of a run or published names.
    beside : Published, optional
        The published counterparts of the run, if the models have published names.
    chosen : mapping of str to str, optional
        The column of each model that held-out training images chose.
    notes : sequence of str
        Remarks below the table.
    names : mapping of str to str
        Printed names of the models of a run.
    spreads : dict of str to dict of str to float, optional
        Standard deviation of a value over several draws, by model and column.
    unranked : collection of str
        Models that are never the best, because it is unknown whether they saw labels.

    Returns
    -------
    Table
        The table.
    """
    columns = list(dict.fromkeys(column for row in models.values() for column in row))
    own = {name: beside.model_of(name) if beside else name for name in models}
    labelled = {*_SUPERVISED, *unranked}
    unlabelled = [row for name, row in models.items() if name not in labelled]
    best = {
        column: max((row[column] for row in unlabelled if column in row), default=None)
        for column in columns
    }
    rows = [
        Row(
            name=names.get(name, name),
            model=own[name],
            cells=[
                Cell(
                    row.get(column),
                    best=name not in labelled and row.get(column) == best[column],
                    chosen=(chosen or {}).get(name) == column,
                    spread=(spreads or {}).get(name, {}).get(column),
                )
                for column in columns
            ],
        )
        for name, row in models.items()
    ]
    return Table(title, columns, rows, list(notes))
