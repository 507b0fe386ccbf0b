"""The feed that decodes every image once and keeps all squares in memory, perhaps on the GPU.

After decoding, a batch is only a list of rows; ops with `indices` read the squares in place. This
is the fastest feed if n * size * size * channels bytes fit into memory.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch

from ktfast.errors import ConfigError
from ktfast.images.feeds.base import Batch, Feed, FeedPlan, Progress
from ktfast.images.feeds.torch import TorchFeed
from ktfast.images.source import ImageSource

DECODE_BATCH = 64
"""Number of images that are decoded together."""


class ResidentFeed(Feed):
    """A feed that holds all squares as one tensor.

    Parameters
    ----------
    source : ImageSource
        Where the images come from.
    plan : FeedPlan
        Which rows make up which batch.
    memory_budget : int, optional
        Most bytes that the squares may take. None: no limit.
    progress : callable, optional
        Called with (images done, images in all) while the images are decoded.

    Attributes
    ----------
    images : Tensor, uint8 [n, S, S, C]
        Squares on the plan's device, in the order of the source. This is the pool of every batch.

    Raises
    ------
    ConfigError
        The squares take more bytes than `memory_budget`.
    DataError
        An image cannot be read or decoded. The message names the image.
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
        needed = plan.n * plan.size * plan.size * source.channels
        if memory_budget is not None and needed > memory_budget:
            raise ConfigError(
                f"{plan.n:,} squares of {plan.size} px take {needed:,} bytes, more than"
                f' memory_budget = {memory_budget:,}; raise memory_budget, or choose feed="dali"'
            )
        shape = (plan.n, plan.size, plan.size, source.channels)
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
        """The batches of an epoch from batch `start` on; see `Feed.epoch`."""
        for rows in self.plan.rows(epoch, start):
            batch = self._batch(self.images, rows)
            yield replace(batch, indices=batch.rows)

    def close(self) -> None:
        """Free the memory of the squares; the feed cannot be used afterwards."""
        self.images = self.images[:0].clone()
