"""Open the prepared image sets of a run by role, and feeds over them, for every stage.

A role is the use that a run makes of an image folder: pretext, cluster, transfer, train or test.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ktfast.config import Config
from ktfast.errors import ConfigError
from ktfast.images.balance import Balance
from ktfast.images.feeds.base import Feed, Progress
from ktfast.images.feeds.make import make_feed
from ktfast.images.source import PreparedSet
from ktfast.pipeline.environment import resolve_device
from ktfast.pipeline.run_folder import RunFolder
from ktfast.training.live_line import LiveLine


def set_names(config: Config) -> dict[str, str]:
    """Name the image set of each role.

    Roles with the same folder share one set, which has the name of the first of these roles.
    """
    names: dict[str, str] = {}
    first: dict[Path, str] = {}
    for role, folder in config.folders().items():
        names[role] = first.setdefault(Path(os.path.realpath(folder)), role)
    return names


def set_name(run: RunFolder, role: str) -> str:
    """Name the image set of a role. A role without images raises `ConfigError`."""
    names = set_names(run.config)
    if role not in names:
        also = "" if role in ("pretext", "test") else ", and neither is data.pretext"
        raise ConfigError(f"data.{role} is not set{also}: give a folder of images")
    return names[role]


def is_prepared(run: RunFolder) -> bool:
    """Say whether the images of every role are prepared."""
    names = set_names(run.config).values()
    return all((run.stage(f"prepare/{name}") / "result.json").is_file() for name in names)


def open_set(run: RunFolder, role: str) -> PreparedSet:
    """Open the prepared images of a role, and verify them if this process has not done so yet."""
    name = set_name(run, role)
    run.result(f"prepare/{name}")
    return PreparedSet.open(run.stage(f"prepare/{name}"), verify=True)


def open_feed(
    run: RunFolder,
    source: PreparedSet,
    *,
    size: int,
    batch_size: int,
    shuffle: bool,
    balance: Balance | None = None,
) -> Feed:
    """Open a feed over a prepared set, as the run is configured.

    Parameters
    ----------
    run : RunFolder
        The run.
    source : PreparedSet
        The images.
    size : int
        Side of the centre crops in pixels. A batch is uint8 [B, size, size, 3].
    batch_size : int
        Number of images in a batch.
    shuffle : bool
        Deliver the images in a new order in every epoch.
    balance : Balance, optional
        Deliver the images of every label equally often.

    Returns
    -------
    feed : Feed
        The feed. Use it in a ``with`` block, which closes it.
    """
    config, device = run.config, resolve_device(run.config.device)
    budget = int(config.data.memory_budget_gb * 1e9)
    if device.startswith("cuda") and config.data.feed == "auto":
        # Resident images lie on the GPU, and the training needs GPU memory too.
        budget = min(budget, torch.cuda.mem_get_info(device)[0] // 3)
    return make_feed(
        source,
        kind=config.data.feed,
        size=size,
        short_side=config.data.short_side,
        batch_size=batch_size,
        shuffle=shuffle,
        seed=config.seed,
        device=device,
        n_threads=config.threads or None,
        memory_budget=budget,
        hw_decoder_load=config.data.hw_decoder_load,
        balance=balance,
    )


@contextmanager
def progress_line(name: str) -> Iterator[Progress]:
    """Give a function of (images done, number of images) that shows the progress of a work."""
    with LiveLine(name, 0, unit="images") as line:

        def progress(done: int, total: int) -> None:
            if line.total != total:
                line.total = total
                line.start(done)
            line.advance(done)

        yield progress
