"""Epochs that show every group of images equally often, large groups and small ones.

Caron et al., "Deep clustering for unsupervised learning of visual features" (ECCV 2018), sample
images uniformly over pseudo-labels. Without that, a few large clusters would dominate the training.
"""

import hashlib

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]


class Balance:
    """The group of each row, and epochs that are drawn evenly over the groups.

    Parameters
    ----------
    groups : array, integers [n]
        Group of each row, such as its pseudo-label.

    Attributes
    ----------
    n : int
        Number of rows.
    sha256 : str
        SHA-256 of the groups.
    title : str
        Says in the log what an epoch shows.
    """

    title = "balanced over groups"

    def __init__(self, groups: npt.ArrayLike) -> None:
        labels = np.ascontiguousarray(groups, dtype=np.int64)
        self.n = len(labels)
        self.sha256 = hashlib.sha256(labels.tobytes()).hexdigest()
        # The rows ordered by group, and the place where each group starts.
        self._members = np.argsort(labels, kind="stable")
        ordered = labels[self._members]
        self._starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
        self._sizes = np.diff(np.append(self._starts, len(labels)))

    def order(self, *, seed: int, epoch: int) -> Int64:
        """The rows of an epoch, int64 [n]; a function of (seed, epoch).

        Every group gets n / groups draws, rounded up; the draws beyond n are dropped at random. If
        a group has more rows than draws, some of its rows are left out. If a group has fewer rows
        than draws, its rows are drawn again in a new order. Before draws are dropped, the
        numbers of draws of any two rows of a group differ by at most one.
        """
        n_groups = len(self._sizes)
        quota = -(-self.n // n_groups)
        rounds = -(-quota // self._sizes)
        slots = self._sizes * rounds
        first = np.cumsum(slots) - slots
        group = np.repeat(np.arange(n_groups), slots)
        within = np.arange(slots.sum()) - first[group]
        rows = self._members[self._starts[group] + within % self._sizes[group]]
        stream = np.random.Philox(key=np.array([seed, epoch], np.uint64))
        keys = np.asarray(stream.random_raw(len(rows)))
        drawn = rows[np.lexsort((keys, within // self._sizes[group], group))][within < quota]
        mixed = np.argsort(np.asarray(stream.random_raw(len(drawn))), kind="stable")
        return np.asarray(drawn[mixed[: self.n]], dtype=np.int64)


class Subset(Balance):
    """Epochs that show some of the rows only, each of them equally often.

    An epoch is as long as an epoch of all rows, so that the number of steps does not depend on the
    number of rows that are shown.

    Parameters
    ----------
    rows : array, integers [k]
        The rows that are shown, at least one.
    n : int
        Number of all rows.
    """

    title = "some of the images only"

    def __init__(self, rows: npt.ArrayLike, n: int) -> None:
        chosen = np.ascontiguousarray(rows, dtype=np.int64)
        mask = np.zeros(n, np.int64)
        mask[chosen] = 1
        super().__init__(mask)
        self._chosen = chosen

    def order(self, *, seed: int, epoch: int) -> Int64:
        """The rows of an epoch, int64 [n]; a function of (seed, epoch).

        The epoch consists of all chosen rows in a random order, then of all of them in another
        order, and so on. The last order is cut off.
        """
        k = len(self._chosen)
        rounds = -(-self.n // k)
        stream = np.random.Philox(key=np.array([seed, epoch], np.uint64))
        keys = np.asarray(stream.random_raw(k * rounds)).reshape(rounds, k)
        places = np.argsort(keys, axis=1, kind="stable").reshape(-1)[: self.n]
        return np.asarray(self._chosen[places], dtype=np.int64)


def repeats(order: Int64) -> Int64:
    """How often the value of each entry occurs before that entry, int64 [n]."""
    by_row = np.argsort(order, kind="stable")
    ordered = order[by_row]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    sizes = np.diff(np.append(starts, len(order)))
    counts = np.empty(len(order), dtype=np.int64)
    counts[by_row] = np.arange(len(order)) - np.repeat(starts, sizes)
    return counts
