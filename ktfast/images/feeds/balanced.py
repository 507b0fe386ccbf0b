"""The feed for a plan that is balanced over groups, in which images of small groups repeat."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from ktfast.images.balance import Int64, repeats
from ktfast.images.feeds.base import Batch, Feed

# An odd multiplier spreads small numbers over all bits (the golden ratio, as in SplitMix64).
_SPREAD = np.uint64(0x9E3779B97F4A7C15)


class BalancedFeed(Feed):
    """A feed that gives the repetitions of an image in an epoch different sample ids.

    Crops and mirrors are functions of (seed, epoch, sample id). With equal sample ids, every
    repetition of an image would be cut in the same way. The first occurrence keeps its id.

    Parameters
    ----------
    feed : Feed
        A feed whose plan has a `balance`.
    """

    def __init__(self, feed: Feed) -> None:
        super().__init__(feed.source, feed.plan)
        self.kind = feed.kind
        self._feed = feed

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from batch `start` on; see `Feed.epoch`."""
        salt = _salt(repeats(self.plan.order(epoch)))
        for number, batch in enumerate(self._feed.epoch(epoch, start), start):
            first = number * self.plan.batch_size
            part = torch.from_numpy(salt[first : first + len(batch)])
            ids = batch.sample_ids ^ part.to(batch.sample_ids.device)
            yield replace(batch, sample_ids=ids)

    def close(self) -> None:
        """Close the feed that this one wraps."""
        self._feed.close()

    def describe(self) -> str:
        """One line for the log that says what the feed delivers."""
        balance = self.plan.balance
        assert balance is not None
        return f"{self._feed.describe()}, {balance.title}"


def _salt(times: Int64) -> Int64:
    """Bits to flip in the sample id of a repetition, int64 >= 0; none for the first occurrence."""
    return ((times.astype(np.uint64) * _SPREAD) >> np.uint64(1)).astype(np.int64)
