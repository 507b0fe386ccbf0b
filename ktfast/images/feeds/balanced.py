"""A feed whose plan is balanced over groups: an image that repeats is another sample each time."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from ktfast.images.balance import Int64, repeats
from ktfast.images.feeds.base import Batch, Feed

# An odd multiplier spreads small numbers over all bits (the golden ratio, as in SplitMix64).
_SPREAD = np.uint64(0x9E3779B97F4A7C15)


class BalancedFeed(Feed):
    """Another feed, with sample ids that differ between the repetitions of an image in an epoch.

    Crops and mirrors are functions of (seed, epoch, sample id), so without that an image of a small
    group would be cut alike every time. The first time, an image keeps its id.

    Parameters
    ----------
    feed : a feed with `plan.balance`.
    """

    def __init__(self, feed: Feed) -> None:
        super().__init__(feed.source, feed.plan)
        self.kind = feed.kind
        self._feed = feed

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches of an epoch from batch `start` on; see `Feed.epoch`."""
        salt = _salt(repeats(self.plan.order(epoch)))
        for number, batch in enumerate(self._feed.epoch(epoch, start), start):
            first = number * self.plan.batch_size
            part = torch.from_numpy(salt[first : first + len(batch)])
            ids = batch.sample_ids ^ part.to(batch.sample_ids.device)
            yield replace(batch, sample_ids=ids)

    def close(self) -> None:
        """Close the other feed."""
        self._feed.close()

    def describe(self) -> str:
        """One line for the log."""
        return f"{self._feed.describe()}, balanced over groups"


def _salt(times: Int64) -> Int64:
    """What to change the bits of a sample id by, int64 >= 0; nothing the first time."""
    return ((times.astype(np.uint64) * _SPREAD) >> np.uint64(1)).astype(np.int64)
