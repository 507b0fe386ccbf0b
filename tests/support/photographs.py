"""Real photographs in memory: squares of the photographs that scikit-image ships."""

import hashlib
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import skimage.data
import torch

from ktfast.images.feeds.base import Batch, Feed, FeedPlan


def squares(n: int, side: int) -> np.ndarray:
    """Different squares of three photographs, uint8 [n, side, side, 3]."""
    found = []
    for photograph in (skimage.data.astronaut(), skimage.data.coffee(), skimage.data.rocket()):
        height, width = photograph.shape[:2]
        for y in range(0, height - side, max(1, side // 2)):
            for x in range(0, width - side, max(1, side // 2)):
                found.append(photograph[y : y + side, x : x + side])
    order = np.random.default_rng(0).permutation(len(found))[:n]
    return np.stack([found[k] for k in order])


class MemoryFeed(Feed):
    """A feed of images that are already decoded, uint8 [n, S, S, 3]."""

    kind = "memory"

    def __init__(self, images: np.ndarray, batch_size: int, *, shuffle: bool = True) -> None:
        n, side = images.shape[:2]
        source = SimpleNamespace(
            n=n,
            sample_ids=np.arange(n, dtype=np.int64) * 7919 + 11,
            fingerprint=hashlib.sha256(images.tobytes()).hexdigest(),
        )
        plan = FeedPlan(
            n=n,
            size=side,
            short_side=side,
            batch_size=batch_size,
            shuffle=shuffle,
            drop_last=False,
            seed=0,
            device=torch.device("cpu"),
            n_threads=1,
        )
        super().__init__(source, plan)
        self.images = torch.from_numpy(images)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        for rows in self.plan.rows(epoch, start):
            yield self._batch(self.images[rows], rows)

    def close(self) -> None:
        pass
