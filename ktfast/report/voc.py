"""The report's section on PASCAL VOC: tables of this run's models, and published results."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ktfast.evaluation import paper
from ktfast.evaluation.voc_results import VocRow, VocSummary
from ktfast.report.formats import MODEL_NAMES, amount
from ktfast.report.probes import Cell, Row, Table, comparison, percentages
from ktfast.report.published import Published, voc_notes

PROTOCOLS = ("classification", "detection", "segmentation", "svm")
_COLUMNS = {
    "classification": "class. mAP, 11 points",
    "detection": "det. mAP, 11 points",
    "segmentation": "seg. mIoU",
    "svm": "SVM mAP, 11 points",
}
TESTS = {"single": "single scale", "multi": "multi-scale", "training": "scales of the training"}
"""Printed names of the scales at which a detector is tested."""
# The key under which the mean of the other average precision is stored, and its column.
_AREA = "mean_area"
_AREA_COLUMNS = {"classification": "class. mAP, area", "svm": "SVM mAP, area"}
_MEASURES = (
    "11 points: mean precision at 11 recalls, the measure of VOC2007. Area: scikit-learn's average "
    "precision, as in the code of Krähenbühl et al. (2016). Which of the two the published "
    "classification results are is unknown."
)


@dataclass(frozen=True)
class VocSection:
    """What the section on PASCAL VOC shows.

    Attributes
    ----------
    table : Table
        Score of this run's models by protocol.
    low_shot : list of Table
        Score of this run's models by the number of photographs of each class, if it was measured.
    published : list of Table
        Published scores.
    classes : list of Table
        Score of this run's models by class, one table per protocol.
    protocols : list of list of pairs of str
        Name and value of each protocol's details.
    """

    table: Table
    low_shot: list[Table]
    published: list[Table]
    classes: list[Table]
    protocols: list[list[tuple[str, str]]]


def voc_section(
    summaries: Mapping[str, VocSummary | None],
    beside: Published,
    names: Mapping[str, str] = MODEL_NAMES,
) -> VocSection | None:
    """Tables of the scores after fine-tuning.

    Parameters
    ----------
    summaries : mapping of str to VocSummary or None
        Summary of each protocol; None if the protocol was not run.
    beside : Published
        The published counterparts of the run.
    names : mapping of str to str
        Printed names of the run's models.

    Returns
    -------
    VocSection or None
        None if no protocol has a score.
    """
    scores: dict[str, dict[str, float | None]] = {}
    classes, protocols, notes = [], [], []
    for protocol in PROTOCOLS:
        summary = summaries.get(protocol)
        if summary is None or not summary.models:
            continue
        for name, row in summary.models.items():
            own = scores.setdefault(name, {})
            own[_column(protocol, row)] = row.score
            own |= {_column(protocol, test): test.score for test in row.tests.values()}
            if protocol in _AREA_COLUMNS and row.more.get(_AREA) is not None:
                own[_AREA_COLUMNS[protocol]] = row.more[_AREA]
                notes = [_MEASURES]
        classes += _by_class(protocol, summary, names)
        for test in next(iter(summary.models.values())).tests:
            tested = {n: r.tests[test] for n, r in summary.models.items() if test in r.tests}
            of_test = replace(summary, models=tested)
            classes += _by_class(protocol, of_test, names)
            protocols.append(_facts(protocol, of_test))
        protocols.append(_facts(protocol, summary))
    table = percentages(scores)
    if not table:
        return None
    published = [_published(beside)]
    if summaries.get("classification"):
        published += _ablations(beside)
    return VocSection(
        table=comparison("This run, its own data (%)", table, notes=notes, names=names),
        low_shot=_low_shot(summaries.get("svm"), names),
        published=published,
        classes=classes,
        protocols=protocols,
    )


def _column(protocol: str, row: VocRow) -> str:
    """Name the column of a row's score; the scales of a test of detection are named too."""
    test = TESTS.get(str(row.protocol.get("test")))
    return f"{_COLUMNS[protocol]}, {test}" if test else _COLUMNS[protocol]


def _low_shot(summary: VocSummary | None, names: Mapping[str, str]) -> list[Table]:
    """Mean and spread over the samples of the training photographs, by photographs per class."""
    rows = {} if summary is None else {name: row.shots for name, row in summary.models.items()}
    known = {name: {k: s for k, s in row.items() if s} for name, row in rows.items()}
    means = {
        name: {k: statistics.fmean(samples) for k, samples in row.items()}
        for name, row in known.items()
    }
    spreads = {
        name: {k: 100 * statistics.stdev(s) for k, s in row.items() if len(s) > 1}
        for name, row in known.items()
    }
    if not (table := percentages(means)):
        return []
    title = "Support vector machines with few photographs of each class, mAP, 11 points (%)"
    notes = [
        "After ±: the standard deviation over the samples of the photographs. The cost is the best "
        "on the test photographs, as in the authors' code, so the values are somewhat too high."
    ]
    return [comparison(title, table, notes=notes, names=names, spreads=spreads)]


def _by_class(protocol: str, summary: VocSummary, names: Mapping[str, str]) -> list[Table]:
    """Scores of a protocol by class; for average precisions, both measures if both are stored."""
    measure = summary.measure.removeprefix("mean ")
    row = next(iter(summary.models.values()))
    test = TESTS.get(str(row.protocol.get("test")))
    title = f"{protocol.capitalize()}{f', {test},' if test else ''} by class"
    tables = {
        f"{title}, {measure} (%)": percentages({n: r.classes for n, r in summary.models.items()}),
        f"{title}, area under the precision-recall curve (%)": percentages(
            {name: row.areas for name, row in summary.models.items()}
        ),
    }
    return [comparison(title, rows, names=names) for title, rows in tables.items() if rows]


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


def _published(beside: Published) -> Table:
    columns = ["class.", "det.", "det. MS", "seg."]
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
        rows.append(Row(MODEL_NAMES.get(name, name), beside.voc_model_of(row), cells))
    title = "Published, AlexNet on VOC2007 and VOC2012 (%)"
    return Table(title, columns, rows, [beside.remark, *voc_notes()])


def _ablations(beside: Published) -> list[Table]:
    """Published effects of the number of clusters, and of the data sets, on classification."""
    values = [Cell(value, best=False) for value in paper.CLUSTERS_VOC07.values()]
    notes = [] if beside.clusters is None else [f"This run has {beside.clusters:,} clusters."]
    tables = [
        Table(
            "Published, VOC2007 classification by the number of clusters (mAP, %)",
            [f"{clusters:,}" for clusters in paper.CLUSTERS_VOC07],
            [Row("clusters of ImageNet", "", values)],
            notes,
        )
    ]
    if beside.other_transfer:
        rows = [
            Row(f"centres of {centers}, labels for {labels}", "", [Cell(value, best=False)])
            for centers, labels, value in paper.DATA_SETS_VOC07
        ]
        tables.append(
            Table(
                "Published, VOC2007 classification by the data sets of the clusters (mAP, %)",
                ["class."],
                rows,
                ["This run, too, clusters other images than it labels."],
            )
        )
    return tables
