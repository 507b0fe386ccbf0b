"""What every feed is: batches of equal squares, in an order that depends on (seed, epoch) alone.

`ktfast.images.feeds.make.make_feed` chooses the implementation. The batches of all feeds are the
same up to the rounding of the decoder.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ktfast.errors import ConfigError
from ktfast.images.balance import Balance
from ktfast.images.source import ImageSource

Progress = Callable[[int, int], None]
"""Called with (images done, images in all) during long work."""


@dataclass(frozen=True)
class Batch:
    """Images of one batch, all tensors on one device.

    Attributes
    ----------
    pool : uint8 [N, S, S, 3], RGB, that holds the images: those of the batch, or a resident feed's
        whole set.
    sample_ids : int64 [B].
    rows : int64 [B], rows of the source.
    indices : int64 [B], the image in the pool of each row; None: the pool is the batch. Ops that
        take `indices` read the pool without a copy.
    """

    pool: torch.Tensor
    sample_ids: torch.Tensor
    rows: torch.Tensor
    indices: torch.Tensor | None = None

    @functools.cached_property
    def images(self) -> torch.Tensor:
        """The images in order, uint8 [B, S, S, 3]; a copy where they lie in a larger pool."""
        return self.pool if self.indices is None else self.pool.index_select(0, self.indices)

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, start: int, stop: int) -> "Batch":
        """Its rows from `start` to `stop`, without a copy."""
        return Batch(
            pool=self.pool[start:stop] if self.indices is None else self.pool,
            sample_ids=self.sample_ids[start:stop],
            rows=self.rows[start:stop],
            indices=None if self.indices is None else self.indices[start:stop],
        )

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device; of a pool elsewhere only its own images are copied."""
        stays = self.pool.device == device
        indices = self.indices if stays else None
        return Batch(
            pool=self.pool if stays else self.images.to(device, non_blocking=True),
            sample_ids=self.sample_ids.to(device, non_blocking=True),
            rows=self.rows.to(device, non_blocking=True),
            indices=indices,
        )


@dataclass(frozen=True)
class FeedPlan:
    """Which rows make up which batch; shared by all feeds.

    Attributes
    ----------
    n : images in the source.
    size, short_side : side of the square and of the image that it is cut from, pixels.
    batch_size, shuffle, drop_last, seed : as in `make_feed`.
    device : where batches are delivered.
    n_threads : threads that decode.
    balance : shuffles evenly over groups of rows, which may repeat in an epoch; None: each row
        once.
    """

    n: int
    size: int
    short_side: int
    batch_size: int
    shuffle: bool
    drop_last: bool
    seed: int
    device: torch.device
    n_threads: int
    balance: Balance | None = None

    def __post_init__(self) -> None:
        for option in ("size", "batch_size", "n_threads"):
            if getattr(self, option) < 1:
                raise ConfigError(f"{option} must be at least 1, got {getattr(self, option)}")
        if self.short_side < self.size:
            raise ConfigError(
                f"short_side must be at least size = {self.size} to cut a square from,"
                f" got {self.short_side}"
            )
        if not 0 <= self.seed < 1 << 64:
            raise ConfigError(f"seed must lie in 0 .. 2^64 - 1, got {self.seed}")
        if self.balance is not None and self.balance.n != self.n:
            raise ConfigError(f"balance groups {self.balance.n} rows, but there are {self.n}")
        if self.drop_last and self.n < self.batch_size:
            raise ConfigError(
                f"drop_last leaves no batch: {self.n} images make less than one batch of"
                f" {self.batch_size}; choose a smaller batch_size"
            )

    @property
    def batches_per_epoch(self) -> int:
        """Batches in one epoch; the last one may be short."""
        full, rest = divmod(self.n, self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """Rows of an epoch in order, int64 [n]."""
        if self.balance is not None and self.shuffle:
            return self.balance.order(seed=self.seed, epoch=epoch)
        return epoch_order(self.n, seed=self.seed, epoch=epoch, shuffle=self.shuffle)

    def rows(self, epoch: int, start: int = 0) -> Iterator[npt.NDArray[np.int64]]:
        """Rows of each batch of an epoch from batch `start` on, int64 [B] each."""
        if not 0 <= start <= self.batches_per_epoch:
            raise ConfigError(
                f"start must lie in 0 .. {self.batches_per_epoch} batches, got {start}"
            )
        order = self.order(epoch)
        for batch in range(start, self.batches_per_epoch):
            yield order[batch * self.batch_size : (batch + 1) * self.batch_size]


def epoch_order(n: int, *, seed: int, epoch: int, shuffle: bool = True) -> npt.NDArray[np.int64]:
    """Order of n rows in an epoch, int64 [n], a function of (seed, epoch) alone.

    Sorts Philox's raw 64-bit stream, which NumPy keeps stable between versions (it does not
    promise that for `Generator.permutation`).
    """
    if not shuffle:
        return np.arange(n, dtype=np.int64)
    keys = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(n)
    return np.argsort(np.asarray(keys), kind="stable").astype(np.int64, copy=False)


class Feed(ABC):
    """Batches of images, epoch by epoch.

    Attributes
    ----------
    kind : name of the implementation.
    source : where the images come from.
    plan : which rows make up which batch.
    """

    kind: str

    def __init__(self, source: ImageSource, plan: FeedPlan) -> None:
        self.source = source
        self.plan = plan

    @property
    def n(self) -> int:
        """Images in the source."""
        return self.plan.n

    @property
    def batch_size(self) -> int:
        """Images in every batch but perhaps the last."""
        return self.plan.batch_size

    @property
    def batches_per_epoch(self) -> int:
        """Batches in one epoch."""
        return self.plan.batches_per_epoch

    @abstractmethod
    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches of an epoch from batch `start` on, the same ones in every run.

        Raises
        ------
        DataError : an image cannot be read or decoded; the message names it.
        """

    @abstractmethod
    def close(self) -> None:
        """Free threads and memory; the feed cannot be used afterwards."""

    def describe(self) -> str:
        """One line for the log."""
        plan = self.plan
        return (
            f"{self.kind} feed: {plan.n:,} images, {plan.size} px squares of"
            f" {plan.short_side} px images, batches of {plan.batch_size} on {plan.device},"
            f" {plan.n_threads} decoding threads"
        )

    def __enter__(self) -> "Feed":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _batch(self, images: torch.Tensor, rows: npt.NDArray[np.int64]) -> Batch:
        """A batch on the plan's device from images that are there already."""
        device = self.plan.device
        return Batch(
            pool=images,
            sample_ids=torch.from_numpy(self.source.sample_ids[rows]).to(device),
            rows=torch.from_numpy(rows.copy()).to(device),
        )
