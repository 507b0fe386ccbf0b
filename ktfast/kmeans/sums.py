"""From labels to centres: the sums of the clusters, kept from one iteration to the next."""

from typing import Any, Protocol

import numpy as np

from ktfast.kmeans.relocation import relocate_empty
from ktfast.kmeans.rows import Float64, Rows, to_host
from ktfast.ops.kmeans_sums import kmeans_means, kmeans_move, kmeans_ranges

# Bits of a row's number in a sum: a float64 rounds it to an integer exactly up to here.
_BITS = 50
# At least half of a feature's numbers, zeros aside, must keep this many bits.
_LEAST_BITS = 30
_SAMPLE = 256


class Sums(Protocol):
    """Turns labels into the next centres."""

    def follow(self, place: slice, part: Any, labels: Any) -> None:
        """Take note of the labels of some rows while these are at hand.

        Parameters
        ----------
        place : of the rows in 0 .. n - 1; calls go through them in order.
        part : the rows, as `Rows.parts` gives them.
        labels : int32 [n], of which those at `place` are new. The array must stay as it is until
            the rows were followed to the next one.
        """

    def centers(self, labels: Any, distances: Any, previous: Any) -> tuple[Any, float, int]:
        """The means of the clusters.

        Parameters
        ----------
        labels, distances : of the previous centres, int32 [n] and float64 [n]. Labels that were not
            followed are now.
        previous : float64 [k, d] where the rows are worked on; an empty cluster that finds no row
            keeps its centre.

        Returns
        -------
        centers : float64 [k, d] where the rows are worked on, rounded to the dtype of the result.
        shift : sum of the centres' squared moves.
        relocated : how many empty clusters were given a row.
        """


def make_sums(rows: Rows, n_clusters: int, weight: Float64 | None) -> Sums:
    """Sums that follow the labels where the numbers allow it, else sums made anew."""
    if weight is None and rows.center_dtype == "float32":
        scale = _scale(rows)
        if scale is not None:
            return FollowingSums(rows, n_clusters, scale)
    return FreshSums(rows, n_clusters, weight)


class FreshSums:
    """All rows are added up in every iteration, in float64."""

    def __init__(self, rows: Rows, n_clusters: int, weight: Float64 | None) -> None:
        self._rows = rows
        self._n_clusters = n_clusters
        self._weight = weight

    def follow(self, place: slice, part: Any, labels: Any) -> None:
        """See `Sums`; there is nothing to note."""

    def centers(self, labels: Any, distances: Any, previous: Any) -> tuple[Any, float, int]:
        """See `Sums`."""
        sums, counts = self._rows.update(labels, self._n_clusters, self._weight)
        return means(self._rows, labels, distances, self._weight, sums, counts, previous)


class FollowingSums:
    """Only rows that changed their cluster are read.

    Sums are integers, multiples of a power of two per feature, so that they depend on the labels
    alone: not on how these came about, nor on the device.
    """

    def __init__(self, rows: Rows, n_clusters: int, scale: Float64) -> None:
        self._rows = rows
        self._scale = rows.to_device(scale)
        self._step = rows.to_device(1 / scale)
        self._sums = rows.to_device(np.zeros((n_clusters, rows.d), np.int64))
        self._counts = rows.to_device(np.zeros(n_clusters, np.int64))
        self._labels: Any = None

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
        counts = to_host(self._counts)
        if not (self._rows.plain_means and counts.all()):
            sums = to_host(self._sums) * to_host(self._step)
            weights = counts.astype(np.float64)
            return means(self._rows, labels, distances, None, sums, weights, previous)
        centers, shifts = kmeans_means(
            self._sums, self._counts, self._step, previous, n_threads=self._rows.n_threads
        )
        return centers, float(to_host(shifts).sum()), 0


def means(
    rows: Rows,
    labels: Any,
    distances: Any,
    weight: Float64 | None,
    sums: Float64,
    counts: Float64,
    previous: Any,
) -> tuple[Any, float, int]:
    """The next centres from float64 sums and weights on the CPU, which are changed; see `Sums`."""
    relocated = relocate_empty(rows, labels, distances, weight, sums, counts)
    former = to_host(previous)
    centers = rows.means(sums, counts, former)
    shift = float(((centers - former) ** 2).sum())
    return rows.to_device(centers), shift, relocated


def _scale(rows: Rows) -> Float64 | None:
    """Powers of two [d] that turn features into integers, or None where too much would be lost.

    That is where a feature is mostly tiny beside its largest number.
    """
    ranges = rows.to_device(np.zeros(rows.d))
    for _, part in rows.parts():
        kmeans_ranges(part, ranges, n_threads=rows.n_threads)
    largest = to_host(ranges)
    bits = min(_BITS, 62 - int(rows.n).bit_length())
    scale = np.exp2(bits - np.frexp(largest)[1].astype(np.float64))
    sample = np.abs(rows.take(np.arange(0, rows.n, -(-rows.n // _SAMPLE))))
    kept, given = (sample * scale >= 2.0**_LEAST_BITS).sum(axis=0), (sample > 0).sum(axis=0)
    return scale if (2 * kept >= given).all() else None
