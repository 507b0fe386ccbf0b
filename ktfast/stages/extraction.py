"""Build the configured teacher and write the features of a set of images."""

import time
from pathlib import Path

import torch

from ktfast.config import Config
from ktfast.data.feature_store import FeatureStore, FeatureWriter
from ktfast.errors import ConfigError
from ktfast.stages.artifacts import Outcome, Run, resolve_device
from ktfast.stages.networks import load_all, pretext_trunk
from ktfast.stages.sets import open_feed, open_set, progress_log
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


def check_source(config: Config) -> None:
    """Refuse a `features.source` that names nothing."""
    source = config.features.source
    if source not in ("pretext", "hog") and not all(source.partition(":")):
        raise ConfigError(
            f"features.source {source!r} is unknown; expected pretext, hog, torchvision:MODEL or "
            "MODULE:CALLABLE"
        )


def build_teacher(run: Run) -> Teacher:
    """The teacher that `features.source` names."""
    config, device = run.config.features, resolve_device(run.config.device)
    check_source(run.config)
    if config.source == "pretext":
        trunk = pretext_trunk(run.config.pretext)
        load_all(trunk, config.weights or run.stage("pretext") / "weights.safetensors")
        return trunk_teacher(
            trunk.to(device).to(memory_format=torch.channels_last),
            config.layer or trunk.layers[-1],
            pool=config.pool,
            pooling=config.pooling,
        )
    if config.source == "hog":
        return hog_teacher(n_threads=run.config.threads or None)
    if config.source.startswith("torchvision:"):
        return torchvision_teacher(config.source.partition(":")[2], config.weights, device)
    return callable_teacher(config.source)


def extract(run: Run, role: str, folder: Path, teacher: Teacher | None = None) -> Outcome:
    """Write the features of a role's images to `folder`, continuing what is there."""
    config = run.config.features
    teacher = teacher or build_teacher(run)
    meta = {"source": config.source, "layer": config.layer, "pool": config.pool}
    clock, done, progress = time.monotonic(), 0, progress_log(f"features of {role}")
    with open_feed(
        run,
        open_set(run, role),
        size=feature_crop(run.config),
        batch_size=config.batch_size,
        shuffle=False,
    ) as feed:
        first = next(iter(feed.epoch(0)))
        dim = teacher(first.images).shape[1]
        writer = FeatureWriter.resume(folder, dim=dim, dtype=config.dtype, meta=meta)
        for batch in feed.epoch(0, writer.rows_done // config.batch_size):
            features = teacher(batch.images)
            writer.append(features.cpu().numpy(), batch.sample_ids.cpu().numpy(), batch.rows.cpu())
            done += len(features)
            progress(int(batch.rows[-1]) + 1, feed.n)
        writer.close()
    store = FeatureStore.open(folder)
    return Outcome(
        fingerprint=store.fingerprint,
        outputs={"manifest": "manifest.json"},
        summary={"rows": store.n, "dim": store.dim, "dtype": config.dtype, "source": config.source},
        throughput=("images/s", done / max(time.monotonic() - clock, 1e-9)),
    )
