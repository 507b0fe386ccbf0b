"""How far the centres have moved, which decides how long bounds on distances hold.

`ktfast.ops.kmeans_rows.DistanceBounds` are the bounds, and `ktfast.ops.kmeans_screen` uses them.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ktfast.native.modules import cpu

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]

# How many of the centres that moved farthest `Drift` lists.
_FARTHEST = cpu.KMEANS_FARTHEST


class Drift(NamedTuple):
    """How far the centres have moved since the last assignment and since each snapshot.

    Attributes
    ----------
    moved : array, uint8 [k]
        1 for the centres that have moved since the last assignment, else 0.
    drift : array, float32 [epochs, k]
        The distance of each centre to its place in the snapshot of an epoch, rounded up.
    farthest : array, int32 [epochs, 128]
        The centres of largest drift, the largest first; -1 where there are fewer.
    farthest_moved : array, int32 [epochs, 128]
        Like `farthest`, of the centres that have moved since the last assignment.
    """

    moved: npt.NDArray[np.uint8]
    drift: Float32
    farthest: Int32
    farthest_moved: Int32


def kmeans_drift(
    centers: Float64,
    previous: Float64,
    snapshots: Float32,
    snapshot_error: Float32,
    *,
    drift: Float32 | None = None,
    known: npt.NDArray[np.bool_] | None = None,
    n_threads: int,
) -> Drift:
    """Measure how far the centres are from the previous centres and from snapshots.

    Parameters
    ----------
    centers : array, float64 [k, d]
        The centres.
    previous : array, float64 [k, d]
        The centres of the last assignment.
    snapshots : array, float32 [epochs, k, d]
        Copies of earlier centres.
    snapshot_error : array, float32 [epochs]
        How far, at most, a centre rounded to float32 is from the centre that was copied.
    drift : array, float32 [epochs, k], optional
        Memory for `Drift.drift`.
    known : array, bool [epochs], optional
        For which epochs `drift` already holds the movement up to `previous`. For these epochs, only
        the values of centres that have moved since `previous` are computed. None: for no epoch.
    n_threads : int
        How many CPU threads to use.

    Returns
    -------
    Drift
        The movements.
    """
    n_epochs, k = snapshots.shape[:2]
    if known is None:
        known = np.zeros(n_epochs, bool)
    found = Drift(
        np.empty(k, np.uint8),
        np.empty((n_epochs, k), np.float32) if drift is None else drift,
        np.empty((n_epochs, _FARTHEST), np.int32),
        np.empty((n_epochs, _FARTHEST), np.int32),
    )
    cpu.kmeans_drift(
        centers=centers,
        previous=previous,
        snapshots=snapshots,
        snapshot_error=snapshot_error,
        known=known.view(np.uint8),
        n_threads=n_threads,
        **found._asdict(),
    )
    return found
