"""The feed that decodes every image once and keeps the squares in memory, on the GPU if asked.

After the first pass a batch is a list of rows, which ops with `indices` read where the images lie:
the fastest feed wherever n * size * size * 3 bytes fit.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch

from ktfast.errors import ConfigError
from ktfast.images.feeds.base import Batch, Feed, FeedPlan, Progress
from ktfast.images.feeds.torch import TorchFeed
from ktfast.images.source import ImageSource

DECODE_BATCH = 64


class ResidentFeed(Feed):
    """All squares as one tensor.

    Attributes
    ----------
    images : uint8 [n, S, S, 3], row = row of the source, on the plan's device; the pool of every
        batch.
    """

    kind = "resident"

    def __init__(
        self,
        source: ImageSource,
        plan: FeedPlan,
        *,
        memory_budget: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        super().__init__(source, plan)
        needed = plan.n * plan.size * plan.size * 3
        if memory_budget is not None and needed > memory_budget:
            raise ConfigError(
                f"{plan.n:,} squares of {plan.size} px take {needed:,} bytes, more than"
                f' memory_budget = {memory_budget:,}; raise it, or choose feed="dali"'
            )
        shape = (plan.n, plan.size, plan.size, 3)
        self.images = torch.empty(shape, dtype=torch.uint8, device=plan.device)
        decoding = replace(
            plan,
            batch_size=DECODE_BATCH,
            shuffle=False,
            drop_last=False,
            device=torch.device("cpu"),
        )
        with TorchFeed(source, decoding) as feed:
            done = 0
            for batch in feed.epoch(0):
                self.images[done : done + len(batch.rows)] = batch.images.to(plan.device)
                done += len(batch.rows)
                if progress is not None:
                    progress(done, plan.n)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches of an epoch from batch `start` on; see `Feed.epoch`."""
        for rows in self.plan.rows(epoch, start):
            batch = self._batch(self.images, rows)
            yield replace(batch, indices=batch.rows)

    def close(self) -> None:
        """Free the images."""
        self.images = self.images.new_empty((0, self.plan.size, self.plan.size, 3))
