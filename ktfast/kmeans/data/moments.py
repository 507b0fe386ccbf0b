"""Mean and variance of the rows, and a check that the distances of the rows can be computed."""

from typing import Any, NamedTuple, NoReturn

import numpy as np

from ktfast.errors import InputError
from ktfast.kmeans.array_types import Float64
from ktfast.kmeans.data.passes import all_below, inertia_of, nearest_centers
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.data.workspace import float64_on_host, to_host
from ktfast.ops.kmeans_update import kmeans_update

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_SCAN_ROWS = 1 << 16
# The mean adds up chunks of this many rows, because a GPU adds up many chunks at a time.
_CHUNK_ROWS = 1024


class Moments(NamedTuple):
    """Mean and variance of rows.

    Attributes
    ----------
    mean : array, float64 [d]
        Weighted mean of the rows.
    variance : float
        Mean of the features' weighted variances.
    """

    mean: Float64
    variance: float


def moments_of(rows: Rows, weight: Float64 | None = None) -> Moments:
    """Compute the mean and the variance of the rows, and check the rows.

    Parameters
    ----------
    rows : Rows
        The data [n, d].
    weight : array, float64 [n], optional
        Weights of the rows. None means that all weights are 1.

    Returns
    -------
    moments : Moments
        Mean and variance.

    Raises
    ------
    InputError
        A row contains NaN or infinity, or a squared distance to the mean is beyond the range of
        float32. The message names the row.
    """
    mean, total = _mean(rows, weight)
    if not np.isfinite(mean).all():
        _refuse_bad_row(rows)
    distances = nearest_centers(rows, mean[None])[1]
    # The distances must fit float32, because `kmeans_assign` returns float32 distances by default.
    if not all_below(distances, _FLOAT32_MAX):
        _refuse_bad_row(rows)
    return Moments(mean, inertia_of(rows, distances, weight) / (total * max(1, rows.d)))


def check_finite(rows: Rows) -> None:
    """Refuse rows that contain NaN or infinity.

    Raises
    ------
    InputError
        As for `moments_of`.
    """
    if rows.dtype in ("uint8", "int8"):
        return
    if not np.isfinite(_mean(rows, None)[0]).all():
        _refuse_bad_row(rows)


def _mean(rows: Rows, weight: Float64 | None) -> tuple[Float64, float]:
    """Compute the mean float64 [d] and the total weight, without a check.

    Rows are added up in chunks of 1,024 rows. Then the sums of the chunks are added up in the same
    way until one sum is left.
    """
    workspace = rows.workspace
    n_chunks = -(-rows.n // _CHUNK_ROWS)
    sums = workspace.to_device(np.zeros((n_chunks, rows.d)))
    counts = workspace.to_device(np.zeros(n_chunks))
    weights = workspace.weights(weight)
    for place, part in rows.parts():
        kmeans_update(
            part,
            workspace.to_device(_chunks(place.start, place.stop)),
            n_chunks,
            sample_weight=None if weights is None else weights[place],
            n_threads=rows.n_threads,
            out=(sums, counts),
        )
    total = float(to_host(counts).sum())
    while n_chunks > 1:
        chunks = workspace.to_device(_chunks(0, n_chunks))
        n_chunks = -(-n_chunks // _CHUNK_ROWS)
        sums, _ = kmeans_update(sums, chunks, n_chunks, n_threads=rows.n_threads)
    return to_host(sums)[0] / total, total


def _chunks(first: int, end: int) -> Any:
    """Number int32 of the chunk that holds each of the rows first .. end - 1."""
    return (np.arange(first, end) // _CHUNK_ROWS).astype(np.int32)


def _refuse_bad_row(rows: Rows) -> NoReturn:
    """Raise an error naming the first row with NaN or infinity, else the row of largest value."""
    largest, culprit = -1.0, 0
    for place, block in rows.shard_blocks(_SCAN_ROWS):
        values = float64_on_host(block)
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if bad.size:
            kind = "NaN" if np.isnan(values[bad[0]]).any() else "infinity"
            raise InputError(
                f"X contains {kind} in row {place.start + int(bad[0])}; K-means needs finite "
                "values, so remove such rows or replace the values"
            )
        magnitude = np.abs(values).max(axis=1, initial=0)
        if magnitude.max(initial=0) > largest:
            largest = float(magnitude.max(initial=0))
            culprit = place.start + int(magnitude.argmax())
    raise InputError(
        f"X contains values too large to cluster, up to {largest:.3g} in row {culprit}: squared "
        "distances exceed 3.4e38; rescale X"
    )
