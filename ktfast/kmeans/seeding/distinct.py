"""The distinct rows and their weights, in an order that depends on their values only.

Random draws that go through this order pick the same values for any arrangement of the rows, and a
row of weight two counts as the same row given twice.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from ktfast.kmeans.array_types import Float64, Int64
from ktfast.kmeans.data.moments import Moments
from ktfast.kmeans.data.passes import nearest_centers
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.data.workspace import to_host

# Keeps 0 / 0 from being NaN: the quotient becomes 0.
_TINY = float(np.finfo(np.float64).tiny)


class DistinctRows(NamedTuple):
    """Rows of different values, all of positive weight.

    Attributes
    ----------
    first : array, int64 [m]
        Number of one row that has each value.
    weight : array, float64 [m]
        Total weight of the rows that have the value.
    """

    first: Int64
    weight: Float64

    def sample(self, n: int, distances: Float64, random_state: Any) -> "DistinctRows":
        """Draw at most n weighted rows that represent all rows.

        Parameters
        ----------
        n : int
            Most rows of the sample. If there are at most n rows, the sample is all rows.
        distances : array, float64 [m]
            Squared distances to a point near the middle of the rows.
        random_state : numpy.random.RandomState
            Source of the draws.

        Returns
        -------
        sample : DistinctRows
            The drawn rows, each with its weight divided by its chance of being drawn.

        Notes
        -----
        Bachem, Lucic and Krause, "Scalable k-means clustering via lightweight coresets" (2018).
        Half of the rows are drawn by weight and half by their part in the variance. Here the rows
        are drawn at even steps instead of independently.
        """
        if len(self.first) <= n:
            return self
        potential = distances * self.weight
        share = self.weight / self.weight.sum() + potential / max(potential.sum(), _TINY)
        cumulative = np.cumsum(share)
        step = cumulative[-1] / n
        steps = (np.arange(n) + random_state.random_sample()) * step
        drawn = np.minimum(np.searchsorted(cumulative, steps, side="right"), len(share) - 1)
        places, times = np.unique(drawn, return_counts=True)
        weight = times * step * self.weight[places] / share[places]
        return DistinctRows(self.first[places], weight)


def distinct_rows(
    rows: Rows, weight: Float64 | None, moments: Moments, random_state: Any
) -> DistinctRows:
    """Find the distinct rows by their exact distance to one random point.

    Equal rows have equal distances. Different rows have different distances, except for
    coincidences of float64. Rows that coincide count as one row.

    Parameters
    ----------
    rows : Rows
        The data [n, d].
    weight : array, float64 [n], optional
        Weights of the rows; None means that all weights are 1. Rows of weight zero are left out.
    moments : Moments
        Mean and variance of the rows. The random point is about as far from the mean as a row.
    random_state : numpy.random.RandomState
        Source of the random point.

    Returns
    -------
    distinct : DistinctRows
        The distinct rows, ordered by their distance to the random point.
    """
    spread = math.sqrt(moments.variance)
    point = moments.mean + spread * random_state.standard_normal(rows.d)
    keys = to_host(nearest_centers(rows, point[None])[1])
    order = np.argsort(keys, kind="stable")
    if weight is not None:
        order = order[weight[order] > 0]
    ordered = keys[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    if weight is not None and len(starts) < len(order):
        # Equal rows in the order of their weights: the sum of the weights rounds the same way
        # wherever the rows lie.
        order = order[np.lexsort((weight[order], ordered))]
    if weight is None:
        total = np.diff(np.append(starts, len(order))).astype(np.float64)
    else:
        total = np.add.reduceat(weight[order], starts)
    return DistinctRows(order[starts], total)


def draw(random_state: Any, cumulative: Float64, n: int) -> Int64:
    """Draw n places in proportion to the steps of `cumulative`, never a place whose step is 0."""
    points = random_state.random_sample(n) * cumulative[-1]
    drawn = np.searchsorted(cumulative, points, side="right")
    last = int(np.searchsorted(cumulative, cumulative[-1], side="left"))
    return np.asarray(np.minimum(drawn, last), dtype=np.int64)
