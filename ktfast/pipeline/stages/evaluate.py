"""Stage 6: probe the frozen layers of the target network and of baselines on the same images.

The baselines have the target's architecture: random weights, weights trained on the pretext task
itself (no clustering), and weights trained on the true labels. Without labelled images, the stage
does only what needs no labels (`ktfast.pipeline.steps.unlabelled_measures`).
"""

import logging
import shutil
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ktfast.durable import (
    describe_file,
    is_whole,
    part,
    read_sealed,
    replacing,
    sha256_json,
    write_sealed,
)
from ktfast.errors import shown
from ktfast.evaluation.headline import Headline
from ktfast.evaluation.results import (
    ByModel,
    ClusterQuality,
    EvaluationSummary,
    LowLabelRegime,
    ProbeRow,
    RetrainedScores,
    Retraining,
)
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.shared_results import shared_entry
from ktfast.pipeline.stage_result import Outcome, complete_stage, stored_row
from ktfast.pipeline.steps.baselines import train_baseline
from ktfast.pipeline.steps.fit_clusters import clustering_quality
from ktfast.pipeline.steps.image_sets import open_set
from ktfast.pipeline.steps.pretext_tasks import check_task_trust
from ktfast.pipeline.steps.probe_layers import probe_model
from ktfast.pipeline.steps.questions import (
    evaluate_question,
    probe_question,
    rates_untrained_clusters,
)
from ktfast.pipeline.steps.retrain_layers import retrain_above
from ktfast.pipeline.steps.unlabelled_measures import measure_unlabelled
from ktfast.pipeline.steps.untrained_clusters import untrained_clusters

logger = logging.getLogger(__name__)


def execute(run: RunFolder, *, redo: bool = False) -> dict[str, Any]:
    """Train the configured baselines, then probe every model layer by layer."""
    config = run.config
    run.result("transfer")
    if config.evaluate.unlabelled or config.data.test is None:
        measured = measure_unlabelled(run, redo=redo)
        if config.data.test is None:
            return measured
    for name in config.evaluate.baselines:
        if name != "random":
            train_baseline(run, name)
    return complete_stage(
        run,
        "evaluate",
        evaluate_question(run),
        partial(_evaluate, run),
        redo=redo,
    )


def _evaluate(run: RunFolder, folder: Path) -> Outcome:
    config = run.config
    names = ("transfer", *config.evaluate.baselines)
    rows = {name: _probe(run, folder, name) for name in names}
    untrained = rates_untrained_clusters(config)
    summary = EvaluationSummary(
        metric="mean per-class accuracy",
        models=list(names),
        linear={name: row.linear for name, row in rows.items()},
        knn={name: row.knn for name, row in rows.items()},
        linear_top1={name: row.linear_top1 for name, row in rows.items()},
        low_label=_low_label(rows),
        protocol=rows["transfer"].protocol,
        retraining=_retrain(run, folder, names) if config.evaluate.retrain else None,
        random_clusters=_random_clusters(run, folder) if untrained else None,
        headline=_headline(config.evaluate.headline, rows),
        linear_held_out={name: row.linear_held_out for name, row in rows.items()},
        knn_held_out={name: row.knn_held_out for name, row in rows.items()},
    ).to_json()
    return Outcome(
        fingerprint=sha256_json(summary),
        outputs={
            "probes": "probe-*.json",
            "predictions": "predictions-*.npz",
            "retrained": "retrained-*.json",
        },
        summary=summary,
    )


def _probe(run: RunFolder, folder: Path, name: str) -> ProbeRow:
    """Probe a model, or read its accuracies if an interrupted call has stored them."""
    path, predictions = folder / f"probe-{name}.json", folder / f"predictions-{name}.npz"
    stored = stored_row(path)
    # A row of an earlier version has no predictions, which comparisons of runs need.
    if stored is not None and "predictions" in stored:
        if is_whole(folder, stored["predictions"], hashed=True):
            return ProbeRow.from_json(stored)
        logger.warning("%s is damaged or missing, and is made again", shown(predictions))
    asked = probe_question(run, name) if name != "transfer" else None
    anew = not run.redone.isdisjoint({"evaluate", f"baseline_{name}"})
    shared = shared_entry(run, "probe", asked, anew=anew)
    with nullcontext() if asked is None else shared as entry:
        if entry is not None and entry.take(folder) is not None:
            logger.info("evaluate: the probes of %s are taken from %s", name, shown(entry.place))
            return ProbeRow.from_json(read_sealed(path, "run ktfast evaluate again"))
        logger.info("evaluate: probing %s", name)
        probed = probe_model(run, name)
        with replacing(predictions) as file:
            np.savez_compressed(file, **probed.predictions)  # type: ignore[arg-type]
        write_sealed(path, {**probed.row.to_json(), "predictions": part(predictions)})
        if entry is not None:
            files = {found.name: describe_file(found) for found in (path, predictions)}
            entry.keep(folder, {"files": files})
        return probed.row


def _retrain(run: RunFolder, folder: Path, names: tuple[str, ...]) -> Retraining:
    """Train the layers above each configured layer of every model anew, and test them."""
    mean_per_class: ByModel = {name: {} for name in names}
    top1: ByModel = {name: {} for name in names}
    protocols = []
    for name in names:
        for layer in run.config.evaluate.retrain:
            scores = _retrain_above(run, folder, name, layer)
            mean_per_class[name][layer], top1[name][layer] = scores.mean_per_class, scores.top1
            protocols.append(scores.protocol)
            accuracy = 100 * scores.mean_per_class
            logger.info("evaluate: %s above %s %.1f %%", name, layer, accuracy)
    return Retraining(mean_per_class, top1, protocols[0])


def _retrain_above(run: RunFolder, folder: Path, name: str, layer: str) -> RetrainedScores:
    """Retrain one model above one layer, or read the scores that an interrupted call has stored."""
    path = folder / f"retrained-{name}-{layer}.json"
    checkpoints = folder / f"retraining-{name}-{layer}"
    stored = stored_row(path)
    if stored is None:
        logger.info("evaluate: training %s above %s", name, layer)
        stored = retrain_above(run, name, layer, checkpoints).to_json()
        write_sealed(path, stored)
    if checkpoints.exists():
        shutil.rmtree(checkpoints)
    return RetrainedScores.from_json(stored)


def _low_label(rows: dict[str, ProbeRow]) -> list[LowLabelRegime]:
    """Group the low-label probes of all models by fraction. All models saw the same images."""
    regimes = []
    for i, regime in enumerate(rows["transfer"].low_label):
        linear = {name: row.low_label[i].linear for name, row in rows.items()}
        regimes.append(LowLabelRegime(regime.fraction, linear, regime.images, regime.protocol))
    return regimes


def _headline(option: str, rows: dict[str, ProbeRow]) -> Headline | None:
    """Give the comparison that the option settled; None without the option."""
    if not option:
        return None
    measure, _, layer = option.partition(":")
    return Headline(measure, layer, {name: row.headline for name, row in rows.items()})


def _random_clusters(run: RunFolder, folder: Path) -> ClusterQuality:
    """Rate the clusters of an untrained network's features."""
    check_task_trust(run)
    (labels,) = untrained_clusters(run, folder, [run.config.seed])
    return ClusterQuality.from_json(clustering_quality(open_set(run, "transfer"), labels))
