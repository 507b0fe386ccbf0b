"""The distinct rows and their weights, in an order that only their values decide.

Random draws that go through this order pick the same values however the rows are arranged, and
whether a row is given twice or once with weight two.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from ktfast.kmeans.rows import Float64, Int64, Moments, Rows, to_host

# Divides zero to zero.
_TINY = float(np.finfo(np.float64).tiny)


class DistinctRows(NamedTuple):
    """Rows of different values, all of positive weight.

    Attributes
    ----------
    first : int64 [m], the number of the first row that has each value.
    weight : float64 [m], the total weight of the rows that have it.
    """

    first: Int64
    weight: Float64

    def sample(self, n: int, distances: Float64, random_state: Any) -> "DistinctRows":
        """At most n rows that stand for all; all of them if there are no more.

        Parameters
        ----------
        n : rows wanted.
        distances : float64 [m], squared distances to some point near the rows' middle.
        random_state : numpy.random.RandomState.

        Notes
        -----
        Bachem, Lucic and Krause, "Scalable k-means clustering via lightweight coresets" (2018):
        half of the rows are drawn by weight and half by their part in the variance, and each
        weighs as much as rows like it are rarely drawn. Drawn at even steps, not independently.
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

    Equal rows have equal distances. Different rows have different ones, but for coincidences of
    float64, where one of the two stands for both.

    Parameters
    ----------
    rows : n rows.
    weight : float64 [n] or None; rows of weight zero are left out.
    moments : of the rows; the point lies about as far from the mean as a row does.
    random_state : numpy.random.RandomState.
    """
    spread = math.sqrt(moments.variance)
    point = moments.mean + spread * random_state.standard_normal(rows.d)
    keys = to_host(rows.assign(point[None])[1])
    order = np.argsort(keys, kind="stable")
    if weight is not None:
        order = order[weight[order] > 0]
    ordered = keys[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    if weight is None:
        total = np.diff(np.append(starts, len(order))).astype(np.float64)
    else:
        total = np.add.reduceat(weight[order], starts)
    return DistinctRows(order[starts], total)


def draw(random_state: Any, cumulative: Float64, n: int) -> Int64:
    """Draw n places in proportion to the steps of `cumulative`; never one whose step is zero."""
    points = random_state.random_sample(n) * cumulative[-1]
    drawn = np.searchsorted(cumulative, points, side="right")
    last = int(np.searchsorted(cumulative, cumulative[-1], side="left"))
    return np.asarray(np.minimum(drawn, last), dtype=np.int64)
