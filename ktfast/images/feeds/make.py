"""Choose a feed: resident, DALI or torch, by the options and by the memory that is available."""

import logging
from typing import Literal

import torch

from ktfast.errors import ConfigError
from ktfast.images.balance import Balance
from ktfast.images.feeds.base import Feed, FeedPlan, Progress
from ktfast.images.source import FolderSource, ImageSource
from ktfast.images.window import ShardWindow
from ktfast.native.threads import usable_cores
from ktfast.optional import problem_of

logger = logging.getLogger(__name__)

DALI = "nvidia.dali.fn"
"""The module of NVIDIA DALI that loads all libraries of DALI."""
HOST_BUDGET = 2 << 30
"""Bytes of main memory that decoded images may take if `memory_budget` is None."""


def make_feed(
    source: ImageSource,
    *,
    size: int,
    short_side: int | None = None,
    batch_size: int,
    kind: Literal["auto", "dali", "torch", "resident"] = "auto",
    shuffle: bool = True,
    drop_last: bool = False,
    seed: int = 0,
    device: str | torch.device = "cpu",
    n_threads: int | None = None,
    memory_budget: int | None = None,
    hw_decoder_load: float | None = None,
    balance: Balance | None = None,
    window: int | None = None,
    progress: Progress | None = None,
) -> Feed:
    """Build the feed for a source.

    Parameters
    ----------
    source : ImageSource
        Where the images come from.
    size : int
        Side of the squares in pixels.
    short_side : int, optional
        Images are resized to this shorter side, in pixels, before the square is cut from the
        centre. None: the shorter side of the source if all its images have the same, else `size`.
    batch_size : int
        Number of images in a batch.
    kind : {"auto", "dali", "torch", "resident"}, default "auto"
        "resident" decodes once and keeps the squares in memory. "dali" decodes with NVIDIA DALI.
        "torch" decodes with Pillow in threads. "auto" takes "resident" if the squares fit
        `memory_budget`, else "dali" if it is installed and works, else "torch". For original files
        on a CPU, "auto" prefers "torch" to "dali", unless the source has `decoding="full"`.
    shuffle : bool, default True
        Whether every epoch has a new order; otherwise the order is that of the source.
    drop_last : bool, default False
        Whether to leave out a last batch that is shorter than `batch_size`.
    seed : int, default 0
        Seed of the order, 0 to 2^64 - 1.
    device : str or torch.device, default "cpu"
        Where batches are delivered.
    n_threads : int, optional
        Number of threads that decode. None: one per core of this process.
    memory_budget : int, optional
        Most bytes that the squares of a resident feed may take. None: "resident" has no limit, and
        "auto" allows 2 GiB of main memory, or a third of a GPU's free memory.
    hw_decoder_load : float, optional
        Share of the JPEG data that a GPU's hardware decoder takes in the DALI feed, 0 to 1. None:
        the feed measures the fastest share before a long epoch. Two runs may then use different
        shares, which can round a pixel differently.
    balance : Balance, optional
        Groups of rows that a shuffled epoch shows equally often; see `FeedPlan`.
    window : int, optional
        Shuffle the source's shards, and the rows of the shuffled shards within a window of this
        number of rows. This is faster than a fully random order if the shards are tar files on
        disks or in object storage. None: fully random.
    progress : callable, optional
        Called with (images done, images in all) while a resident feed decodes.

    Returns
    -------
    Feed
        The feed. Close it to free its threads and memory.

    Raises
    ------
    ConfigError
        An option is impossible, or the kind of feed is not available here.
    DataError
        An image cannot be read or decoded. Only a resident feed decodes during this call; other
        feeds decode when an epoch is read.
    """
    plan = FeedPlan(
        n=source.n,
        size=size,
        short_side=short_side or source.short_side or size,
        batch_size=batch_size,
        shuffle=shuffle,
        drop_last=drop_last,
        seed=seed,
        device=torch.device(device),
        n_threads=usable_cores() if n_threads is None else n_threads,
        balance=balance,
        window=None if window is None else ShardWindow(source.shard_sizes, window),
    )
    feed = _feed_of_kind(kind, source, plan, memory_budget, hw_decoder_load, progress)
    if balance is None:
        return feed
    from ktfast.images.feeds.balanced import BalancedFeed

    return BalancedFeed(feed)


def _feed_of_kind(
    kind: str,
    source: ImageSource,
    plan: FeedPlan,
    memory_budget: int | None,
    hw_decoder_load: float | None,
    progress: Progress | None,
) -> Feed:
    chosen = kind
    if kind == "auto":
        budget = _default_budget(plan.device) if memory_budget is None else memory_budget
        fits = plan.n * plan.size * plan.size * source.channels <= budget
        chosen = "resident" if fits else _dali_or_torch(source, plan)
    if chosen == "dali" and source.is_array:
        raise ConfigError(
            'feed="dali" decodes photographs, but the items are arrays; choose feed="torch"'
        )
    if chosen == "resident":
        from ktfast.images.feeds.resident import ResidentFeed

        return ResidentFeed(source, plan, memory_budget=memory_budget, progress=progress)
    if chosen == "torch":
        from ktfast.images.feeds.torch import TorchFeed

        return TorchFeed(source, plan)
    if chosen != "dali":
        raise ConfigError(f"feed must be auto, dali, torch or resident, got {kind!r}")
    if (problem := problem_of(DALI)) is not None:
        state = f"cannot be loaded here ({problem})" if problem else "is not installed here"
        remedy = "reinstall" if problem else "install"
        raise ConfigError(
            f'feed="dali" needs NVIDIA DALI, which {state}: {remedy} nvidia-dali-cuda130, or choose'
            ' feed="torch"'
        )
    from ktfast.images.feeds.dali import DaliFeed

    return DaliFeed(source, plan, hw_decoder_load=hw_decoder_load)


def _dali_or_torch(source: ImageSource, plan: FeedPlan) -> Literal["dali", "torch"]:
    """Choose DALI if it works here. An installed DALI that cannot be loaded is worth a warning.

    On a CPU, Pillow decodes large original files faster, because it decodes them at reduced size.
    """
    if source.is_array:
        return "torch"
    reduces = isinstance(source, FolderSource) and source.decoding == "reduced"
    if plan.device.type == "cpu" and reduces:
        return "torch"
    problem = problem_of(DALI)
    if problem:
        logger.warning(
            "NVIDIA DALI is installed but cannot be loaded (%s); Pillow decodes the images, which"
            " is slower: reinstall nvidia-dali-cuda130, or choose the feed torch",
            problem,
        )
    return "dali" if problem is None else "torch"


def _default_budget(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0]) // 3
    return HOST_BUDGET
