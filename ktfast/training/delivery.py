"""Deliver the batches of a training from any step on; copy them to a GPU while the GPU works."""

from collections import deque
from collections.abc import Iterator
from typing import Any

import torch

from ktfast.errors import DataError
from ktfast.images.feeds.base import Batch, Feed

AHEAD = 2
"""Steps by which the host may run ahead of a GPU. Two keep the GPU busy, with few batches in
memory."""


def deliver(feed: Feed, step: int, total: int, device: torch.device) -> Iterator[tuple[int, Batch]]:
    """Deliver the batches of the steps `step` .. `total` - 1.

    Parameters
    ----------
    feed : Feed
        Images.
    step : int
        First step.
    total : int
        Number of steps of the whole training.
    device : torch.device
        Device of the delivered batches.

    Returns
    -------
    batches : iterator of (int, Batch)
        Epoch and batch of each step.

    Raises
    ------
    DataError
        The feed ends an epoch before its last batch.
    """
    batches = _batches_from(feed, step, total)
    return _copied(batches, device) if device.type == "cuda" else batches


def _batches_from(feed: Feed, step: int, total: int) -> Iterator[tuple[int, Batch]]:
    """Read epoch after epoch, starting with the batch of step `step`."""
    while step < total:
        epoch, start = divmod(step, feed.batches_per_epoch)
        end = min(total, (epoch + 1) * feed.batches_per_epoch)
        for batch in feed.epoch(epoch, start):
            yield epoch, batch
            step += 1
            if step == end:
                break
        else:
            raise DataError(
                f"the feed ended epoch {epoch} {end - step} batches early; expected"
                f" {feed.batches_per_epoch} batches per epoch"
            )


def _copied(
    batches: Iterator[tuple[int, Batch]], device: torch.device
) -> Iterator[tuple[int, Batch]]:
    """Copy batches on a stream of their own, so that no copy waits for a step."""
    cuda: Any = torch.cuda  # parts of torch.cuda carry no types
    copies, done = cuda.Stream(device), deque[Any]()
    while True:
        if len(done) == AHEAD:
            done.popleft().synchronize()
        with cuda.stream(copies):
            found = next(batches, None)
            if found is None:
                return
            epoch, batch = found[0], found[1].to(device)
            copied = copies.record_event()
        steps = cuda.current_stream(device)
        steps.wait_event(copied)
        for tensor in (batch.pool, batch.sample_ids, batch.rows, batch.indices):
            if tensor is not None:
                tensor.record_stream(steps)
        yield epoch, batch
        done.append(steps.record_event())
