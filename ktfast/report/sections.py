"""The sections of the report, as plain values for the template; one function a section."""

import json
from typing import Any

import numpy as np
from markupsafe import Markup

from ktfast.errors import DataError
from ktfast.report import pictures, plots
from ktfast.report.reading import RunReader
from ktfast.report.words import MODEL_NAMES, amount, duration, moment, number, percent, verdict

PUZZLES_SHOWN = 6
SKIPPED_SHOWN = 50
_TRAININGS = {
    "pretext": "Puzzle (pretext)",
    "transfer": "Transfer (pseudo-labels)",
    "baseline_pretext": "Baseline: puzzle with the target network",
    "baseline_labels": "Baseline: true labels",
}
_PIPELINE = ("prepare", "pretext", "features", "cluster", "transfer", "evaluate")


def result_section(run: RunReader) -> dict[str, Any]:
    """The verdict and the figures at the top of the page."""
    evaluation, cluster = run.summary("evaluate"), _cluster_summary(run)
    pretext, test = run.summary("pretext"), run.summary("prepare/test")
    n_test = number((evaluation or {}).get("n_test")) or number((test or {}).get("images"))
    seconds = [number((run.result(stage) or {}).get("seconds")) for stage in run.stages()]
    known = [value for value in seconds if value is not None]
    figures = []
    for key, title in (("linear", "Linear probe"), ("knn", "Nearest neighbours")):
        table = (evaluation or {}).get(key)
        rows = table if isinstance(table, dict) else {}
        best = {model: _best(row) for model, row in rows.items()}
        random = best.get("random")
        beside = f"random weights {percent(random)}" if random is not None else "not run"
        figures.append((title, percent(best.get("transfer")), beside))
    puzzle, groups = pretext or {}, cluster or {}
    chance = f"chance {percent(puzzle.get('chance'), 2)}" if pretext else "not run"
    figures.append(("Puzzles solved", percent(puzzle.get("accuracy")), chance))
    untrained = number(groups.get("nmi_random"))
    beside = "not run" if cluster is None else f"{amount(groups.get('used'))} clusters used"
    if untrained is not None:
        beside = f"untrained network {untrained:.3f}"
    nmi = number(groups.get("nmi"))
    figures.append(("Mutual information", "–" if nmi is None else f"{nmi:.3f}", beside))
    finished = f"{len(known)} stages" if len(known) != 1 else "1 stage"
    figures.append(("Time", duration(sum(known)) if known else "–", finished))
    return {"verdict": verdict(evaluation, cluster, pretext, n_test), "figures": figures}


def _best(row: Any) -> float | None:
    values = [number(value) for value in row.values()] if isinstance(row, dict) else []
    return max((value for value in values if value is not None), default=None)


def _cluster_summary(run: RunReader) -> dict[str, Any] | None:
    """The cluster stage's summary, with the untrained network's scores from the evaluation."""
    summary = run.summary("cluster")
    random = (run.summary("evaluate") or {}).get("random_clusters")
    if summary is None or not isinstance(random, dict):
        return summary
    return {**{f"{key}_random": value for key, value in random.items()}, **summary}


def puzzles_section(run: RunReader) -> dict[str, Any]:
    """Examples of puzzles, with the pretext summary."""
    arrays = run.arrays("pretext/examples.npz", pictures.PUZZLE_ARRAYS)
    examples: list[pictures.Puzzle] = []
    if arrays is not None:
        try:
            examples = pictures.puzzles(arrays, PUZZLES_SHOWN)
        except DataError as error:
            run.notes.append(f"{error}.")
    return {"summary": run.summary("pretext"), "examples": examples}


def clusters_section(run: RunReader) -> dict[str, Any]:
    """Scores, sizes, convergence and pictures of the clusters."""
    summary = _cluster_summary(run)
    labels = run.arrays("cluster/labels.npz", {"sample_ids": 1, "labels": 1})
    sizes = np.zeros(0, np.int64)
    if labels is not None and len(labels["labels"]) and labels["labels"].min() >= 0:
        n_clusters = number((summary or {}).get("n_clusters")) or 0
        sizes = np.bincount(labels["labels"].astype(np.int64), minlength=int(n_clusters))
    shown: list[pictures.Montage] = []
    arrays = run.arrays("cluster/montage.npz", pictures.MONTAGE_ARRAYS)
    if arrays is not None:
        try:
            shown = pictures.montages(arrays)
        except DataError as error:
            run.notes.append(f"{error}.")
    drawn = plots.cluster_plots(sizes, run.json_list("cluster/history.json"))
    return {
        "summary": summary,
        # matplotlib escapes the text it writes into an SVG.
        "plots": [Markup(plot) for plot in drawn],
        "montages": shown,
        "columns": max((len(montage.images) for montage in shown), default=1),
    }


def trainings_section(run: RunReader) -> list[dict[str, Any]]:
    """Curves and throughput of each training in `metrics.jsonl`."""
    trainings = []
    for stage, rows in run.metrics().items():
        summary = run.summary(stage) or {}
        drawn = plots.training_curves(rows, chance=number(summary.get("chance")), name=stage)
        rates = [number(row.get("images_per_second")) for row in rows]
        known = [rate for rate in rates if rate is not None]
        waits = [number(row.get("loader_wait")) for row in rows]
        waited = [wait for wait in waits if wait is not None]
        trainings.append(
            {
                "title": _training_title(stage),
                "plots": [Markup(plot) for plot in drawn],
                "steps": rows[-1].get("step"),
                "epochs": rows[-1].get("epoch"),
                "images_per_second": float(np.median(known)) if known else None,
                "wait": float(np.mean(waited)) if waited else None,
            }
        )
    return trainings


def _training_title(stage: str) -> str:
    kind, _, rest = stage.partition("_")
    if kind == "retrain" and "_" in rest:
        model, _, layer = rest.partition("_")
        return f"All above {layer}, anew: {MODEL_NAMES.get(model, model)}"
    if kind == "voc" and "_" in rest:
        protocol, _, model = rest.partition("_")
        return f"PASCAL VOC, {protocol}: {MODEL_NAMES.get(model, model)}"
    return _TRAININGS.get(stage, stage)


def stages_section(run: RunReader) -> list[dict[str, Any]]:
    """Time and throughput of each stage in the order of the pipeline; also those not run."""
    rows = [_stage_row(stage, run.result(stage)) for stage in run.stages()]
    longest = max((row["seconds"] or 0 for row in rows), default=0) or 1
    for row in rows:
        row["share"] = round(100 * (row["seconds"] or 0) / longest, 2)
    for stage in _PIPELINE:
        if not any(row["name"].split("/")[0] == stage for row in rows):
            rows.append({**_stage_row(stage, None), "state": "not run", "share": 0})
    return sorted(rows, key=lambda row: _place(row["name"]))


def _place(stage: str) -> float:
    """Where a stage stands in the pipeline; baselines come before the evaluation, VOC after it."""
    kind = stage.split("/")[0]
    if kind == "voc":
        return len(_PIPELINE)
    return _PIPELINE.index(kind) if kind in _PIPELINE else _PIPELINE.index("evaluate") - 0.5


def _stage_row(stage: str, result: dict[str, Any] | None) -> dict[str, Any]:
    found = result or {}
    throughput = found.get("throughput")
    speed = throughput if isinstance(throughput, dict) else {}
    return {
        "name": stage,
        "started": moment(found.get("started")),
        "seconds": number(found.get("seconds")),
        "rate": amount(speed.get("value")),
        "unit": str(speed.get("unit", "")),
        "state": "done" if result else "begun, not finished",
    }


def images_section(run: RunReader) -> list[dict[str, Any]]:
    """Images used and left out, with the reasons, for each prepared set."""
    sets = []
    for stage in run.stages():
        summary = run.summary(stage) if stage.startswith("prepare/") else None
        if summary is None:
            continue
        listed = summary.get("skipped")
        skipped = [
            (str(row[0]), str(row[1]))
            for row in (listed if isinstance(listed, list) else [])
            if isinstance(row, list) and len(row) == 2
        ]
        sets.append(
            {
                "name": stage.removeprefix("prepare/"),
                "folder": str(summary.get("folder", "")),
                "images": summary.get("images"),
                "classes": summary.get("classes"),
                "n_skipped": len(skipped),
                "skipped": skipped[:SKIPPED_SHOWN],
            }
        )
    return sets


def environment_section(run: RunReader) -> list[tuple[str, str]]:
    """Name and value of everything the environment records, nested names joined."""
    rows: list[tuple[str, str]] = []
    for key, value in (run.environment() or {}).items():
        if isinstance(value, dict):
            rows += [(str(name), str(item)) for name, item in value.items()]
        else:
            rows.append((str(key), value if isinstance(value, str) else json.dumps(value)))
    return rows
