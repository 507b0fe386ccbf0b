"""The feed that needs only Pillow and torch: threads decode a few batches ahead.

Pillow releases Python's interpreter lock while it decodes and resizes, so threads use all cores and
no worker processes are needed.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ktfast.errors import ConfigError
from ktfast.images.feeds.base import Batch, Feed, FeedPlan
from ktfast.images.source import ImageSource

PREFETCHED_BATCHES = 3
"""Number of batches that are decoded ahead: enough to hide one slow image."""


class TorchFeed(Feed):
    """A feed that decodes with Pillow in `plan.n_threads` threads."""

    kind = "torch"

    def __init__(self, source: ImageSource, plan: FeedPlan) -> None:
        super().__init__(source, plan)
        self._pool: ThreadPoolExecutor | None = ThreadPoolExecutor(
            plan.n_threads, thread_name_prefix="ktfast-decode"
        )

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from batch `start` on; see `Feed.epoch`."""
        ahead: deque[Any] = deque()
        batches = self.plan.rows(epoch, start)
        try:
            for rows in batches:
                ahead.append(self._submit(rows, epoch))
                if len(ahead) > PREFETCHED_BATCHES:
                    yield self._finish(ahead[0])
                    ahead.popleft()
            while ahead:
                yield self._finish(ahead[0])
                ahead.popleft()
        finally:  # after an error, or if the consumer stops early
            for decoding in ahead:
                decoding.cancel()

    def close(self) -> None:
        """Stop the threads and drop the batches in work; the feed cannot be used afterwards."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _submit(self, rows: npt.NDArray[np.int64], epoch: int) -> Any:
        """Begin to decode a batch.

        `_finish` receives the returned object, or its method `cancel` is called.
        """
        if self._pool is None:
            raise ConfigError("the feed is closed; make a new one")
        plan = self.plan
        shape = (len(rows), plan.size, plan.size, self.source.channels)
        pinned = plan.device.type == "cuda"
        images = torch.empty(shape, dtype=torch.uint8, pin_memory=pinned)
        target = images.numpy()
        tasks = [self._pool.submit(self._decode, target[i], row) for i, row in enumerate(rows)]
        return _Decoding(rows, images, tasks)

    def _decode(self, target: npt.NDArray[np.uint8], row: np.int64) -> None:
        plan = self.plan
        target[...] = self.source.square(int(row), short_side=plan.short_side, size=plan.size)

    def _finish(self, decoding: Any) -> Batch:
        for task in decoding.tasks:
            task.result()
        images = decoding.images.to(self.plan.device, non_blocking=True)
        return self._batch(images, decoding.rows)


class _Decoding:
    """A batch that threads decode."""

    def __init__(
        self, rows: npt.NDArray[np.int64], images: torch.Tensor, tasks: list[Future[None]]
    ) -> None:
        self.rows = rows
        self.images = images
        self.tasks = tasks

    def cancel(self) -> None:
        for task in self.tasks:
            task.cancel()
