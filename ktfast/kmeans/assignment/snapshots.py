"""Snapshots of earlier centres, from which the movement of the centres is measured."""

import numpy as np

from ktfast.kmeans.array_types import Bool, Float64, Int64, UInt8
from ktfast.native.modules import cpu
from ktfast.ops.kmeans_drift import Drift, kmeans_drift

_MOST_EPOCHS = 8
# All snapshots together take at most this share of the bytes of the rows in float32, or this many
# bytes if the share is less.
_SHARE = 1 / 8
_LEAST_BYTES = 1 << 25
# With many clusters, two snapshots may take this share, because bounds need at least two.
_SHARE_OF_TWO = 1 / 2


def epochs_that_fit(n_rows: int, n_clusters: int, n_features: int) -> int:
    """Return how many snapshots of the centres the memory limit allows."""
    allowed = max(4 * _SHARE * n_rows * n_features, _LEAST_BYTES)
    epochs = min(_MOST_EPOCHS, int(allowed / (4 * n_clusters * n_features)))
    return 2 if epochs < 2 and 2 * n_clusters <= _SHARE_OF_TWO * n_rows else epochs


class Snapshots:
    """Snapshots of the centres, one per epoch, and the number of rows with bounds of each epoch.

    An epoch begins when a snapshot is taken. The epoch of a row is the one in which its bounds were
    recorded. The bounds hold for the centres in the snapshot of this epoch.

    Parameters
    ----------
    epochs : int
        Most snapshots that exist at a time.
    n_clusters, n_features : int
        Shape of the centres.
    n_threads : int
        CPU threads.
    """

    def __init__(self, epochs: int, n_clusters: int, n_features: int, *, n_threads: int) -> None:
        self._threads = n_threads
        self._centers = np.empty((epochs, n_clusters, n_features), np.float32)
        self._error = np.zeros(epochs, np.float32)
        self._rows = np.zeros(epochs, np.int64)
        self._drift = np.empty((epochs, n_clusters), np.float32)
        self._known = np.zeros(epochs, bool)

    def drift(self, centers: Float64, previous: Float64) -> Drift:
        """Measure how far the centres have moved since each epoch; call it once per pass."""
        used = int(np.flatnonzero(self._rows).max()) + 1
        found = kmeans_drift(
            centers,
            previous,
            self._centers[:used],
            self._error[:used],
            drift=self._drift[:used],
            known=self._known[:used],
            n_threads=self._threads,
        )
        self._known[:used] = True
        return found

    def begin_for(self, pending: Bool, centers: Float64, epochs: UInt8) -> tuple[int, Int64]:
        """Begin an epoch for rows whose bounds have become too loose.

        The snapshot with the fewest rows is replaced. If some rows still have bounds of the
        replaced snapshot, these rows also need new bounds.

        Parameters
        ----------
        pending : array, bool [n]
            Which rows need new bounds.
        centers : array, float64 [k, d]
            The present centres.
        epochs : array, uint8 [n]
            Epoch of every row.

        Returns
        -------
        epoch : int
            Number of the new epoch.
        rows : array, int64 [m]
            Increasing numbers of the rows that need new bounds.
        """
        self._rows -= np.bincount(epochs[pending], minlength=len(self._rows))
        epoch = int(self._rows.argmin())
        if self._rows[epoch] > 0:
            pending = pending | (epochs == epoch)
        rows = np.flatnonzero(pending)
        self.begin(epoch, centers, rows.size)
        return epoch, rows

    def begin(self, epoch: int, centers: Float64, n_rows: int) -> None:
        """Take the snapshot of an epoch; `n_rows` rows get bounds of this epoch."""
        self._error[epoch] = cpu.kmeans_snapshot(
            centers=centers, snapshot=self._centers[epoch], n_threads=self._threads
        )
        self._rows[epoch] = n_rows
        self._known[epoch] = False
