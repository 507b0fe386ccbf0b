"""Float64 rows of extreme magnitude, which are multiplied by a power of two and then clustered.

Squared distances of values above 1e19 leave the range of float32, which the screens use. Squared
distances of values below 1e-162 are zero even in float64. A power of two changes no digit of the
values, so the clusters are those of the given rows.
"""

import math
from typing import Any

import numpy as np

from ktfast.errors import InputError
from ktfast.kmeans.array_types import Float64
from ktfast.kmeans.data.moments import Moments, moments_of
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.inputs import wrapped
from ktfast.native.arrays import contiguous, on_device

# Values whose largest magnitude lies between 2^-300 and 2^60 are used as they are.
_LEAST, _MOST = -300, 60
# The squares of larger values leave the range of float64.
_LARGEST = 500
_SCAN_ROWS = 1 << 16
# Rows of a smaller variance are constant, or so small that their squares may be zero.
_TINY_VARIANCE = 1e-200


def moments_in_range(estimator: Any, rows: Rows, weight: Float64 | None) -> tuple[Rows, Moments]:
    """Compute the moments of the rows; replace rows of extreme magnitude by scaled copies.

    Parameters
    ----------
    estimator : KMeans
        The estimator, which says where and how the rows are processed.
    rows : Rows
        The data [n, d].
    weight : array, float64 [n], optional
        Weights of the rows. None means that all weights are 1.

    Returns
    -------
    rows : Rows
        The rows, or scaled copies. `Rows.exponent` tells the scale.
    moments : Moments
        Mean and variance of these rows.

    Raises
    ------
    InputError
        The rows hold NaN or infinity, or their squares are beyond the range of their dtype.
    """
    try:
        moments = moments_of(rows, weight)
    except InputError:
        exponent = _exponent(rows)
        if exponent == 0:
            raise
    else:
        exponent = _exponent(rows) if moments.variance < _TINY_VARIANCE else 0
        if exponent == 0:
            return rows, moments
    rows = _scaled(estimator, rows, exponent)
    return rows, moments_of(rows, weight)


def rows_in_range(estimator: Any, rows: Rows, centers: Float64) -> Rows:
    """Replace rows by scaled copies if the centres float64 [k, d] are of extreme magnitude."""
    if math.frexp(np.abs(centers).max(initial=0))[1] in range(_LEAST, _MOST + 1):
        return rows
    exponent = _exponent(rows, float(np.abs(centers).max(initial=0)))
    return rows if exponent == 0 else _scaled(estimator, rows, exponent)


def check_magnitude(rows: Rows) -> None:
    """Refuse finite rows whose squares leave the range of float64.

    Raises
    ------
    InputError
        A value is too large. The message says how large.
    """
    peak = _peak(rows)
    if peak < math.inf and math.frexp(peak)[1] > _LARGEST:
        raise InputError(
            f"X contains values too large to cluster, up to {peak:.3g}: squares of values above "
            "1e150 leave the range of float64; rescale X"
        )


def unscaled(value: Any, exponent: int) -> Any:
    """Multiply a number, or an array on any device, by ``2 ** exponent``."""
    if exponent == 0:
        return value
    half = exponent // 2
    if isinstance(value, int | float):
        return float(np.ldexp(value, exponent))
    with on_device(value), np.errstate(over="ignore", under="ignore"):
        return value * 2.0**half * 2.0 ** (exponent - half)


def unscaled_history(history: list[dict[str, float]], exponent: int) -> list[dict[str, float]]:
    """Bring the squared distances of `KMeans.history_` to the scale of the user's rows."""
    if exponent == 0:
        return history
    squares = ("inertia", "shift")
    return [row | {name: unscaled(row[name], exponent) for name in squares} for row in history]


def _exponent(rows: Rows, at_least: float = 0.0) -> int:
    """The exponent with which the largest magnitude becomes about one; 0 if it is ordinary.

    Only float64 rows are scaled. Spherical K-means scales every row to length one anyway.
    """
    if rows.dtype != "float64" or not rows.plain_means:
        return 0
    peak = max(_peak(rows), at_least)
    if not 0 < peak < math.inf:  # NaN and infinity are refused elsewhere
        return 0
    check_magnitude(rows)
    exponent = math.frexp(peak)[1]
    return 0 if _LEAST <= exponent <= _MOST else -exponent


def _peak(rows: Rows) -> float:
    """The largest magnitude of the rows of all processes; infinity if a value is NaN."""
    peak = 0.0
    for _, block in rows.shard_blocks(_SCAN_ROWS):
        with on_device(block):
            largest = float(abs(contiguous(block, "float64")).max())
        peak = math.inf if math.isnan(largest) else max(peak, largest)
    return max(rows.ranks.gather_to_all(peak))


def _scaled(estimator: Any, rows: Rows, exponent: int) -> Rows:
    """Copy the rows, times ``2 ** exponent``."""
    shards = []
    for shard in rows.shards:
        with on_device(shard), np.errstate(under="ignore"):
            shards.append(unscaled(contiguous(shard, "float64"), exponent))
    copies = wrapped(estimator, shards, like=rows.workspace.results_like)
    copies.exponent = exponent
    copies.ranks, copies.first, copies.total = rows.ranks, rows.first, rows.total
    return copies
