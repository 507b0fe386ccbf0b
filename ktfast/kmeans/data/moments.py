"""Mean and variance of the rows, and a check that the distances of the rows can be computed."""

from collections.abc import Callable
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
    if not rows.ranks.all(all_below(distances, _FLOAT32_MAX)):
        _refuse_bad_row(rows)
    return Moments(mean, inertia_of(rows, distances, weight) / (total * max(1, rows.d)))


def check_finite(rows: Rows) -> None:
    """Refuse rows that contain NaN or infinity.

    Raises
    ------
    InputError
        As for `moments_of`.
    """
    if rows.dtype in ("uint8", "int8") or rows.total == 0:
        return
    if not np.isfinite(_mean(rows, None)[0]).all():
        _refuse_bad_row(rows)


def _mean(rows: Rows, weight: Float64 | None) -> tuple[Float64, float]:
    """Compute the mean float64 [d] and the total weight, without a check.

    Rows are added up in chunks of 1,024 rows. Then the sums of the chunks are added up in the same
    way until one sum is left.
    """
    ranks = rows.ranks
    sums, counts = _chunk_sums(rows, weight)
    weights = ranks.gather(to_host(counts))
    total = ranks.broadcast(float(np.concatenate(weights).sum()) if ranks.leads else 0.0)
    while rows.total > _CHUNK_ROWS:
        rows = Rows([sums], n_threads=rows.n_threads).join(ranks)
        sums, _ = _chunk_sums(rows, None)
    # The last sum lies on one process, and the other processes hold no sum.
    last = np.concatenate(ranks.gather_to_all(to_host(sums)))
    return last[0] / total, total


def _chunk_sums(rows: Rows, weight: Float64 | None) -> tuple[Any, Any]:
    """Sums float64 [m, d] and weights float64 [m] of the chunks whose last row is here."""
    if rows.ranks.size > 1:
        return _spread_chunk_sums(rows, weight)
    workspace = rows.workspace
    n_chunks = -(-rows.n // _CHUNK_ROWS)
    sums = workspace.to_device(np.zeros((n_chunks, rows.d)))
    counts = workspace.to_device(np.zeros(n_chunks))
    _add_chunks(rows, weight, _chunks, (sums, counts))
    return sums, counts


def _spread_chunk_sums(rows: Rows, weight: Float64 | None) -> tuple[Float64, Float64]:
    """Compute `_chunk_sums` of one process among several, on the host.

    A chunk that lies on several processes is added up by one process after the other, in the order
    of the rows. The last of them owns the chunk.
    """
    ranks, workspace = rows.ranks, rows.workspace
    head = min(rows.n, -rows.first % _CHUNK_ROWS)  # rows of a chunk that an earlier process began
    n_chunks = -(-(rows.n - head) // _CHUNK_ROWS)
    # Sum 0 is not used: the head is added later to what the earlier processes have.
    sums = workspace.to_device(np.zeros((1 + n_chunks, rows.d)))
    counts = workspace.to_device(np.zeros(1 + n_chunks))

    def number(first: int, end: int) -> Any:
        place = np.arange(first, end) - head
        return np.where(place < 0, 0, 1 + place // _CHUNK_ROWS).astype(np.int32)

    ranks.agreed(lambda: _add_chunks(rows, weight, number, (sums, counts)))
    own = to_host(sums)[1:], to_host(counts)[1:]
    begins = (rows.n - head) % _CHUNK_ROWS > 0 and ranks.rank < ranks.size - 1
    taken: list[Any] = []

    def pass_on(begun: Any) -> Any:
        """Complete the chunk that earlier processes began; return a chunk that this one begins."""
        if head:
            begun = _with_head(rows, weight, head, begun)
            if (rows.first + head) % _CHUNK_ROWS and ranks.rank < ranks.size - 1:
                return begun
        if begun is not None and (head or ranks.rank == ranks.size - 1):
            taken.append(begun)
            begun = None
        return (own[0][-1:], own[1][-1:]) if begins else begun

    ranks.fold(pass_on, None)
    complete = n_chunks - int(begins)
    pieces = [*taken, (own[0][:complete], own[1][:complete])]
    return np.concatenate([p[0] for p in pieces]), np.concatenate([p[1] for p in pieces])


def _with_head(rows: Rows, weight: Float64 | None, head: int, begun: Any) -> Any:
    """Add the first rows of this process to the sum [1, d] and weight [1] of a begun chunk."""
    sums, counts = (array.copy() for array in begun)
    kmeans_update(
        rows.take(np.arange(head)),
        np.zeros(head, np.int32),
        1,
        sample_weight=None if weight is None else weight[:head],
        n_threads=rows.n_threads,
        out=(sums, counts),
    )
    return sums, counts


def _add_chunks(
    rows: Rows, weight: Float64 | None, number: Callable[[int, int], Any], out: tuple[Any, Any]
) -> None:
    """Add all rows to the sums and weights of their chunks.

    ``number(first, end)`` gives the chunks int32 of the rows first .. end - 1.
    """
    weights = rows.workspace.weights(weight)
    for place, part in rows.parts():
        kmeans_update(
            part,
            rows.workspace.to_device(number(place.start, place.stop)),
            len(out[1]),
            sample_weight=None if weights is None else weights[place],
            n_threads=rows.n_threads,
            out=out,
        )


def _chunks(first: int, end: int) -> Any:
    """Number int32 of the chunk that holds each of the rows first .. end - 1."""
    return (np.arange(first, end) // _CHUNK_ROWS).astype(np.int32)


def _refuse_bad_row(rows: Rows) -> NoReturn:
    """Raise an error that names the first row with NaN or infinity, else the largest row."""
    found = rows.ranks.gather_to_all(_bad_row(rows))
    for kind, row, _ in found:
        if kind:
            raise InputError(
                f"X contains {kind} in {row}; K-means needs finite values, so remove such rows "
                "or replace the values"
            )
    _, row, largest = max(found, key=lambda each: each[2])
    raise InputError(
        f"X contains values too large to cluster, up to {largest:.3g} in {row}: squared "
        "distances exceed 3.4e38; rescale X"
    )


def _bad_row(rows: Rows) -> tuple[str, str, float]:
    """Find the first row of this process with NaN or infinity, else the row of largest magnitude.

    Returns
    -------
    kind : str
        "NaN" or "infinity". Empty if all values are finite.
    row : str
        The row, as `Rows.place_of` describes it.
    largest : float
        Largest magnitude of the rows, if all values are finite.
    """
    largest, culprit = -1.0, 0
    for place, block in rows.shard_blocks(_SCAN_ROWS):
        values = float64_on_host(block)
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if bad.size:
            kind = "NaN" if np.isnan(values[bad[0]]).any() else "infinity"
            return kind, rows.place_of(place.start + int(bad[0])), np.inf
        magnitude = np.abs(values).max(axis=1, initial=0)
        if magnitude.max(initial=0) > largest:
            largest = float(magnitude.max(initial=0))
            culprit = place.start + int(magnitude.argmax())
    return "", rows.place_of(culprit), largest
