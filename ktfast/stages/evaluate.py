"""Stage 6: probes on the frozen layers of the target, beside baselines on the same images.

The baselines share the target's architecture: random weights, the same network trained on the
puzzle itself (no clustering), and trained on the true labels.
"""

import logging
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ktfast.augment import center_crop, normalize_images
from ktfast.data.feature_store import FeatureStore
from ktfast.durable import read_json, sha256_file, sha256_json, write_json
from ktfast.errors import ConfigError
from ktfast.evaluation.knn import knn_accuracy
from ktfast.evaluation.linear import linear_probe
from ktfast.evaluation.pooling import conv_features
from ktfast.models import Trunk, initialize, load_weights
from ktfast.stages.artifacts import Outcome, Run, resolve_device, run_stage
from ktfast.stages.clustering import align_labels, clustering_quality, fit_clusters
from ktfast.stages.extraction import extract
from ktfast.stages.networks import (
    pretext_trunk,
    target_network,
    train_classifier,
    train_jigsaw,
)
from ktfast.stages.sets import open_feed, open_set, set_fingerprint
from ktfast.teachers import trunk_teacher

logger = logging.getLogger(__name__)


def run(run: Run, *, redo: bool = False) -> dict[str, Any]:
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
            inputs[name] = str(_train_baseline(run, name, redo)["fingerprint"])
    return run_stage(
        run,
        "evaluate",
        {"seed": config.seed, **config.evaluate.model_dump(mode="json")},
        inputs,
        partial(_evaluate, run),
        redo=redo,
    )


def _train_baseline(run: Run, name: str, redo: bool) -> dict[str, Any]:
    config = run.config
    target = config.transfer.model_dump(mode="json")
    if name == "pretext":
        if config.transfer.target != "alexnet":
            raise ConfigError(
                "evaluate.baselines: 'pretext' trains an AlexNet on the puzzle, but "
                f"transfer.target is {config.transfer.target!r}; leave it out"
            )
        settings = {"pretext": config.pretext.model_dump(mode="json"), "target": target}
        inputs = {"images": set_fingerprint(run, "pretext")}
    else:
        settings = {"target": target}
        inputs = {"images": set_fingerprint(run, "train")}
    return run_stage(
        run,
        f"baseline_{name}",
        {"seed": config.seed, **settings},
        inputs,
        partial(_fit_baseline, run, name),
        redo=redo,
    )


def _fit_baseline(run: Run, name: str, folder: Path) -> Outcome:
    if name == "pretext":
        trained = train_jigsaw(
            run, folder, trunk="alexnet", name="baseline_pretext", held_out=open_set(run, "test")
        )
    else:
        images = open_set(run, "train")
        trained = train_classifier(
            run,
            folder,
            images,
            images.labels,
            n_classes=len(images.classes),
            name="baseline_labels",
        )
    return Outcome(
        fingerprint=sha256_file(folder / "weights.safetensors"),
        outputs={"weights": "weights.safetensors"},
        summary={**trained.metrics, "steps": trained.summary.steps},
        throughput=("images/s", trained.summary.images_per_second),
        seconds=trained.summary.seconds,
    )


def _evaluate(run: Run, folder: Path) -> Outcome:
    names = ("transfer", *run.config.evaluate.baselines)
    rows = {}
    for name in names:
        # Each model's row is kept as soon as it is known, so that an interrupted call loses none.
        path = folder / f"probe-{name}.json"
        if not path.is_file():
            logger.info("evaluate: probing %s", name)
            write_json(path, _probe(run, name))
        rows[name] = read_json(path)
    summary: dict[str, Any] = {
        "metric": "mean per-class accuracy",
        "models": list(names),
        "linear": {name: row["linear"] for name, row in rows.items()},
        "knn": {name: row["knn"] for name, row in rows.items()},
        "linear_top1": {name: row["linear_top1"] for name, row in rows.items()},
        "protocol": next(iter(rows.values()))["protocol"],
    }
    if run.config.evaluate.random_clusters and run.config.features.source == "pretext":
        summary["random_clusters"] = _random_clusters(run, folder)
    return Outcome(
        fingerprint=sha256_json(summary), outputs={"probes": "probe-*.json"}, summary=summary
    )


def _probe(run: Run, name: str) -> dict[str, Any]:
    """Probe every asked layer of one model; accuracies in [0, 1] by layer."""
    config = run.config.evaluate
    model, normalization = _load_model(run, name)
    layers = config.layers or tuple(key for key in model.layers if key.startswith("conv"))
    features, labels = {}, {}
    classes = open_set(run, "train").classes
    for role in ("train", "test"):
        images = open_set(run, role)
        feed = open_feed(
            run, images, size=run.config.transfer.image_size, batch_size=256, shuffle=False
        )

        def prepare(batch: Tensor) -> Tensor:
            return normalize_images(center_crop(batch, run.config.transfer.crop), normalization)

        features[role] = conv_features(model, feed, layers, prepare=prepare, dtype="float16")
        feed.close()
        translate = np.array([classes.index(key) for key in images.classes])
        labels[role] = translate[images.labels]
    row: dict[str, Any] = {"linear": {}, "linear_top1": {}, "knn": {}}
    for layer in layers:
        data = (features["train"][layer], labels["train"], features["test"][layer], labels["test"])
        probe = linear_probe(
            *data, n_classes=len(classes), epochs=config.probe_epochs, seed=run.config.seed
        )
        row["linear"][layer] = probe.mean_per_class
        row["linear_top1"][layer] = probe.top1
        row["knn"][layer] = knn_accuracy(*data, k=config.neighbors).mean_per_class
        row["protocol"] = probe.protocol
        logger.info(
            "evaluate: %s %s linear %.1f %%, k-NN %.1f %%",
            name,
            layer,
            100 * probe.mean_per_class,
            100 * row["knn"][layer],
        )
    return row


def _load_model(run: Run, name: str) -> tuple[Trunk, Literal["image", "imagenet"]]:
    """A model with its weights, and how the images it saw were normalised."""
    torch.manual_seed(run.config.seed)
    model = target_network(run.config.transfer, 0)
    if name != "random":
        stage = name if name == "transfer" else f"baseline_{name}"
        load_weights(model, run.stage(stage) / "weights.safetensors")
    device = resolve_device(run.config.device)
    return model.to(device).eval(), "image" if name == "pretext" else "imagenet"


def _random_clusters(run: Run, folder: Path) -> dict[str, float]:
    """Cluster the features of the untrained pretext trunk in the same way."""
    torch.manual_seed(run.config.seed)
    trunk = pretext_trunk(run, run.config.pretext.trunk)
    initialize(trunk)
    trunk.to(resolve_device(run.config.device))
    config = run.config.features
    layer = config.layer or trunk.layers[-1]
    teacher = trunk_teacher(trunk, layer, pool=config.pool, pooling=config.pooling)
    extract(run, "train", folder / "random_features", teacher)
    store = FeatureStore.open(folder / "random_features")
    _, kmeans, _ = fit_clusters(run, store, folder)
    images = open_set(run, "train")
    return clustering_quality(images, align_labels(kmeans.labels_, store, images))
