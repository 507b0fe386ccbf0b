"""What `ktfast.ops.kmeans_screen` keeps of rows and centres: codes, bounds of distances, places."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ktfast.native.modules import cpu

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]

# How many of a row's nearest centres have a bound of their own.
NEAR_CENTERS = cpu.KMEANS_NEAR_CENTERS


class Grouped(NamedTuple):
    """An order of centres, in which every 64 successive centres are a group, and their places.

    Attributes
    ----------
    order : array, int32 [k]
        The numbers of the centres, each once.
    places : array, float32 [k, 9]
        The place of each centre: its coordinates in eight orthonormal directions, after the
        screen's mean is subtracted, and the length of the rest. Computed in float64.
    """

    order: Int32
    places: Float32


class RowCodes(NamedTuple):
    """Coded rows, with the numbers that bound the error of each code.

    Attributes
    ----------
    codes : array, int8 [n, bytes of a code]
        The codes.
    constants : array, float32 [n, 7]
        The scale and the lengths that the certificate needs, for each row.
    """

    codes: npt.NDArray[np.int8]
    constants: Float32

    def at(self, rows: slice) -> "RowCodes":
        """Return the codes of some rows; the result shares the memory."""
        return RowCodes(self.codes[rows], self.constants[rows])


class DistanceBounds(NamedTuple):
    """Lower bounds of each row's distances to the centres of one snapshot.

    `Screen.assign` writes the bounds and `Screen.reassign` uses them. `Screen.assign` has an
    argument `margin`. A centre becomes a candidate if its squared distance may be at most
    (1 + margin) times the squared distance to the nearest centre. A wider margin raises
    `rest_bound` and leaves more candidates.

    Attributes
    ----------
    near : array, int32 [n, 16]
        The nearest centres of each row, in any order; -1 where there are fewer.
    near_bounds : array, float32 [n, 16]
        Lower bounds of the distances to the centres in `near`.
    rest_bound : array, float32 [n]
        A lower bound of the distances to all centres that are not in `near`.
    epochs : array, uint8 [n]
        The number of the snapshot of the centres to which the bounds refer.
    spent : array, uint16 [n]
        How many distances were computed since the bounds were written.
    """

    near: Int32
    near_bounds: Float32
    rest_bound: Float32
    epochs: npt.NDArray[np.uint8]
    spent: npt.NDArray[np.uint16]

    @classmethod
    def empty(cls, n: int) -> "DistanceBounds":
        """Allocate the bounds of n rows, 135 bytes for each."""
        return cls(
            np.empty((n, NEAR_CENTERS), np.int32),
            np.empty((n, NEAR_CENTERS), np.float32),
            np.empty(n, np.float32),
            np.zeros(n, np.uint8),
            np.empty(n, np.uint16),
        )

    def at(self, rows: slice) -> "DistanceBounds":
        """Return the bounds of some rows; the result shares the memory."""
        return DistanceBounds(
            self.near[rows],
            self.near_bounds[rows],
            self.rest_bound[rows],
            self.epochs[rows],
            self.spent[rows],
        )
