"""The batches of a training, from any step on; their copies to a GPU run beside its work."""

from collections import deque
from collections.abc import Iterator
from typing import Any

import torch

from ktfast.errors import DataError
from ktfast.images.feeds.base import Batch, Feed

AHEAD = 2
"""Steps that the host may be ahead of a GPU: enough to keep it busy, few batches in memory."""


def deliver(feed: Feed, step: int, total: int, device: torch.device) -> Iterator[tuple[int, Batch]]:
    """Batches on the device from `step` to `total`, with their epochs.

    Raises
    ------
    DataError : the feed lacks batches.
    """
    batches = _batches(feed, step, total)
    return _copied(batches, device) if device.type == "cuda" else batches


def _batches(feed: Feed, step: int, total: int) -> Iterator[tuple[int, Batch]]:
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
                f"the feed ended epoch {epoch} {end - step} batches early; it promised"
                f" {feed.batches_per_epoch} batches an epoch"
            )


def _copied(
    batches: Iterator[tuple[int, Batch]], device: torch.device
) -> Iterator[tuple[int, Batch]]:
    """Take batches on a stream of their own, so that their copies wait for no step."""
    cuda: Any = torch.cuda  # parts of it carry no types
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
