"""Distances between many rows, as fast as a BLAS and with the same bits on all machines.

The rows are rounded to 8 bits. Products of such rows are integers that float32 holds exactly. So
every BLAS computes the same sums, in any order and with any number of threads.
"""

import functools

import numpy as np

from ktfast.kmeans.array_types import Float32, Float64, Int64

_LEVELS = 127
# 127 * 127 * 1024 < 2^24, so float32 adds up the products of 1,024 features exactly.
_EXACT_FEATURES = 1024
# Most bytes of a block of float32 rows, and of a block of float64 distances.
_BLOCK_BYTES = 1 << 23


class ByteRows:
    """Rows [n, d] about a common origin, each rounded to 255 levels of its own scale.

    Parameters
    ----------
    values : array, float64 [n, d]
        The rows.
    origin : array, float64 [d]
        The common origin. The nearer it is to the rows, the less is lost by rounding.
    unit : float
        Length in which distances are measured, so that float32 can hold the distances.

    Attributes
    ----------
    digits : array, int8 [n, d]
        The rounded rows, each in units of its own scale.
    scale : array, float64 [n]
        Scale of each row. A row is about ``origin + unit * scale * digits``.
    norms : array, float64 [n]
        Squared norms of ``scale * digits``.
    """

    def __init__(self, values: Float64, origin: Float64, unit: float) -> None:
        centered = values - origin
        largest = np.abs(centered).max(axis=1, initial=0)
        step = np.where(largest > 0, largest, 1) / _LEVELS
        self.digits = np.rint(centered / step[:, None]).astype(np.int8)
        self.scale = step / unit
        squares = np.einsum("nd,nd->n", self.digits, self.digits, dtype=np.int64)
        # `distances` multiplies in the same order, so the distance of equal rows is exactly zero.
        self.norms = squares * self.scale * self.scale

    def __len__(self) -> int:
        return len(self.digits)

    def take(self, places: Int64 | list[int]) -> "ByteRows":
        """Copy some rows, which keep their digits, scales and norms."""
        part = ByteRows.__new__(ByteRows)
        part.digits = self.digits[places]
        part.scale, part.norms = self.scale[places], self.norms[places]
        return part

    @functools.cached_property
    def _floats(self) -> Float32:
        """The digits as float32 [n, d]."""
        return self.digits.astype(np.float32)

    def distances(self, others: "ByteRows") -> Float32:
        """Squared distances float32 [len(self), len(others)] between the rounded rows."""
        table = np.empty((len(self), len(others)), dtype=np.float32)
        own = self.digits.astype(np.float32)
        step = max(1, _BLOCK_BYTES // (4 * max(1, own.shape[1], 2 * len(self))))
        is_small = 4 * others.digits.size <= _BLOCK_BYTES
        for start in range(0, len(others), step):
            block = slice(start, start + step)
            floats = others._floats[block] if is_small else others.digits[block].astype(np.float32)
            part = _products(own, floats)
            part *= self.scale[:, None]
            part *= others.scale[block]
            part *= -2
            part += self.norms[:, None]
            part += others.norms[block]
            np.maximum(part, 0, out=table[:, block], casting="same_kind")
        return table


def _products(a: Float32, b: Float32) -> Float64:
    """``a @ b.T`` for integers of at most 127, exactly."""
    total = (a[:, :_EXACT_FEATURES] @ b[:, :_EXACT_FEATURES].T).astype(np.float64)
    for start in range(_EXACT_FEATURES, a.shape[1], _EXACT_FEATURES):
        features = slice(start, start + _EXACT_FEATURES)
        total += a[:, features] @ b[:, features].T
    return total
