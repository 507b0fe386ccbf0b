"""Stage 6: probe the frozen layers of the target network and of baselines on the same images.

The baselines have the target's architecture: random weights, weights trained on the pretext task
itself (no clustering), and weights trained on the true labels. Without labelled images, the stage
does only what needs no labels (`ktfast.pipeline.steps.unlabelled_measures`).
"""

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ktfast.durable import sha256_json, write_sealed
from ktfast.evaluation.headline import Headline
from ktfast.evaluation.results import (
    ClusterQuality,
    EvaluationSummary,
    LowLabelRegime,
    LowLabelRow,
    ProbeRow,
    VariantTable,
)
from ktfast.pipeline.jobs import spread, spread_trainings
from ktfast.pipeline.question import as_json
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.stage_result import Outcome, complete_stage, stored_row
from ktfast.pipeline.steps.baselines import train_baseline
from ktfast.pipeline.steps.begun_trainings import remove_trainings
from ktfast.pipeline.steps.copied_images import copied_images
from ktfast.pipeline.steps.fine_tune_shares import stored_fine_tuning
from ktfast.pipeline.steps.fit_clusters import clustering_quality
from ktfast.pipeline.steps.image_sets import open_set
from ktfast.pipeline.steps.labelled_sets import LabelledSet, labelled_sets
from ktfast.pipeline.steps.pretext_tasks import check_task_trust
from ktfast.pipeline.steps.probe_teacher import TEACHER
from ktfast.pipeline.steps.probe_variants import stored_variant
from ktfast.pipeline.steps.probed_models import own_models, stands_alone
from ktfast.pipeline.steps.questions import (
    evaluate_question,
    rates_untrained_clusters,
    untrained_question,
)
from ktfast.pipeline.steps.retrain_layers import stored_retraining
from ktfast.pipeline.steps.stored_probes import stored_probes, stored_teacher
from ktfast.pipeline.steps.unlabelled_measures import measure_unlabelled
from ktfast.pipeline.steps.untrained_clusters import untrained_clusters

logger = logging.getLogger(__name__)


def execute(run: RunFolder, *, redo: bool = False) -> dict[str, Any]:
    """Train the configured baselines, then probe every model layer by layer."""
    config = run.config
    if stands_alone(run):
        logger.info("evaluate: the run has no stage transfer; only evaluate.models are probed")
    else:
        run.result("transfer")
        if config.evaluate.unlabelled or config.data.test is None:
            measured = measure_unlabelled(run, redo=redo)
            if not labelled_sets(config):
                return measured
    for name in own_models(run):
        if name not in ("transfer", "random"):
            train_baseline(run, name)
    return complete_stage(
        run,
        "evaluate",
        evaluate_question(run),
        partial(_evaluate, run),
        redo=redo,
    )


def _evaluate(run: RunFolder, folder: Path) -> Outcome:
    config, names = run.config, own_models(run)
    probed = {images.name: _probe_all(run, folder, images) for images in labelled_sets(config)}
    own = probed.pop("", EvaluationSummary(models=[*names, *config.evaluate.models]))
    summary = replace(
        own,
        metric="mean per-class accuracy",
        random_clusters=_random_clusters(run, folder) if rates_untrained_clusters(run) else None,
        sets=probed,
    ).to_json()
    remove_trainings(folder)
    return Outcome(
        fingerprint=sha256_json(summary),
        outputs={
            "probes": "probe-*.json",
            "predictions": "predictions-*.npz",
            "retrained": "retrained-*.json",
            "variants": "protocol-*.json",
            "fine_tuned": "finetuned-*.json",
        },
        summary=summary,
    )


def _probe_all(run: RunFolder, folder: Path, images: LabelledSet) -> EvaluationSummary:
    """Probe every network on a labelled set."""
    config = run.config.evaluate
    names = (*own_models(run), *config.models)
    rows = {name: stored_probes(run, folder, name, images) for name in names}
    ceiling = None if images.name else stored_teacher(run, folder)
    if ceiling is not None:
        rows[TEACHER] = ceiling
    first = next(iter(rows.values()))
    return EvaluationSummary(
        metric="mean per-class accuracy",
        models=list(rows),
        linear={name: row.linear for name, row in rows.items()},
        knn={name: row.knn for name, row in rows.items()},
        linear_top1={name: row.linear_top1 for name, row in rows.items()},
        low_label=_low_label({name: rows[name].low_label for name in names}),
        protocol=first.protocol,
        headline=_headline(config.headline, rows) if not images.name else None,
        linear_held_out={name: row.linear_held_out for name, row in rows.items()},
        knn_held_out={name: row.knn_held_out for name, row in rows.items()},
        variants={
            variant: _variant(run, folder, variant, names, images) for variant in config.protocols
        },
        retraining=stored_retraining(run, folder, names, images) if config.retrain else None,
        fine_tuned=_fine_tuned(run, folder, names, images) if config.fine_tune else [],
        copies=copied_images(run, images),
    )


def _variant(
    run: RunFolder, folder: Path, variant: str, names: tuple[str, ...], images: LabelledSet
) -> VariantTable:
    """Probe every network by a named variant of the linear probe."""
    found = spread(run, stored_variant, [(folder, variant, name, images) for name in names])
    rows = dict(zip(names, found, strict=True))
    return VariantTable(
        {name: row.linear for name, row in rows.items()},
        {name: row.top1 for name, row in rows.items()},
        next(iter(rows.values())).protocol,
    )


def _fine_tuned(
    run: RunFolder, folder: Path, names: tuple[str, ...], images: LabelledSet
) -> list[LowLabelRegime]:
    """Train every network as a whole with each share of the labels."""
    found = spread_trainings(run, stored_fine_tuning, [(folder, name, images) for name in names])
    return _low_label(dict(zip(names, found, strict=True)))


def _low_label(rows: dict[str, list[LowLabelRow]]) -> list[LowLabelRegime]:
    """Group the results with few labels by share. All models saw the same images."""
    regimes = []
    for i, regime in enumerate(next(iter(rows.values()))):
        few = {name: row[i] for name, row in rows.items()}
        regimes.append(
            LowLabelRegime(
                regime.fraction,
                {name: row.linear for name, row in few.items()},
                regime.images,
                regime.protocol,
                regime.count,
                {name: row.draws for name, row in few.items() if row.draws},
            )
        )
    return regimes


def _headline(option: str, rows: dict[str, ProbeRow]) -> Headline | None:
    """Give the comparison that the option settled; None without the option."""
    if not option:
        return None
    measure, _, layer = option.partition(":")
    return Headline(measure, layer, {name: row.headline for name, row in rows.items()})


def _random_clusters(run: RunFolder, folder: Path) -> ClusterQuality:
    """Rate the clusters of an untrained network's features."""
    path = folder / "random-clusters.json"
    asked = as_json(untrained_question(run))
    stored = stored_row(path)
    if stored is None or stored.get("asked") != asked:
        check_task_trust(run)
        (labels,) = untrained_clusters(run, folder, [run.config.seed])
        stored = {**clustering_quality(open_set(run, "transfer"), labels), "asked": asked}
        write_sealed(path, stored)
    return ClusterQuality.from_json(stored)
