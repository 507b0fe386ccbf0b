"""The choice of a feed: resident, DALI or torch, by what is asked for and what fits."""

import importlib.util
from typing import Literal

import torch

from ktfast.errors import ConfigError
from ktfast.images.balance import Balance
from ktfast.images.feeds.base import Feed, FeedPlan, Progress
from ktfast.images.source import ImageSource
from ktfast.native.threads import usable_cores

HOST_BUDGET = 2 << 30
"""Bytes of main memory that decoded images may take unless `memory_budget` says otherwise."""


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
    progress: Progress | None = None,
) -> Feed:
    """Build the feed for a source.

    Parameters
    ----------
    source : images.
    size : side of the squares, pixels.
    short_side : images are resized to this shorter side first; None: the source's own if it has
        one, else `size`.
    batch_size : images in a batch.
    kind : "resident" (decoded once, kept in memory), "dali" (NVIDIA DALI), "torch" (threads and
        Pillow) or "auto": resident if the images fit in `memory_budget`, else DALI if it is
        installed, else torch.
    shuffle : new order every epoch, else the source's order.
    drop_last : leave out a last batch that is short.
    seed : of the order.
    device : where batches are delivered.
    n_threads : decoding threads; None: every core this process may use.
    memory_budget : bytes that decoded images may take; None: 2 GiB of main memory, or a third
        of what is free on a GPU.
    hw_decoder_load : share of the JPEG data for a GPU's hardware decoder; None: DALI's feed
        measures the best one before a long epoch, so that another run may round single pixels
        otherwise.
    balance : shuffle evenly over groups of rows; see `FeedPlan`.
    progress : called while a resident feed decodes.

    Raises
    ------
    ConfigError : an option is impossible, or the kind is not available here.
    DataError : an image cannot be used (resident feeds decode at once).
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
    has_dali = importlib.util.find_spec("nvidia") is not None and (
        importlib.util.find_spec("nvidia.dali") is not None
    )
    chosen = kind
    if kind == "auto":
        budget = _default_budget(plan.device) if memory_budget is None else memory_budget
        fits = plan.n * plan.size * plan.size * 3 <= budget
        chosen = "resident" if fits else "dali" if has_dali else "torch"
    if chosen == "resident":
        from ktfast.images.feeds.resident import ResidentFeed

        return ResidentFeed(source, plan, memory_budget=memory_budget, progress=progress)
    if chosen == "torch":
        from ktfast.images.feeds.torch import TorchFeed

        return TorchFeed(source, plan)
    if chosen != "dali":
        raise ConfigError(f"feed must be auto, dali, torch or resident, got {kind!r}")
    if not has_dali:
        raise ConfigError(
            'feed="dali" needs NVIDIA DALI, which is not installed here: install'
            ' nvidia-dali-cuda130, or choose feed="torch"'
        )
    from ktfast.images.feeds.dali import DaliFeed

    return DaliFeed(source, plan, hw_decoder_load=hw_decoder_load)


def _default_budget(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0]) // 3
    return HOST_BUDGET
