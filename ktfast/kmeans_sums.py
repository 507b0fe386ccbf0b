"""From labels to centres: the sums of the clusters, kept from one iteration to the next."""

from typing import Any, Protocol

import numpy as np

from ktfast._backend import cpu
from ktfast.kmeans_relocation import relocate_empty
from ktfast.kmeans_rows import Float64, Int32, Int64, Rows
from ktfast.ops.vectors import row_blocks

# Bits of a row's number in a sum: a float64 rounds it to an integer exactly up to here.
_BITS = 50
# At least half of a feature's numbers, zeros aside, must keep this many bits.
_LEAST_BITS = 30
_SAMPLE = 1024
_CALL_ROWS = 1 << 22
# Sums so few that every thread may have its own, in its second-level cache; and rows a thread
# should have for that.
_FEW_SUMS = 1 << 15
_THREAD_ROWS = 4096


class Sums(Protocol):
    """Turns labels into the next centres."""

    def centers(self, labels: Any, distances: Any, previous: Float64) -> tuple[Float64, float, int]:
        """The means of the clusters.

        Parameters
        ----------
        labels, distances : of the previous centres, int32 [n] and float64 [n].
        previous : float64 [k, d]; an empty cluster that finds no row keeps its centre.

        Returns
        -------
        centers : float64 [k, d], rounded to the dtype of the result.
        shift : sum of the centres' squared moves.
        relocated : how many empty clusters were given a row.
        """


def make_sums(rows: Rows, n_clusters: int, weight: Float64 | None) -> Sums:
    """Sums that follow the labels where the numbers allow it, else sums made anew."""
    if not rows.on_gpu and weight is None and rows.center_dtype == "float32":
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

    def centers(self, labels: Any, distances: Any, previous: Float64) -> tuple[Float64, float, int]:
        """See `Sums`."""
        sums, counts = self._rows.update(labels, self._n_clusters, self._weight)
        return means(self._rows, labels, distances, self._weight, sums, counts, previous)


class FollowingSums:
    """Only rows that changed their cluster are read (CPU).

    Sums are integers, multiples of a power of two per feature, so that they depend on the labels
    alone and not on how these came about.
    """

    def __init__(self, rows: Rows, n_clusters: int, scale: Float64) -> None:
        self._rows = rows
        self._scale = scale
        self._step = 1 / scale
        self._sums = np.zeros((n_clusters, rows.d), np.int64)
        self._counts = np.zeros(n_clusters, np.int64)
        self._labels: Int32 | None = None

    def centers(self, labels: Any, distances: Any, previous: Float64) -> tuple[Float64, float, int]:
        """See `Sums`."""
        self._follow(labels)
        if not (self._rows.plain_means and self._counts.all()):
            sums = self._sums * self._step
            counts = self._counts.astype(np.float64)
            return means(self._rows, labels, distances, None, sums, counts, previous)
        centers = np.empty_like(previous)
        shifts = np.empty(len(previous))
        cpu.kmeans_means(
            sums=self._sums,
            counts=self._counts,
            step=self._step,
            previous=previous,
            centers=centers,
            shifts=shifts,
            n_threads=self._rows.threads,
        )
        return centers, float(shifts.sum()), 0

    def _follow(self, labels: Int32) -> None:
        if self._sums.size <= _FEW_SUMS:
            self._follow_in_order(labels)
            return
        before = self._labels
        changed = np.arange(len(labels)) if before is None else np.flatnonzero(labels != before)
        for place, part in self._rows.parts():
            first, last = np.searchsorted(changed, (place.start, place.stop))
            self._move(part, changed[first:last] - place.start, place.start, labels)
        if before is None:
            self._labels = labels.copy()
        else:
            before[changed] = labels[changed]

    def _follow_in_order(self, labels: Int32) -> None:
        if self._labels is None:
            self._labels = np.full(len(labels), -1, np.int32)
        threads = min(self._rows.threads, max(1, len(labels) // _THREAD_ROWS))
        size = cpu.kmeans_follow_workspace_size(
            n_clusters=len(self._counts), n_features=self._rows.d, n_threads=threads
        )
        workspace = np.empty(size, np.int64)
        for place, part in self._rows.parts():
            for local, block in row_blocks(part, _CALL_ROWS):
                rows = slice(place.start + local.start, place.start + local.stop)
                cpu.kmeans_follow(
                    x=block,
                    before=self._labels[rows],
                    labels=labels[rows],
                    scale=self._scale,
                    workspace=workspace,
                    sums=self._sums,
                    counts=self._counts,
                    n_threads=threads,
                )

    def _move(self, part: Any, changed: Int64, start: int, labels: Int32) -> None:
        for rows, block in row_blocks(part, _CALL_ROWS):
            first, last = np.searchsorted(changed, (rows.start, rows.stop))
            if first == last:
                continue
            moved = changed[first:last]
            size = cpu.kmeans_move_workspace_size(n_moved=len(moved), n_clusters=len(self._counts))
            cpu.kmeans_move(
                x=block,
                rows=moved - rows.start,
                leaves=None if self._labels is None else self._labels[start + moved],
                joins=labels[start + moved],
                scale=self._scale,
                workspace=np.empty(size, np.int64),
                sums=self._sums,
                counts=self._counts,
                n_threads=self._rows.threads,
            )


def means(
    rows: Rows,
    labels: Any,
    distances: Any,
    weight: Float64 | None,
    sums: Float64,
    counts: Float64,
    previous: Float64,
) -> tuple[Float64, float, int]:
    """The next centres from float64 sums and weights, which are changed; see `Sums`."""
    relocated = relocate_empty(rows, labels, distances, weight, sums, counts)
    centers = rows.means(sums, counts, previous)
    return centers, float(((centers - previous) ** 2).sum()), relocated


def _scale(rows: Rows) -> Float64 | None:
    """Powers of two [d] that turn features into integers, or None where too much would be lost.

    That is where a feature is mostly tiny beside its largest number.
    """
    largest = np.zeros(rows.d)
    for _, part in rows.parts():
        for _, block in row_blocks(part, _CALL_ROWS):
            cpu.kmeans_ranges(x=block, largest=largest, n_threads=rows.threads)
    bits = min(_BITS, 62 - int(rows.n).bit_length())
    scale = np.exp2(bits - np.frexp(largest)[1].astype(np.float64))
    sample = np.abs(rows.take(np.arange(0, rows.n, -(-rows.n // _SAMPLE))))
    kept, given = (sample * scale >= 2.0**_LEAST_BITS).sum(axis=0), (sample > 0).sum(axis=0)
    return scale if (2 * kept >= given).all() else None
