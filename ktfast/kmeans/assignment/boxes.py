"""Boxes around groups of near centres, with which a pass over many centres skips most groups.

A *place* of a vector is a short vector: the coordinates in a few principal directions of the rows,
and the length of what lies outside these directions. The distance of two places is at most the
distance of the vectors. A pass divides the centres into groups of 64 whose places lie near each
other. If the box around the places of a group is farther from a row than a centre that is already
known, no centre of the group is the row's nearest. So a pass computes few products for a row, and
the number of these products grows more slowly than the number of centres.
"""

import logging
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ktfast.kmeans.array_types import Float32, Float64, Int32, Int64
from ktfast.kmeans.assignment.directions import principal_directions
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.data.workspace import float64_on_host
from ktfast.native.modules import cpu
from ktfast.native.threads import one_blas_thread
from ktfast.ops.kmeans_rows import Grouped
from ktfast.ops.kmeans_screen import PANEL_WIDTH, Screen
from ktfast.ops.middle import spread_places

_logger = logging.getLogger(__name__)

# With fewer centres or fewer rows per centre, groups save little time.
_LEAST_CLUSTERS = 2048
_LEAST_ROWS_PER_CLUSTER = 1
_DIRECTIONS = cpu.KMEANS_PLACE_NUMBERS - 1
# Rows whose places are computed at a time.
_BLOCK_ROWS = 4096
# Boxes are used if a row of a sample needs at most this share of the groups.
_MOST_REACHED = 0.7
_SAMPLE = 64


class Boxes:
    """Groups the centres of a fit, and puts rows with near guesses side by side.

    Parameters
    ----------
    rows : Rows
        The data [n, d].
    mean : array, float64 [d]
        Mean of the rows, from which places are measured.

    Attributes
    ----------
    places : array, float32 [n, 9]
        The places of the rows.
    share : float
        Share of the groups that a row needs. `make_boxes` measures it.
    """

    share = 1.0

    def __init__(self, rows: Rows, mean: Float64) -> None:
        # The mean of the screens, so that both measure the same vectors.
        self._mean = mean.astype(np.float32).astype(np.float64)
        with one_blas_thread():
            directions = principal_directions(rows, mean, _DIRECTIONS).astype(np.float64)
            self._basis = np.linalg.qr(directions)[0]
            self.places = np.zeros((rows.n, cpu.KMEANS_PLACE_NUMBERS), np.float32)
            for place, block in rows.blocks(_BLOCK_ROWS):
                self.places[place] = self._places_of(float64_on_host(block))
        self._order: Int32 = np.empty(0, np.int32)
        self._rank: Int32 = np.empty(0, np.int32)

    def group(self, centers: Float64, *, anew: bool = True) -> Grouped:
        """Order centres such that every 64 successive centres are a group.

        Parameters
        ----------
        centers : array, float64 [k, d]
            The centres.
        anew : bool, default True
            False keeps the order of the last call, whose centres lay near the present ones.

        Returns
        -------
        grouped : Grouped
            The order and the places of the centres.
        """
        places = np.concatenate([self._places_of(part) for part in _parts(centers)])
        if anew or len(self._order) != len(centers):
            self._order = _divided(places)
            self._rank = np.empty(len(centers), np.int32)
            self._rank[self._order] = np.arange(len(centers), dtype=np.int32)
        return Grouped(self._order, places)

    def order(self, labels: Int32, subset: Int64 | None) -> Int64:
        """Order rows such that rows with guesses of one group follow each other.

        Parameters
        ----------
        labels : array, int32 [n]
            Guessed centres, of the centres that were grouped last.
        subset : array, int64 [m], optional
            The numbers of the rows. None means all rows.

        Returns
        -------
        order : array, int64 [m]
            The numbers of the rows.
        """
        ranks = self._rank[labels if subset is None else labels[subset]]
        order = np.argsort(ranks, kind="stable")
        return order if subset is None else subset[order]

    def reached(self, rows: Rows, centers: Float64, grouped: Grouped) -> float:
        """Measure the share of the groups that a row of a sample needs if its guess is right."""
        where = spread_places(rows.n, _SAMPLE)
        sample, nearest = rows.take(where), np.full(len(where), np.inf)
        with one_blas_thread(), np.errstate(all="ignore"):
            squares = ((sample - self._mean) ** 2).sum(axis=1)[:, None]
            for part in _parts(centers):
                shifted = part - self._mean
                distances = squares - 2 * (sample - self._mean) @ shifted.T
                distances += (shifted**2).sum(axis=1)
                nearest = np.minimum(nearest, distances.min(axis=1))
            low, high = corners(grouped)
            places = self.places[where][:, None]
            gaps = np.maximum(np.maximum(low - places, places - high), 0)
            return float(((gaps**2).sum(axis=2) <= nearest[:, None]).mean())

    def guess(self, rows: Rows, centers: Float64, labels: Int32) -> None:
        """Write a guess of each row's nearest centre: a central one of the nearest group.

        The groups are those of the last call of `group`, for the same centres.
        """
        starts = np.arange(0, len(centers), PANEL_WIDTH)
        ordered = centers[self._order]
        counts = np.diff([*starts, len(centers)])
        middles = np.add.reduceat(ordered, starts) / counts[:, None]
        distances = ((ordered - np.repeat(middles, counts, axis=0)) ** 2).sum(axis=1)
        central = np.array(
            [self._order[s + np.argmin(distances[s : s + PANEL_WIDTH])] for s in starts], np.int32
        )
        screen = Screen(self._mean.astype(np.float32), "float32", n_threads=rows.threads)
        prepared, unused = screen.prepare(middles), np.empty(rows.n)
        for place, part in rows.parts():
            screen.assign(part, middles, prepared, labels[place], unused[place])
        labels[:] = central[labels]

    def _places_of(self, vectors: Float64) -> Float32:
        with np.errstate(all="ignore"):
            shifted = vectors - self._mean
            coordinates = shifted @ self._basis
            rest = (shifted**2).sum(axis=1) - (coordinates**2).sum(axis=1)
            places = np.zeros((len(vectors), cpu.KMEANS_PLACE_NUMBERS))
            places[:, : coordinates.shape[1]] = coordinates
            places[:, -1] = np.sqrt(np.maximum(rest, 0))
            return places.astype(np.float32)


def make_boxes(rows: Rows, mean: Float64, centers: Float64) -> Boxes | None:
    """Make boxes if they save time in a fit with these first centres, else return None."""
    k = len(centers)
    if k < _LEAST_CLUSTERS or rows.n < _LEAST_ROWS_PER_CLUSTER * k or rows.d <= _DIRECTIONS:
        return None
    boxes = Boxes(rows, mean)
    if not np.isfinite(boxes.places).all():
        return None
    share = boxes.reached(rows, centers, boxes.group(centers))
    _logger.debug("k-means: a row reaches the boxes of %.0f %% of the centres", 100 * share)
    boxes.share = share
    return boxes if share <= _MOST_REACHED else None


class _Corners(NamedTuple):
    low: Float32
    high: Float32


def corners(grouped: Grouped) -> _Corners:
    """The lower and the upper corner of the box of each group, float32 [groups, numbers]."""
    places = grouped.places[grouped.order]
    starts = np.arange(0, len(places), PANEL_WIDTH)
    return _Corners(np.minimum.reduceat(places, starts), np.maximum.reduceat(places, starts))


def _parts(centers: Float64) -> list[Float64]:
    return [centers[first : first + _BLOCK_ROWS] for first in range(0, len(centers), _BLOCK_ROWS)]


def _divided(places: Float32) -> Int32:
    """Order places by halving them along their most different number, again and again."""
    order: npt.NDArray[np.int64] = np.arange(len(places))
    ranges = [(0, len(places))]
    while ranges:
        first, last = ranges.pop()
        if last - first <= PANEL_WIDTH:
            continue
        part = order[first:last]
        numbers = places[part]
        widest = numbers[:, int(numbers.var(axis=0).argmax())]
        half = -(-(last - first) // (2 * PANEL_WIDTH)) * PANEL_WIDTH
        order[first:last] = part[np.argpartition(widest, half)]
        ranges += [(first, first + half), (first + half, last)]
    return order.astype(np.int32)
