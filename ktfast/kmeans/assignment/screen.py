"""The choice of a screen for a fit: its precision, and a basis of few directions.

The choice never changes a label. Each possible screen is tried on a sample of the rows, and the
number of candidates decides which screen is cheapest.
"""

import logging
import math
from typing import NamedTuple

import numpy as np

from ktfast.kmeans.array_types import Float32, Float64, Int32, Int64
from ktfast.kmeans.assignment.directions import principal_directions
from ktfast.kmeans.data.rows import Rows
from ktfast.ops.kmeans_rows import NEAR_CENTERS
from ktfast.ops.kmeans_screen import Screen, codes_for
from ktfast.ops.middle import spread_places

_logger = logging.getLogger(__name__)

# Screens are tried on one row in 32, but at least and at most on these numbers of rows.
_LEAST_SAMPLE, _MOST_SAMPLE = 128, 512
_MARGIN_SAMPLE = 64
# The search for a basis takes less time than it saves if a pass has at least this many distances
# and the rows have at least this many features.
_BASIS_DISTANCES = 2e7
_LEAST_FEATURES = 64
_MOST_COORDINATES = 256
_COORDINATES = (32, 64, 128, 256)
# The margin is this share of the way from a row's nearest centre to its 17th nearest, in squared
# distances. With this margin, recording bounds costs little more than screening, and the bounds
# hold for several iterations (measured).
_MARGIN_SHARE = 0.6
# Bounds get looser as the centres move. Up to 64 fast centres do not loosen the bounds, because the
# bounded pass compares these centres one by one.
_FAST_CENTERS = 64
# From one pass to the next, the movement of the centres falls to about this share (measured).
_MOVEMENT_FALLS = 0.75
# Bounds serve at most this many passes, because by then some of the slow centres have moved far.
_MOST_PASSES = 8
# The slack says how far the bounds of a row reach beyond its nearest centre, as a share of the
# distance to this centre. Few data sets have a slack above 0.5. If bounds would not save time even
# with a slack of 0.5, the slack of the data is not measured.
_MOST_SLACK = 0.5
# Expected number of passes that use the codes of the rows in a basis.
_PASSES_PER_CODE = 3


class LaterScreen(NamedTuple):
    """The screen for the rest of a fit.

    Attributes
    ----------
    screen : Screen
        The cheapest screen.
    margin : float
        Margin of the distance bounds, see `ktfast.ops.kmeans_rows.DistanceBounds`. With this
        margin, about 16 centres of a row become candidates, and bounds of 16 centres are stored.
    cost : float
        Estimated clock cycles for recording the bounds of a row.
    """

    screen: Screen
    margin: float
    cost: float


def first_screen(rows: Rows, mean: Float64, centers: Float64, precision: str) -> Screen:
    """Choose the cheapest screen for rows without former labels."""
    screens = _feature_screens(rows, mean, precision)
    if len(screens) == 1:
        return screens[0]
    sample = rows.take(_sampled(rows.n)).astype(rows.center_dtype)
    return min(screens, key=lambda screen: screen.try_on(sample, centers).cycles)


def later_screen(
    rows: Rows,
    mean: Float64,
    centers: Float64,
    labels: Int32,
    precision: str,
    share: float = 1.0,
) -> LaterScreen:
    """Choose the cheapest screen for rows whose nearest centre is nearly known.

    Parameters
    ----------
    rows : Rows
        The data [n, d].
    mean : array, float64 [d]
        Mean of the rows.
    centers : array, float64 [k, d]
        The present centres.
    labels : array, int32 [n]
        Labels of former centres.
    precision : str
        See `ktfast.ops.kmeans_assign`.
    share : float, default 1
        Share of the centres that a pass compares with a row.

    Returns
    -------
    later : LaterScreen
        The screen, and how to use it.
    """
    where = _sampled(rows.n)
    sample = rows.take(where)
    margin = _good_margin(sample, centers)
    screens = _feature_screens(rows, mean, precision)
    screens += _basis_screens(rows, mean, screens[-1], len(centers), share)
    sample = sample.astype(rows.center_dtype)
    trials = [screen.try_on(sample, centers, labels[where], margin) for screen in screens]
    cycles = [
        trial.cycles + screen.n_coordinates * rows.d / 16 / _PASSES_PER_CODE
        for screen, trial in zip(screens, trials, strict=True)
    ]
    # Bounds with more slack hold for more passes.
    cost_per_slack = [c / max(trial.slack, 0.01) for c, trial in zip(cycles, trials, strict=True)]
    best = int(np.argmin(cost_per_slack))
    screen, cost = screens[best], cycles[best]
    _logger.debug(
        "k-means: screens %d of %d directions in %s, margin %.3g, about %.0f cycles a row",
        screen.n_coordinates or rows.d,
        rows.d,
        screen.code,
        margin,
        cost,
    )
    return LaterScreen(screen, margin, cost)


class Outlook:
    """Predicts whether distance bounds would save more time in later passes than they cost.

    Parameters
    ----------
    screen : Screen
        Screen of the passes without bounds.
    rows : Rows
        The data [n, d].
    share : float, default 1
        Share of the centres that such a pass compares with a row.
    """

    def __init__(self, screen: Screen, rows: Rows, share: float = 1.0) -> None:
        self._share = share
        self._screen = screen
        self._rows = rows
        self._asked = 0
        self._slack = 0.0

    def bounds_pay(self, centers: Float64, previous: Float64, distances: Float64) -> bool:
        """Predict whether bounds pay if the next pass records them.

        Parameters
        ----------
        centers : array, float64 [k, d]
            Centres of the next pass.
        previous : array, float64 [k, d]
            Centres of the last pass.
        distances : array, float64 [n]
            Squared distances of the rows to their nearest previous centres.

        Returns
        -------
        pays : bool
            Whether the bounds are expected to pay.
        """
        cost = self._screen.product_cost(len(centers)) * self._share
        recording = self._screen.noting_cost
        if cost * _MOST_PASSES <= recording:
            return False
        fast = min(_FAST_CENTERS, len(centers) // 4)
        with np.errstate(over="ignore", invalid="ignore"):
            moved = centers - previous
            steps = np.sqrt(np.einsum("kd,kd->k", moved, moved))
            step = float(np.partition(steps, -1 - fast)[-1 - fast])
            distance = float(np.sqrt(distances.mean()))
        if cost * _passes(distance * _MOST_SLACK, step) <= recording:
            return False
        self._asked += 1
        # The slack changes slowly, so it is measured in calls 1, 2, 4, 8, ...
        if self._asked.bit_count() == 1:
            sample = self._rows.take(spread_places(self._rows.n, _MARGIN_SAMPLE))
            self._slack = math.sqrt(1 + _good_margin(sample, centers)) - 1
        return cost * _passes(distance * self._slack, step) > recording


def _passes(slack: float, step: float) -> float:
    """Predict for how many passes bounds serve if most centres moved by `step` in the last pass."""
    # Movements add up to step x (f + f^2 + ...) with f = `_MOVEMENT_FALLS`. Bounds hold until the
    # sum reaches their slack.
    left = 1 - slack * (1 - _MOVEMENT_FALLS) / max(step * _MOVEMENT_FALLS, 1e-300)
    if not left > 0:
        return _MOST_PASSES
    return min(_MOST_PASSES, math.log(left) / math.log(_MOVEMENT_FALLS))


def _good_margin(sample: Float64, centers: Float64) -> float:
    """Compute the margin from the median ratio of squared distances, 17th nearest to nearest."""
    if len(centers) <= NEAR_CENTERS:
        return 0.0
    from sklearn.metrics.pairwise import euclidean_distances  # slow to import

    squares = euclidean_distances(sample, centers, squared=True)
    squares = np.partition(squares, (0, NEAR_CENTERS), axis=1)
    nearest = np.maximum(squares[:, 0], 1e-3 * squares[:, NEAR_CENTERS] + 1e-300)
    return _MARGIN_SHARE * (float(np.median(squares[:, NEAR_CENTERS] / nearest)) - 1)


def _feature_screens(rows: Rows, mean: Float64, precision: str) -> list[Screen]:
    """Screens of all features, one for each code of the precision that is fast on this CPU."""
    rounded = mean.astype(np.float32)
    codes = codes_for(precision)
    if "bfloat16" in codes and rows.d >= _LEAST_FEATURES and len(codes) > 1:
        codes.remove("float32")  # bfloat16 leaves as few candidates, in half the time
    return [Screen(rounded, code, n_threads=rows.threads) for code in codes]


def _basis_screens(
    rows: Rows, mean: Float64, plain: Screen, n_clusters: int, share: float
) -> list[Screen]:
    """Screens of a few principal directions; none if the products are a small part of a pass."""
    if (
        rows.d < _LEAST_FEATURES
        or rows.n * n_clusters < _BASIS_DISTANCES
        or plain.product_cost(n_clusters) * share <= plain.noting_cost / 2
    ):
        return []
    directions = principal_directions(rows, mean, min(rows.d, _MOST_COORDINATES))
    return [
        Screen(plain.mean, plain.code, _mixed(directions[:, :m]), n_threads=plain.n_threads)
        for m in _COORDINATES
        if m <= directions.shape[1]
    ]


def _mixed(basis: Float32) -> Float32:
    """Rotate a basis at random, so that coordinates have similar sizes, as int8 codes need."""
    size = basis.shape[1]
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(size, size)))[0]
    return np.asarray(basis.astype(np.float64) @ rotation, dtype=np.float32)


def _sampled(n: int) -> Int64:
    """Numbers of the rows on which screens are tried."""
    return spread_places(n, min(max(n // 32, _LEAST_SAMPLE), _MOST_SAMPLE))
