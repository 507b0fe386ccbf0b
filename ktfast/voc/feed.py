"""A feed of views: threads decode the photographs; batches of different sizes are padded."""

from concurrent.futures import Future

import numpy as np
import numpy.typing as npt
import torch

from ktfast.errors import ConfigError
from ktfast.images.feeds.base import Batch, FeedPlan
from ktfast.images.feeds.torch import TorchFeed
from ktfast.native.threads import usable_cores
from ktfast.voc.views import FILL, View


class ViewFeed(TorchFeed):
    """Delivers batches of views, uint8 [B, H, W, C].

    A view that is smaller than the largest one of its batch is padded below and on the right.

    Parameters
    ----------
    view : View
        Makes the pixels of a row in an epoch.
    batch_size : int
        Views per batch.
    shuffle : bool
        Deliver the rows in random order.
    seed : int
        Seed of the order.
    device : str or torch.device
        Device of the batches.
    n_threads : int, optional
        Threads that decode. Default: all usable cores.
    """

    kind = "views"

    def __init__(
        self,
        view: View,
        *,
        batch_size: int,
        shuffle: bool,
        seed: int = 0,
        device: str | torch.device = "cpu",
        n_threads: int | None = None,
    ) -> None:
        size = max(view.largest, 1)
        plan = FeedPlan(
            n=view.source.n,
            size=size,
            short_side=size,
            batch_size=batch_size,
            shuffle=shuffle,
            drop_last=False,
            seed=seed,
            device=torch.device(device),
            n_threads=usable_cores() if n_threads is None else n_threads,
        )
        super().__init__(view.source, plan)
        self.view = view

    def describe(self) -> str:
        """Describe the feed in one line for the log."""
        plan = self.plan
        return f"{self.kind} feed: {plan.n:,} photographs, batches of {plan.batch_size}"

    def _submit(self, rows: npt.NDArray[np.int64], epoch: int) -> "_Views":
        if self._pool is None:
            raise ConfigError("the feed is closed; make a new one")
        return _Views(rows, [self._pool.submit(self.view, int(row), epoch) for row in rows])

    def _finish(self, decoding: "_Views") -> Batch:
        views = [task.result() for task in decoding.tasks]
        height, width = (max(view.shape[axis] for view in views) for axis in (0, 1))
        device, channels = self.plan.device, self.view.channels
        pool = torch.empty(
            (len(views), height, width, channels),
            dtype=torch.uint8,
            pin_memory=device.type == "cuda",
        )
        target = pool.numpy()
        for image, view in zip(target, views, strict=True):
            h, w = view.shape[:2]
            image[:h, :w] = view
            image[h:] = image[:h, w:] = FILL[:channels]
        sizes = [view.shape[:2] for view in views]
        return self._batch(pool.to(device, non_blocking=True), decoding.rows, sizes)


class _Views:
    """One batch whose views are being decoded."""

    def __init__(
        self, rows: npt.NDArray[np.int64], tasks: list[Future[npt.NDArray[np.uint8]]]
    ) -> None:
        self.rows = rows
        self.tasks = tasks

    def cancel(self) -> None:
        for task in self.tasks:
            task.cancel()
