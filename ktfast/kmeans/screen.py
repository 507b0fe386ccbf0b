"""Which screen a fit uses: the precision, and the basis that lets most of the features be left out.

The choice never changes a label; it is made by counting, on a sample of the rows, how many centres
pass each screen.
"""

import logging
import math

import numpy as np
import numpy.typing as npt
from sklearn.metrics.pairwise import euclidean_distances

from ktfast.kmeans.rows import Float64, Int32, Rows
from ktfast.ops.kmeans_screen import NEAR_CENTERS, Float32, Screen, codes_for

_logger = logging.getLogger(__name__)

# Rows that screens are tried on: so many, or a thirty-second of few.
_SAMPLES = (128, 512)
_MARGIN_SAMPLE = 64
_BASIS_SAMPLE = 1024
# A basis is looked for where a pass takes so many distances that finding it pays, and where these
# take much of a pass.
_BASIS_DISTANCES = 2e7
_LEAST_FEATURES = 64
_MOST_COORDINATES = 256
# Of the way from a row's nearest centre to its 17th, in squares: noting bounds up to there costs
# little more than screening, and they hold for several iterations (measured).
_MARGIN_SHARE = 0.6
# Bounds are spent by the drift of most centres: a few are compared by name. From one pass to the
# next it falls to about this share (measured).
_NAMED = 64
_DRIFT_FALLS = 0.75
# Even of slow centres some are new or have come far after so many passes.
_MOST_PASSES = 8
# Slack, as a share of a row's distance, that few data have: without it there is no need to ask how
# much these have.
_MOST_SLACK = 0.5
_COORDINATES = (32, 64, 128, 256)
# Dense passes over the rows that their codes in a basis are expected to serve.
_PASSES = 3


def first_screen(rows: Rows, mean: Float64, centers: Float64, precision: str) -> Screen:
    """The cheapest screen for rows of which nothing is known yet."""
    screens = _plain(rows, mean, precision)
    if len(screens) == 1:
        return screens[0]
    sample = rows.take(_sampled(rows.n)).astype(rows.center_dtype)
    return min(screens, key=lambda screen: screen.try_on(sample, centers).cycles)


def later_screen(
    rows: Rows, mean: Float64, centers: Float64, labels: Int32, precision: str
) -> tuple[Screen, float, float]:
    """The cheapest screen for rows whose nearest centre is nearly known.

    Returns
    -------
    the screen, the margin at which about as many centres pass as bounds can name, and the clock
    cycles that noting the bounds of a row takes, roughly.
    """
    where = _sampled(rows.n)
    sample = rows.take(where)
    margin = _good_margin(sample, centers)
    screens = _plain(rows, mean, precision)
    plain = screens[-1]
    if (
        rows.d >= _LEAST_FEATURES
        and rows.n * len(centers) >= _BASIS_DISTANCES
        and plain.product_cost(len(centers)) > plain.noting_cost / 2
    ):
        directions = principal_directions(rows, mean, min(rows.d, _MOST_COORDINATES))
        screens += [
            Screen(plain.mean, plain.code, _mixed(directions[:, :m]), n_threads=plain.n_threads)
            for m in _COORDINATES
            if m <= directions.shape[1]
        ]
    sample = sample.astype(rows.center_dtype)
    trials = [screen.try_on(sample, centers, labels[where], margin) for screen in screens]
    cycles = [
        trial.cycles + screen.n_coordinates * rows.d / 16 / _PASSES  # its codes are made once
        for screen, trial in zip(screens, trials, strict=True)
    ]
    # Bounds hold the longer, the more slack they have.
    worth = [c / max(trial.slack, 0.01) for c, trial in zip(cycles, trials, strict=True)]
    best = int(np.argmin(worth))
    screen, cost = screens[best], cycles[best]
    _logger.debug(
        "k-means: screens %d of %d directions in %s, margin %.3g, about %.0f cycles a row",
        screen.n_coordinates or rows.d,
        rows.d,
        screen.code,
        margin,
        cost,
    )
    return screen, margin, cost


class Outlook:
    """Whether to note bounds would save more in the passes to come than it takes.

    Parameters
    ----------
    screen : of passes without bounds.
    rows : to be assigned.
    """

    def __init__(self, screen: Screen, rows: Rows) -> None:
        self._screen = screen
        self._rows = rows
        self._asked = 0
        self._slack = 0.0

    def bounds_pay(self, centers: Float64, previous: Float64, distances: Float64) -> bool:
        """Ask before a pass.

        Parameters
        ----------
        centers, previous : float64 [k, d], of this assignment and of the last.
        distances : float64 [n], squared, of the rows to their nearest previous centres.
        """
        cost = self._screen.product_cost(len(centers))
        noting = self._screen.noting_cost
        if cost * _MOST_PASSES <= noting:
            return False
        named = min(_NAMED, len(centers) // 4)
        with np.errstate(over="ignore", invalid="ignore"):
            moved = centers - previous
            steps = np.sqrt(np.einsum("kd,kd->k", moved, moved))
            step = float(np.partition(steps, -1 - named)[-1 - named])
            reach = float(np.sqrt(distances.mean()))
        if cost * _passes(reach * _MOST_SLACK, step) <= noting:
            return False
        self._asked += 1
        if self._asked.bit_count() == 1:  # it changes slowly
            sample = self._rows.take(_spread(self._rows.n, _MARGIN_SAMPLE))
            self._slack = math.sqrt(1 + _good_margin(sample, centers)) - 1
        return cost * _passes(reach * self._slack, step) > noting


def _passes(slack: float, step: float) -> float:
    """How many passes bounds serve if the drift of most centres was `step` in the last one."""
    # Drift adds up to step x (falls + falls^2 + ...); bounds hold until that is their slack.
    left = 1 - slack * (1 - _DRIFT_FALLS) / max(step * _DRIFT_FALLS, 1e-300)
    if not left > 0:
        return _MOST_PASSES
    return min(_MOST_PASSES, math.log(left) / math.log(_DRIFT_FALLS))


def _good_margin(sample: Float64, centers: Float64) -> float:
    """How much farther, in squares, a row's 17th nearest centre is than its nearest; the median."""
    if len(centers) <= NEAR_CENTERS:
        return 0.0
    squares = euclidean_distances(sample, centers, squared=True)
    squares = np.partition(squares, (0, NEAR_CENTERS), axis=1)
    nearest = np.maximum(squares[:, 0], 1e-3 * squares[:, NEAR_CENTERS] + 1e-300)
    return _MARGIN_SHARE * (float(np.median(squares[:, NEAR_CENTERS] / nearest)) - 1)


def principal_directions(rows: Rows, mean: Float64, count: int) -> Float32:
    """Orthonormal columns float32 [d, <= count] that span much of the rows, most important first.

    Notes
    -----
    Randomised subspace iteration on a sample: Halko, Martinsson, Tropp, "Finding structure with
    randomness" (2011). Any orthonormal columns are valid; better ones let fewer centres pass.
    """
    sample = (rows.take(_spread(rows.n, _BASIS_SAMPLE)) - mean).astype(np.float32)
    count = min(count, *sample.shape)
    generator = np.random.default_rng(0)
    if rows.d <= _MOST_COORDINATES:
        directions = np.linalg.eigh(sample.T @ sample)[1][:, ::-1][:, :count]
    else:
        directions = generator.normal(size=(rows.d, count)).astype(np.float32)
        for _ in range(2):
            directions = np.linalg.qr(sample.T @ (sample @ directions))[0]
        projected = sample @ directions
        directions = directions @ np.linalg.eigh(projected.T @ projected)[1][:, ::-1]
    # The products left the columns a little off orthonormal.
    return np.asarray(np.linalg.qr(directions.astype(np.float64))[0], dtype=np.float32)


def _mixed(basis: Float32) -> Float32:
    """Another basis of the same space: mixed, coordinates are alike in size, as int8 codes like."""
    size = basis.shape[1]
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(size, size)))[0]
    return np.asarray(basis.astype(np.float64) @ rotation, dtype=np.float32)


def _plain(rows: Rows, mean: Float64, precision: str) -> list[Screen]:
    """Screens of the features themselves: in the forced precision, else in all that are fast."""
    rounded = mean.astype(np.float32)
    codes = codes_for(precision)
    if "bfloat16" in codes and rows.d >= _LEAST_FEATURES and len(codes) > 1:
        codes.remove("float32")  # as few centres pass in bfloat16, in half the time
    return [Screen(rounded, code, n_threads=rows.threads) for code in codes]


def _sampled(n: int) -> npt.NDArray[np.int64]:
    least, most = _SAMPLES
    return _spread(n, min(max(n // 32, least), most))


def _spread(n: int, count: int) -> npt.NDArray[np.int64]:
    """Up to `count` of n row numbers, evenly spaced."""
    return np.arange(0, n, -(-n // count), dtype=np.int64)
