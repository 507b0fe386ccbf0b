"""Distances between many rows at BLAS speed, the same bits everywhere: rows rounded to 8 bits.

Products of such rows are integers that float32 holds exactly, so a BLAS adds them up to the same
result in any order: on any machine, with any number of threads.
"""

import numpy as np
import numpy.typing as npt

from ktfast.kmeans.rows import Float64

Float32 = npt.NDArray[np.float32]

_LEVELS = 127
# 127 * 127 * 1024 < 2^24: so many products add up exactly in float32.
_EXACT_FEATURES = 1024
# Bytes of the blocks that are widened from int8, and of those that distances are made in.
_BLOCK_BYTES = 1 << 23


class ByteRows:
    """Rows [n, d] about a common origin, each rounded to 255 levels of its own scale.

    Parameters
    ----------
    values : float64 [n, d].
    origin : float64 [d]; the nearer it is to the rows, the less is lost.
    unit : length that distances are measured in, so that float32 holds them.

    Attributes
    ----------
    digits : int8 [n, d].
    scale : float64 [n]; a row is about ``origin + unit * scale * digits``.
    norms : float64 [n], squared norms of ``scale * digits``.
    """

    def __init__(self, values: Float64, origin: Float64, unit: float) -> None:
        centered = values - origin
        largest = np.abs(centered).max(axis=1, initial=0)
        step = np.where(largest > 0, largest, 1) / _LEVELS
        self.digits = np.rint(centered / step[:, None]).astype(np.int8)
        self.scale = step / unit
        squares = np.einsum("nd,nd->n", self.digits, self.digits, dtype=np.int64)
        # Multiplied in the order of `distances`, which is then exactly zero for equal rows.
        self.norms = squares * self.scale * self.scale

    def __len__(self) -> int:
        return len(self.digits)

    def distances(self, others: "ByteRows") -> Float32:
        """Squared distances float32 [len(self), len(others)] between the rounded rows."""
        table = np.empty((len(self), len(others)), dtype=np.float32)
        own = self.digits.astype(np.float32)
        step = max(1, _BLOCK_BYTES // (4 * max(1, own.shape[1], 2 * len(self))))
        for start in range(0, len(others), step):
            block = slice(start, start + step)
            part = _products(own, others.digits[block].astype(np.float32))
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
