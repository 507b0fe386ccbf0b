"""Stage 6: probes on the frozen layers of the target, beside baselines on the same images.

The baselines share the target's architecture: random weights, the same network trained on the
puzzle itself (no clustering), and trained on the true labels.
"""

import logging
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ktfast.durable import read_json, sha256_json, write_json
from ktfast.errors import ConfigError
from ktfast.features.teachers import trunk_teacher
from ktfast.models import initialize
from ktfast.pipeline.environment import resolve_device
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.stage_result import Outcome, complete_stage
from ktfast.pipeline.steps.baselines import train_baseline
from ktfast.pipeline.steps.extract_features import extract
from ktfast.pipeline.steps.fit_clusters import cluster_images, clustering_quality
from ktfast.pipeline.steps.image_sets import open_set, set_fingerprint, set_name
from ktfast.pipeline.steps.networks import pretext_trunk
from ktfast.pipeline.steps.probe_layers import probe_model
from ktfast.pipeline.steps.retrain_layers import retrain_above

logger = logging.getLogger(__name__)


def execute(run: RunFolder, *, redo: bool = False) -> dict[str, Any]:
    """Train the baselines that are asked for, then probe every model layer by layer."""
    config = run.config
    if "test" not in config.data.folders():
        raise ConfigError("data.test is not set: give labelled images that probes are tested on")
    inputs = {
        "train": set_fingerprint(run, "train"),
        "test": set_fingerprint(run, "test"),
        "transfer": str(run.result("transfer")["fingerprint"]),
    }
    for name in config.evaluate.baselines:
        if name != "random":
            inputs[name] = str(train_baseline(run, name)["fingerprint"])
    return complete_stage(
        run,
        "evaluate",
        {"seed": config.seed, **config.evaluate.model_dump(mode="json")},
        inputs,
        partial(_evaluate, run),
        redo=redo,
    )


def _evaluate(run: RunFolder, folder: Path) -> Outcome:
    names = ("transfer", *run.config.evaluate.baselines)
    rows = {}
    for name in names:
        # Each model's row is kept as soon as it is known, so that an interrupted call loses none.
        path = folder / f"probe-{name}.json"
        if not path.is_file():
            logger.info("evaluate: probing %s", name)
            write_json(path, probe_model(run, name))
        rows[name] = read_json(path)
    summary: dict[str, Any] = {
        "metric": "mean per-class accuracy",
        "models": list(names),
        "linear": {name: row["linear"] for name, row in rows.items()},
        "knn": {name: row["knn"] for name, row in rows.items()},
        "linear_top1": {name: row["linear_top1"] for name, row in rows.items()},
        "low_label": _low_label(rows),
        "protocol": next(iter(rows.values()))["protocol"],
    }
    config = run.config
    if config.evaluate.retrain:
        summary |= _retrain(run, folder, names)
    of_puzzle = config.features.source == "pretext" and config.cluster.features is None
    if config.evaluate.random_clusters and of_puzzle:
        summary["random_clusters"] = _random_clusters(run, folder)
    return Outcome(
        fingerprint=sha256_json(summary),
        outputs={"probes": "probe-*.json", "retrained": "retrained-*.json"},
        summary=summary,
    )


def _retrain(run: RunFolder, folder: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """Accuracies of every model with the layers above each asked one trained anew."""
    found: dict[str, dict[str, Any]] = {name: {} for name in names}
    for name in names:
        for layer in run.config.evaluate.retrain:
            path = folder / f"retrained-{name}-{layer}.json"
            checkpoints = folder / f"retraining-{name}-{layer}"
            if not path.is_file():
                logger.info("evaluate: training %s above %s", name, layer)
                write_json(path, retrain_above(run, name, layer, checkpoints))
            if checkpoints.exists():
                shutil.rmtree(checkpoints)
            found[name][layer] = read_json(path)
            accuracy = 100 * found[name][layer]["mean_per_class"]
            logger.info("evaluate: %s above %s %.1f %%", name, layer, accuracy)

    def by_model(measure: str) -> dict[str, dict[str, float]]:
        return {
            name: {layer: scores[measure] for layer, scores in row.items()}
            for name, row in found.items()
        }

    return {
        "retrained": by_model("mean_per_class"),
        "retrained_top1": by_model("top1"),
        "retrained_protocol": next(iter(found[names[0]].values()))["protocol"],
    }


def _low_label(rows: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The regimes, each with the accuracies of all models, which saw the same images."""
    regimes = next(iter(rows.values()))["low_label"]
    return [
        {**regime, "linear": {name: row["low_label"][i]["linear"] for name, row in rows.items()}}
        for i, regime in enumerate(regimes)
    ]


def _random_clusters(run: RunFolder, folder: Path) -> dict[str, float]:
    """Quality of the clusters of an untrained trunk's features, made as those of the run."""
    images = open_set(run, "transfer")
    torch.manual_seed(run.config.seed)
    trunk = pretext_trunk(run.config.pretext)
    initialize(trunk)
    trunk.to(resolve_device(run.config.device))
    config = run.config.features
    layer = config.layer or trunk.layers[-1]
    teacher = trunk_teacher(trunk, layer, pool=config.pool, pooling=config.pooling)
    places = {
        role: folder / f"random_features-{set_name(run, role)}" for role in ("cluster", "transfer")
    }
    for place, role in {place: role for role, place in places.items()}.items():
        extract(run, role, place, fitted=places["cluster"], teacher=teacher)
    clusters = cluster_images(run, places["cluster"], places["transfer"], images, folder)
    for place in set(places.values()):
        shutil.rmtree(place)
    return clustering_quality(images, clusters.labels)
