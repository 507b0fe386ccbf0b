"""The report's tables of PASCAL VOC: this run's models by protocol, and the published rows."""

from collections.abc import Mapping
from typing import Any

from ktfast.evaluation import paper
from ktfast.report.probes import Cell, Row, Table, comparison, percentages
from ktfast.report.words import MODEL_NAMES, amount, number

PROTOCOLS = ("classification", "detection", "segmentation")
_COLUMNS = {
    "classification": "class. mAP",
    "detection": "det. mAP",
    "segmentation": "seg. mIoU",
}


def voc_section(summaries: Mapping[str, dict[str, Any] | None]) -> dict[str, Any] | None:
    """Tables of what fine-tuning reached.

    Parameters
    ----------
    summaries : of each protocol's stage, or None where it was not run; scores as fractions.

    Returns
    -------
    {"table", "published", "classes", "protocols"}, or None if no protocol has a score.
    """
    scores: dict[str, dict[str, Any]] = {}
    classes, protocols = [], []
    for protocol in PROTOCOLS:
        summary = summaries.get(protocol) or {}
        models = summary.get("models")
        rows = (
            {k: v for k, v in models.items() if isinstance(v, dict)}
            if isinstance(models, dict)
            else {}
        )
        for name, row in rows.items():
            scores.setdefault(name, {})[_COLUMNS[protocol]] = row.get("score")
        values = percentages({name: row.get("classes") for name, row in rows.items()})
        if values:
            measure = str(summary.get("measure", "")).removeprefix("mean ")
            classes.append(comparison(f"{protocol.capitalize()} by class, {measure} (%)", values))
        facts = _facts(protocol, summary, rows)
        protocols += [facts] if facts else []
    table = percentages(scores)
    if not table:
        return None
    return {
        "table": comparison("This run, its own data (%)", table),
        "published": _published(),
        "classes": classes,
        "protocols": protocols,
    }


def _facts(
    protocol: str, summary: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]]
) -> list[tuple[str, str]]:
    """What a protocol's figures are of."""
    if not rows:
        return []
    row = next(iter(rows.values()))
    images, options = summary.get("images"), row.get("protocol")
    facts = [(f"{protocol}:", str(summary.get("measure", "")))]
    if isinstance(images, dict):
        facts += [(f"{name} images", amount(images.get(name))) for name in ("train", "test")]
    facts.append(("steps", amount(row.get("steps"))))
    if isinstance(options, dict):
        facts += [
            (str(key), ", ".join(map(str, value)) if isinstance(value, list) else str(value))
            for key, value in options.items()
        ]
    return facts


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
        cells = [Cell(number(figure[0]) if figure else None, False) for figure in figures]
        model = models.get((row.name, row.clustered, row.pretext_network), "")
        rows.append(Row(MODEL_NAMES.get(name, name), model, cells))
    return Table("Published, AlexNet on VOC2007 and VOC2012 (%)", columns, rows)
