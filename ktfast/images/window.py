"""Epochs that read shards one after the other, and mix only rows that lie near each other.

A fully random order makes one far-away read per image. With tar files on disks or in object
storage, it is faster to shuffle the shards, and then the rows within a bounded window, as
WebDataset does. Here the order is a function of (seed, epoch), so that a training resumes at any
batch.
"""

import hashlib

import numpy as np
import numpy.typing as npt

from ktfast.errors import ConfigError

Int64 = npt.NDArray[np.int64]


class ShardWindow:
    """Shuffles shards, and the rows of the shuffled shards within a window.

    Parameters
    ----------
    shard_sizes : array, integers [s]
        Number of rows of each shard. Row 0 is the first row of the first shard.
    window : int
        A row moves by less than this number of places. 1 keeps the order within the shards.

    Attributes
    ----------
    n : int
        Number of rows.
    window : int
        As given.
    sha256 : str
        SHA-256 of the parameters.

    Raises
    ------
    ConfigError
        The window is smaller than 1.
    """

    def __init__(self, shard_sizes: npt.ArrayLike, window: int) -> None:
        if window < 1:
            raise ConfigError(f"window must be at least 1 row, got {window}")
        self._sizes = np.ascontiguousarray(shard_sizes, dtype=np.int64)
        self._starts = np.cumsum(self._sizes) - self._sizes
        self.n = int(self._sizes.sum())
        self.window = window
        content = np.append(self._sizes, window).tobytes()
        self.sha256 = hashlib.sha256(content).hexdigest()

    def order(self, *, seed: int, epoch: int) -> Int64:
        """The rows of an epoch, int64 [n], each once; a function of (seed, epoch).

        The row at place i of the shuffled shards gets the key i + r, with r drawn evenly from
        0 .. window - 1. The rows are sorted by key. Before place p is reached, a reader needs only
        the first p + window rows of the shuffled shards.
        """
        stream = np.random.Philox(key=np.array([seed, epoch], np.uint64))
        shards = np.argsort(np.asarray(stream.random_raw(len(self._sizes))), kind="stable")
        sizes = self._sizes[shards]
        within = np.arange(self.n) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        rows = np.repeat(self._starts[shards], sizes) + within
        drawn = np.asarray(stream.random_raw(self.n)) % np.uint64(self.window)
        keys = np.arange(self.n) + drawn.astype(np.int64)
        return rows[np.argsort(keys, kind="stable")].astype(np.int64, copy=False)
