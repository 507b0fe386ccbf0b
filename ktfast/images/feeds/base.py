"""What a feed is: batches of equal squares in an order that depends only on (seed, epoch).

`ktfast.images.feeds.make.make_feed` chooses a feed. All feeds deliver the same batches, except for
the rounding of their decoders. Large original files are another exception, because DALI decodes
them at full size and the other feeds at reduced size (`FolderSource.decoding`).
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
from ktfast.images.window import ShardWindow

Progress = Callable[[int, int], None]
"""Function that is called with (images done, images in all) during long work."""


@dataclass(frozen=True)
class Batch:
    """The images of one batch; all tensors are on one device.

    Attributes
    ----------
    pool : Tensor, uint8 [N, S, S, C]
        RGB images, or arrays of C channels: those of the batch, or all images of a resident feed.
    sample_ids : Tensor, int64 [B]
        Sample id of each image.
    rows : Tensor, int64 [B]
        Row of each image in the source.
    indices : Tensor, int64 [B], optional
        Place of each image in the pool. None: the pool is the batch. Ops with an argument `indices`
        read the pool without a copy.
    sizes : list of pairs of int, optional
        Height and width of each image; the rest of an image is padding. None: no padding.
    """

    pool: torch.Tensor
    sample_ids: torch.Tensor
    rows: torch.Tensor
    indices: torch.Tensor | None = None
    sizes: list[tuple[int, int]] | None = None

    @functools.cached_property
    def images(self) -> torch.Tensor:
        """The images in order, uint8 [B, S, S, C]; a copy if the pool is larger than the batch."""
        return self.pool if self.indices is None else self.pool.index_select(0, self.indices)

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, start: int, stop: int) -> "Batch":
        """A view of the rows `start` to `stop - 1` of the batch."""
        return Batch(
            pool=self.pool[start:stop] if self.indices is None else self.pool,
            sample_ids=self.sample_ids[start:stop],
            rows=self.rows[start:stop],
            indices=None if self.indices is None else self.indices[start:stop],
            sizes=None if self.sizes is None else self.sizes[start:stop],
        )

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device; only the images of the batch are copied, not the whole pool."""
        stays = self.pool.device == device
        indices = self.indices if stays else None
        return Batch(
            pool=self.pool if stays else self.images.to(device, non_blocking=True),
            sample_ids=self.sample_ids.to(device, non_blocking=True),
            rows=self.rows.to(device, non_blocking=True),
            indices=indices,
            sizes=self.sizes,
        )


@dataclass(frozen=True)
class FeedPlan:
    """Which rows make up which batch, and the size of the squares; the same for all feeds.

    Attributes
    ----------
    n : int
        Number of images in the source.
    size : int
        Side of the squares in pixels.
    short_side : int
        Shorter side of the resized images that the squares are cut from, in pixels.
    batch_size : int
        Number of images in a batch.
    shuffle : bool
        Whether every epoch has a new order; otherwise the order is that of the source.
    drop_last : bool
        Whether to leave out a last batch that is shorter than `batch_size`.
    seed : int
        Seed of the order, 0 to 2^64 - 1.
    device : torch.device
        Where batches are delivered.
    n_threads : int
        Number of threads that decode.
    balance : Balance, optional
        Groups of rows that a shuffled epoch shows equally often; rows of small groups repeat. None:
        an epoch shows each row once.
    window : ShardWindow, optional
        Shards that a shuffled epoch reads one after the other. None: the order is fully random.

    Raises
    ------
    ConfigError
        A value is impossible. The message names the option.
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
    window: ShardWindow | None = None

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
        if self.window is not None and self.window.n != self.n:
            raise ConfigError(f"window has shards of {self.window.n} rows, but there are {self.n}")
        if self.window is not None and self.balance is not None:
            raise ConfigError("balance and window exclude each other; give one of them")
        if self.drop_last and self.n < self.batch_size:
            raise ConfigError(
                f"drop_last leaves no batch: {self.n} images make less than one batch of"
                f" {self.batch_size}; choose a smaller batch_size"
            )

    @property
    def batches_per_epoch(self) -> int:
        """Number of batches in an epoch; the last batch may be short."""
        full, rest = divmod(self.n, self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """The rows of an epoch in order, int64 [n]."""
        if self.balance is not None and self.shuffle:
            return self.balance.order(seed=self.seed, epoch=epoch)
        if self.window is not None and self.shuffle:
            return self.window.order(seed=self.seed, epoch=epoch)
        return epoch_order(self.n, seed=self.seed, epoch=epoch, shuffle=self.shuffle)

    def rows(self, epoch: int, start: int = 0) -> Iterator[npt.NDArray[np.int64]]:
        """The rows of each batch of an epoch from batch `start` on, int64 [B] each."""
        if not 0 <= start <= self.batches_per_epoch:
            raise ConfigError(
                f"start must lie in 0 .. {self.batches_per_epoch} batches, got {start}"
            )
        order = self.order(epoch)
        for batch in range(start, self.batches_per_epoch):
            yield order[batch * self.batch_size : (batch + 1) * self.batch_size]


def epoch_order(n: int, *, seed: int, epoch: int, shuffle: bool = True) -> npt.NDArray[np.int64]:
    """The order of n rows in an epoch, int64 [n]; a function of (seed, epoch).

    The order comes from sorting the raw 64-bit numbers of Philox. NumPy promises never to change
    these numbers, but does not promise that for `Generator.permutation`.
    """
    if not shuffle:
        return np.arange(n, dtype=np.int64)
    keys = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(n)
    return np.argsort(np.asarray(keys), kind="stable").astype(np.int64, copy=False)


class Feed(ABC):
    """Delivers batches of images, epoch by epoch.

    Attributes
    ----------
    kind : str
        Name of the implementation, such as "torch".
    source : ImageSource
        Where the images come from.
    plan : FeedPlan
        Which rows make up which batch.
    """

    kind: str

    def __init__(self, source: ImageSource, plan: FeedPlan) -> None:
        self.source = source
        self.plan = plan

    @property
    def n(self) -> int:
        """Number of images in the source."""
        return self.plan.n

    @property
    def batch_size(self) -> int:
        """Number of images in a batch; the last batch may be shorter."""
        return self.plan.batch_size

    @property
    def batches_per_epoch(self) -> int:
        """Number of batches in an epoch."""
        return self.plan.batches_per_epoch

    @abstractmethod
    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from batch `start` on; the same ones in every run.

        Parameters
        ----------
        epoch : int
            Number of the epoch.
        start : int, default 0
            Number of batches to skip, for example on resume.

        Returns
        -------
        iterator of Batch
            The batches in order.

        Raises
        ------
        DataError
            An image cannot be read or decoded. The message names the image.
        """

    @abstractmethod
    def close(self) -> None:
        """Free threads and memory; the feed cannot be used afterwards."""

    def describe(self) -> str:
        """One line for the log that says what the feed delivers."""
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

    def _batch(
        self,
        images: torch.Tensor,
        rows: npt.NDArray[np.int64],
        sizes: list[tuple[int, int]] | None = None,
    ) -> Batch:
        """Make a batch of images that are already on the plan's device."""
        device = self.plan.device
        return Batch(
            pool=images,
            sample_ids=torch.from_numpy(self.source.sample_ids[rows]).to(device),
            rows=torch.from_numpy(rows.copy()).to(device),
            sizes=sizes,
        )
