"""Make feeds of every kind, and collect the rows and pixels that they deliver; needs torch."""

import importlib.util
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from ktfast.images.feeds.base import Batch, Feed
from ktfast.images.feeds.make import make_feed
from ktfast.images.source import ImageSource

needs_dali = pytest.mark.skipif(
    importlib.util.find_spec("nvidia") is None or importlib.util.find_spec("nvidia.dali") is None,
    reason="NVIDIA DALI is not installed",
)
KINDS = ["torch", "resident", pytest.param("dali", marks=needs_dali)]


def feed_of(source: ImageSource, kind: Any, **options: Any) -> Feed:
    """A feed of 24 px squares in batches of 5; `options` can change this."""
    options = {"size": 24, "short_side": 28, "batch_size": 5, "n_threads": 2, **options}
    return make_feed(source, kind=kind, **options)


def rows_of(batches: Iterable[Batch]) -> list[list[int]]:
    """The rows of each batch."""
    return [batch.rows.tolist() for batch in batches]


def pixels_of(feed: Feed, epoch: int = 0) -> np.ndarray:
    """All images of an epoch in the order of the source, uint8 [n, S, S, 3]."""
    images = np.zeros((feed.n, feed.plan.size, feed.plan.size, 3), np.uint8)
    for batch in feed.epoch(epoch):
        images[batch.rows.numpy()] = batch.images.numpy()
    return images
