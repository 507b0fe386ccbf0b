"""The report's section on PASCAL VOC: tables of this run's models, and published results."""

from collections.abc import Mapping
from dataclasses import dataclass

from ktfast.evaluation import paper
from ktfast.evaluation.results import VocSummary
from ktfast.report.formats import MODEL_NAMES, amount
from ktfast.report.probes import Cell, Row, Table, comparison, percentages

PROTOCOLS = ("classification", "detection", "segmentation")
_COLUMNS = {
    "classification": "class. mAP",
    "detection": "det. mAP",
    "segmentation": "seg. mIoU",
}


@dataclass(frozen=True)
class VocSection:
    """What the section on PASCAL VOC shows.

    Attributes
    ----------
    table : Table
        Score of this run's models by protocol.
    published : Table
        Published scores.
    classes : list of Table
        Score of this run's models by class, one table per protocol.
    protocols : list of list of pairs of str
        Name and value of each protocol's details.
    """

    table: Table
    published: Table
    classes: list[Table]
    protocols: list[list[tuple[str, str]]]


def voc_section(summaries: Mapping[str, VocSummary | None]) -> VocSection | None:
    """Tables of the scores after fine-tuning.

    Parameters
    ----------
    summaries : mapping of str to VocSummary or None
        Summary of each protocol; None if the protocol was not run.

    Returns
    -------
    VocSection or None
        None if no protocol has a score.
    """
    scores: dict[str, dict[str, float | None]] = {}
    classes, protocols = [], []
    for protocol in PROTOCOLS:
        summary = summaries.get(protocol)
        if summary is None or not summary.models:
            continue
        for name, row in summary.models.items():
            scores.setdefault(name, {})[_COLUMNS[protocol]] = row.score
        values = percentages({name: row.classes for name, row in summary.models.items()})
        if values:
            measure = summary.measure.removeprefix("mean ")
            classes.append(comparison(f"{protocol.capitalize()} by class, {measure} (%)", values))
        protocols.append(_facts(protocol, summary))
    table = percentages(scores)
    if not table:
        return None
    return VocSection(
        table=comparison("This run, its own data (%)", table),
        published=_published(),
        classes=classes,
        protocols=protocols,
    )


def _facts(protocol: str, summary: VocSummary) -> list[tuple[str, str]]:
    """Measure, images, steps and options of a protocol; all models have the same options."""
    row = next(iter(summary.models.values()))
    return [
        (f"{protocol}:", summary.measure),
        *((f"{name} images", amount(n)) for name, n in summary.images.items()),
        ("steps", amount(row.steps)),
        *(
            (str(key), ", ".join(map(str, value)) if isinstance(value, list) else str(value))
            for key, value in row.protocol.items()
        ),
    ]


def _published() -> Table:
    columns = ["class.", "det.", "det. MS", "seg."]
    models = {
        ("Jigsaw++", True, "VGG-16"): "transfer",
        ("Jigsaw++", False, "AlexNet"): "pretext",
        ("ImageNet labels", False, "AlexNet"): "labels",
        ("random", False, "AlexNet"): "random",
    }
    rows = []
    for row in paper.VOC:
        name = f"{row.name}, clusters of {row.pretext_network}" if row.clustered else row.name
        figures = (
            row.classification,
            row.detection_single_scale,
            row.detection_multi_scale,
            row.segmentation,
        )
        cells = [Cell(figure[0] if figure else None, best=False) for figure in figures]
        model = models.get((row.name, row.clustered, row.pretext_network), "")
        rows.append(Row(MODEL_NAMES.get(name, name), model, cells))
    return Table("Published, AlexNet on VOC2007 and VOC2012 (%)", columns, rows)
