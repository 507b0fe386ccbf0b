"""Rows scaled to length one, whatever the magnitude of their values.

Internal: the transforms of features and the nearest-neighbour probe use this module. The squares of
values above 1e19 or below 1e-23 leave the range of float32, so that a length computed from these
squares is infinite or zero. Such rows are therefore multiplied by a power of two first.
"""

import math
from typing import Any

__all__ = ["common_exponent", "scaled", "tame_rows", "unit_rows"]

# Rows whose largest magnitude lies between 2^-40 and 2^40 keep their bits.
_ORDINARY = 40


def tame_rows(rows: Any) -> Any:
    """Convert rows to float32, and rows of extreme magnitude to a magnitude of about one.

    Parameters
    ----------
    rows : Tensor [n, d]
        Numbers of any dtype.

    Returns
    -------
    rows : Tensor, float32 [n, d]
        The rows. A row whose largest magnitude is outside 2^-40 .. 2^40 is multiplied by a power of
        two. Rows of zeros, and rows with NaN or infinity, are only converted.
    """
    if rows.shape[1] == 0 or not rows.is_floating_point() or rows.element_size() < 4:
        return rows.float()  # these dtypes hold no number whose square leaves the range of float32
    peak = rows.detach().abs().amax(1, keepdim=True).double()
    wild = (peak > 0) & (peak.log2().abs() > _ORDINARY) & peak.isfinite()
    if not bool(wild.any()):
        return rows.float()
    exponents = peak.frexp().exponent * wild
    return scaled(rows, -exponents)


def unit_rows(rows: Any) -> Any:
    """Scale rows [n, d] of any dtype to length one, float32; rows of zeros stay zero."""
    rows = tame_rows(rows)
    norms = rows.norm(dim=1, keepdim=True)
    return rows / norms.masked_fill(norms == 0, 1)


def common_exponent(peak: float, least: int, most: int) -> int:
    """Choose the power of two by which values of extreme magnitude are multiplied.

    Parameters
    ----------
    peak : float
        The largest magnitude of the values.
    least, most : int
        A peak between 2^least and 2^most is ordinary.

    Returns
    -------
    exponent : int
        0 for an ordinary peak, for 0, infinity and NaN. Otherwise the exponent with which the peak
        becomes about one.
    """
    if not 0 < peak < math.inf:
        return 0
    exponent = math.frexp(peak)[1]
    return 0 if least <= exponent <= most else -exponent


def scaled(rows: Any, exponent: Any) -> Any:
    """Multiply rows [n, d] by ``2 ** exponent`` in float64; return float32.

    The multiplication takes two steps, because a factor such as 2^1074 is no float64 number.
    """
    half = exponent // 2
    rows = rows.double()
    for step in (half, exponent - half):
        factor = rows.new_full((), 2.0) ** step
        rows = rows * factor
    return rows.float()
