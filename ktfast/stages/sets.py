"""The prepared image sets of a run, by role, and the feeds over them."""

import os
from pathlib import Path

from ktfast.config import Config
from ktfast.data.feed import Feed, make_feed
from ktfast.data.source import PreparedSet
from ktfast.errors import ConfigError
from ktfast.stages.artifacts import Run, resolve_device


def set_names(config: Config) -> dict[str, str]:
    """Name of the set behind each role; roles with the same folder share the first one's."""
    names: dict[str, str] = {}
    first: dict[Path, str] = {}
    for role, folder in config.data.folders().items():
        names[role] = first.setdefault(Path(os.path.realpath(folder)), role)
    return names


def set_name(run: Run, role: str) -> str:
    """Name of the set behind a role; `ConfigError` if the run has no images for it."""
    names = set_names(run.config)
    if role not in names:
        raise ConfigError(f"data.{role} is not set: give a folder of images")
    return names[role]


def set_fingerprint(run: Run, role: str) -> str:
    """Fingerprint of the prepared images behind a role."""
    return str(run.result(f"prepare/{set_name(run, role)}")["fingerprint"])


def open_set(run: Run, role: str) -> PreparedSet:
    """The prepared images behind a role."""
    name = set_name(run, role)
    run.result(f"prepare/{name}")
    return PreparedSet.open(run.stage(f"prepare/{name}"))


def open_feed(
    run: Run,
    source: PreparedSet,
    *,
    size: int,
    batch_size: int,
    shuffle: bool,
    drop_last: bool = False,
) -> Feed:
    """A feed of centre crops [B, size, size, 3] of a prepared set, as the run is configured."""
    config = run.config
    return make_feed(
        source,
        kind=config.data.feed,
        size=size,
        short_side=config.data.short_side,
        batch_size=batch_size,
        shuffle=shuffle,
        drop_last=drop_last,
        seed=config.seed,
        device=resolve_device(config.device),
        n_threads=config.threads or None,
        memory_budget=int(config.data.memory_budget_gb * 1e9),
    )
