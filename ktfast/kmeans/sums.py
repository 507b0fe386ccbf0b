"""Compute centres from labels, with sums of the clusters that are kept between iterations."""

from typing import Any, Protocol

import numpy as np

from ktfast.kmeans.array_types import Float64, Int64
from ktfast.kmeans.data.passes import cluster_sums
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.data.workspace import to_host
from ktfast.kmeans.distributed.communicator import CommunicationError
from ktfast.kmeans.distributed.leader import led
from ktfast.kmeans.relocation import relocate_empty
from ktfast.ops.kmeans_sums import kmeans_means, kmeans_move, kmeans_ranges

# Most bits of a feature value as an integer. float64 holds every integer of 50 bits exactly.
_BITS = 50
# At least half of a feature's nonzero numbers must keep this many bits.
_LEAST_BITS = 30
_SAMPLE = 256


class Sums(Protocol):
    """Turns labels into the next centres."""

    def follow(self, place: slice, part: Any, labels: Any) -> None:
        """Add rows to the sums of their new labels while the rows are in the memory of the device.

        Parameters
        ----------
        place : slice
            Numbers of the rows, in 0 .. n - 1. Successive calls go through the rows in order.
        part : array [m, d]
            The rows, as `Rows.parts` yields them.
        labels : array, int32 [n]
            Labels of all rows; those at `place` are new. The array must not change until `follow`
            gets the same rows with their next labels.
        """

    def centers(self, labels: Any, distances: Any, previous: Any) -> tuple[Any, float, int]:
        """Compute the means of the clusters.

        Parameters
        ----------
        labels : array, int32 [n]
            Nearest previous centre of each row. If `follow` did not get these labels, `centers`
            adds up the rows itself.
        distances : array, float64 [n]
            Squared distances to the nearest previous centres.
        previous : array, float64 [k, d]
            Previous centres, on the device that processes the rows. An empty cluster that is given
            no row keeps its centre.

        Returns
        -------
        centers : array, float64 [k, d]
            Next centres, on the same device, rounded to the dtype of the result.
        shift : float
            Sum of the squared movements of the centres.
        relocated : int
            Number of empty clusters that were given a row.
        """


def make_sums(rows: Rows, n_clusters: int, weight: Float64 | None) -> Sums:
    """Choose integer sums if integers hold the rows precisely enough, else float64 sums."""
    if weight is None and rows.center_dtype == "float32":
        scale = _scale(rows)
        if scale is not None:
            return FollowingSums(rows, n_clusters, scale)
    return FreshSums(rows, n_clusters, weight)


class FreshSums:
    """Adds up all rows in every iteration, in float64; see `Sums`.

    Parameters
    ----------
    rows : Rows
        The data [n, d].
    n_clusters : int
        Number of clusters k.
    weight : array, float64 [n], optional
        Weights of the rows. None means that all weights are 1.
    """

    def __init__(self, rows: Rows, n_clusters: int, weight: Float64 | None) -> None:
        self._rows = rows
        self._n_clusters = n_clusters
        self._weight = weight

    def follow(self, place: slice, part: Any, labels: Any) -> None:
        """Do nothing; see `Sums`."""

    def centers(self, labels: Any, distances: Any, previous: Any) -> tuple[Any, float, int]:
        """See `Sums`."""
        sums, counts = cluster_sums(self._rows, labels, self._n_clusters, self._weight)
        if self._weight is None and counts.sum() != self._rows.total:
            raise self._rows.ranks.agreed_on(_changed_rows())
        return _next_centers(self._rows, labels, distances, self._weight, sums, counts, previous)


class FollowingSums:
    """Corrects the sums of the last iteration for the rows that changed cluster; see `Sums`.

    The sums are integers in units of one power of two per feature. Integer sums are exact, so the
    sums depend only on the rows and their present labels. Earlier labels, the device and the number
    of processes do not matter.

    Parameters
    ----------
    rows : Rows
        The data [n, d].
    n_clusters : int
        Number of clusters k.
    scale : array, float64 [d]
        Power of two by which each feature is multiplied before rounding to an integer.
    """

    def __init__(self, rows: Rows, n_clusters: int, scale: Float64) -> None:
        to_device = rows.workspace.to_device
        self._rows = rows
        self._scale = to_device(scale)
        self._step = to_device(1 / scale)
        self._sums = to_device(np.zeros((n_clusters, rows.d), np.int64))
        self._counts = to_device(np.zeros(n_clusters, np.int64))
        self._labels: Any = None
        # Sum over all clusters [d + 1] of the first iteration, if there are several processes.
        self._constant: Int64 | None = None

    def follow(self, place: slice, part: Any, labels: Any) -> None:
        """See `Sums`."""
        kmeans_move(
            part,
            None if self._labels is None else self._labels[place],
            labels[place],
            self._scale,
            self._sums,
            self._counts,
            n_threads=self._rows.n_threads,
        )
        if place.stop == self._rows.n:
            self._labels = labels

    def centers(self, labels: Any, distances: Any, previous: Any) -> tuple[Any, float, int]:
        """See `Sums`."""
        if self._labels is not labels:
            for place, part in self._rows.parts():
                self.follow(place, part, labels)
        total, number = self._of_all_processes()
        counts = to_host(number)
        if not (self._rows.plain_means and counts.all()):
            sums = to_host(total) * to_host(self._step)
            weights = counts.astype(np.float64)
            return _next_centers(self._rows, labels, distances, None, sums, weights, previous)
        centers, shifts = kmeans_means(
            total, number, self._step, previous, n_threads=self._rows.n_threads
        )
        shift = float(to_host(shifts).sum())
        return centers, self._rows.ranks.broadcast(shift), 0

    def _of_all_processes(self) -> tuple[Any, Any]:
        """Sums int64 [k, d] and counts int64 [k] of the clusters over all processes.

        Rows only move between clusters, so the sum over all clusters never changes. A change means
        that a process lost rows, or that bits flipped in its memory.
        """
        ranks = self._rows.ranks
        if ranks.size == 1:
            return self._sums, self._counts
        local = np.column_stack([to_host(self._sums), to_host(self._counts)])
        total = ranks.sum(local.ravel()).reshape(local.shape)
        constant = total.sum(axis=0)
        if self._constant is None:
            self._constant = constant
        if (constant != self._constant).any() or constant[-1] != self._rows.total:
            # All processes see the same total, so all of them raise the error.
            raise ranks.agreed_on(_changed_rows())
        to_device = self._rows.workspace.to_device
        return to_device(np.ascontiguousarray(total[:, :-1])), to_device(total[:, -1].copy())


def _changed_rows() -> CommunicationError:
    return CommunicationError(
        "the number or the sum of all rows has changed between two iterations; check the memory of "
        "the machines, and start the fit again"
    )


def _next_centers(
    rows: Rows,
    labels: Any,
    distances: Any,
    weight: Float64 | None,
    sums: Float64,
    counts: Float64,
    previous: Any,
) -> tuple[Any, float, int]:
    """Compute what `Sums.centers` returns from float64 sums and weights, which are changed."""
    relocated = relocate_empty(rows, labels, distances, weight, sums, counts)
    former = to_host(previous)
    centers = rows.centers_of(sums, counts, former)
    shift = rows.ranks.broadcast(float(((centers - former) ** 2).sum()))
    return rows.workspace.to_device(centers), shift, relocated


def _scale(rows: Rows) -> Float64 | None:
    """Choose the powers of two [d] that turn features into integers.

    Returns
    -------
    scale : array, float64 [d], or None
        The powers of two. None if integers would lose too many bits, because most numbers of a
        feature are tiny beside its largest number.
    """
    ranges = rows.workspace.to_device(np.zeros(rows.d))
    for _, part in rows.parts():
        kmeans_ranges(part, ranges, n_threads=rows.n_threads)
    largest = np.max(rows.ranks.gather_to_all(to_host(ranges)), axis=0)
    bits = min(_BITS, 62 - int(rows.total).bit_length())
    scale = np.exp2(bits - np.frexp(largest)[1].astype(np.float64))

    def choose(every: Rows, _: Any) -> Float64 | None:
        sample = np.abs(every.take(np.arange(0, every.n, -(-every.n // _SAMPLE))))
        kept, given = (sample * scale >= 2.0**_LEAST_BITS).sum(axis=0), (sample > 0).sum(axis=0)
        return scale if (2 * kept >= given).all() else None

    return led(rows, None, choose)
