"""Build the configured teacher and write the features of a set of images."""

import time
from pathlib import Path

import torch
from ktfast.data.feature_store import FeatureStore, FeatureWriter
from ktfast.models import load_weights

from ktfast.config import Config
from ktfast.errors import ConfigError
from ktfast.stages.artifacts import Outcome, Run, resolve_device
from ktfast.stages.networks import pretext_trunk
from ktfast.stages.sets import open_feed, open_set
from ktfast.teachers import (
    Teacher,
    callable_teacher,
    hog_teacher,
    torchvision_teacher,
    trunk_teacher,
)


def feature_crop(config: Config) -> int:
    """Side of the centre crop that is fed to the teacher, px."""
    return config.features.crop or config.pretext.crop


def default_layer(config: Config) -> str:
    """The last layer that the puzzle trained."""
    return "conv4_3" if config.pretext.trunk == "vgg16" else "conv5"


def build_teacher(run: Run) -> Teacher:
    """The teacher that `features.source` names."""
    config, device = run.config.features, resolve_device(run.config.device)
    if config.source == "pretext":
        trunk = pretext_trunk(run, run.config.pretext.trunk)
        load_weights(trunk, config.weights or run.stage("pretext") / "weights.safetensors")
        layer = config.layer or default_layer(run.config)
        return trunk_teacher(trunk.to(device), layer, pool=config.pool, pooling=config.pooling)
    if config.source == "hog":
        return hog_teacher(n_threads=run.config.threads or None)
    if config.source.startswith("torchvision:"):
        return torchvision_teacher(config.source.partition(":")[2], config.weights, device)
    if ":" in config.source:
        return callable_teacher(config.source)
    raise ConfigError(
        f"features.source {config.source!r} is unknown; expected pretext, hog, torchvision:MODEL "
        "or MODULE:CALLABLE"
    )


def extract(run: Run, role: str, folder: Path, teacher: Teacher | None = None) -> Outcome:
    """Write the features of a role's images to `folder`, continuing what is there."""
    folder.mkdir(exist_ok=True)
    config = run.config.features
    teacher = teacher or build_teacher(run)
    feed = open_feed(
        run,
        open_set(run, role),
        size=feature_crop(run.config),
        batch_size=config.batch_size,
        shuffle=False,
    )
    meta = {"source": config.source, "layer": config.layer, "pool": config.pool}
    clock = time.monotonic()
    done = 0
    writer: FeatureWriter | None = None
    with torch.inference_mode():
        for batch in feed.epoch(0):
            features = teacher(batch.images).cpu().numpy()
            if writer is None:
                writer = FeatureWriter(folder, dim=features.shape[1], dtype=config.dtype, meta=meta)
            writer.append(features, batch.sample_ids.cpu().numpy())
            done += len(features)
    feed.close()
    assert writer is not None
    writer.close()
    store = FeatureStore.open(folder)
    return Outcome(
        fingerprint=store.fingerprint,
        outputs={"manifest": "manifest.json"},
        summary={"rows": store.n, "dim": store.dim, "dtype": config.dtype, "source": config.source},
        throughput=("images/s", done / max(time.monotonic() - clock, 1e-9)),
    )
