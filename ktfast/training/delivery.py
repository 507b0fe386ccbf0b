"""Deliver the batches of a training from any step on; copy them to a GPU while the GPU works."""

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from ktfast.errors import DataError
from ktfast.images.feeds.base import Batch, Feed

AHEAD = 2
"""Steps by which the host may run ahead of a GPU. Two keep the GPU busy, with few batches in
memory."""


def deliver(
    feed: Feed, step: int, total: int, device: torch.device, *, lone: bool = True
) -> Iterator[tuple[int, Batch]]:
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
    lone : bool
        Whether the last batch of an epoch may be one image. If not, the batch before gives its last
        image to the last batch. A batch before of two images has none to give, and nothing changes.

    Returns
    -------
    batches : iterator of (int, Batch)
        Epoch and batch of each step.

    Raises
    ------
    DataError
        The feed ends an epoch before its last batch.
    """
    batches = _batches_from(feed, step, total, lone=lone)
    return _copied(batches, device) if device.type == "cuda" else batches


def _batches_from(feed: Feed, step: int, total: int, *, lone: bool) -> Iterator[tuple[int, Batch]]:
    """Read epoch after epoch, starting with the batch of step `step`."""
    while step < total:
        epoch, start = divmod(step, feed.batches_per_epoch)
        end = min(total, (epoch + 1) * feed.batches_per_epoch)
        read = feed.epoch if lone or not ends_with_one(feed) else partial(_in_pairs, feed)
        for batch in read(epoch, start):
            yield epoch, batch
            step += 1
            if step == end:
                break
        else:
            raise DataError(
                f"the feed ended epoch {epoch} {end - step} batches early; expected"
                f" {feed.batches_per_epoch} batches per epoch"
            )


def ends_with_one(feed: Feed) -> bool:
    """Say whether the last batch of an epoch is one image, and the batch before has three."""
    whole = feed.batches_per_epoch - 1
    return feed.batch_size > 2 and whole > 0 and feed.n == whole * feed.batch_size + 1


def _in_pairs(feed: Feed, epoch: int, start: int) -> Iterator[Batch]:
    """The batches of an epoch from batch `start` on, of which the last one has two images."""
    last = feed.batches_per_epoch - 1
    begin, stop = min(start, last - 1), feed.batch_size - 1
    given: Batch | None = None
    for number, batch in enumerate(feed.epoch(epoch, begin), begin):
        if number == last - 1:
            given = batch.part(stop, stop + 1)
            given = replace(given, pool=given.images.clone(), indices=None)
            batch = batch.part(0, stop)
        elif number == last and given is not None:
            batch = _joined(given, batch)
        if number >= start:
            yield batch


def _joined(first: Batch, second: Batch) -> Batch:
    return Batch(
        pool=torch.cat([first.images, second.images]),
        sample_ids=torch.cat([first.sample_ids, second.sample_ids]),
        rows=torch.cat([first.rows, second.rows]),
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
