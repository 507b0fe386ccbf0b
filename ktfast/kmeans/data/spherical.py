"""Rows scaled to length one when they are read, for clustering by the angle."""

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ktfast.errors import InputError
from ktfast.kmeans.array_types import Float64, Int64
from ktfast.kmeans.data.memory_plan import GpuTarget
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.data.workspace import float64_on_host, to_host
from ktfast.native.arrays import on_device
from ktfast.ops.kmeans_assign import kmeans_assign
from ktfast.ops.kmeans_tensor import TILE_ROWS
from ktfast.ops.vectors import contiguous, row_blocks

# Elements of scaled rows that exist at a time, and elements that a thread measures at a time.
_BLOCK = 1 << 21
_PIECE = 1 << 14
# All scaled rows are kept in memory if they take at most this many bytes.
_KEPT_BYTES = 1 << 29
# The squares of shorter or longer rows leave the range of float64. No float32 row is that short or
# that long, except a row of zeros.
_SHORTEST, _LONGEST = 1e-150, 1e150


class SphericalRows(Rows):
    """Rows of length one, whose clusters have centres of length one (spherical K-means).

    A row is read as ``x / ||x||``. The quotient is computed in float64 and rounded once, to float64
    for float64 rows and to float32 for all others. Blocks are scaled when they are read. The
    lengths of all rows are kept (8 bytes per row). After `expect_passes`, the scaled rows
    themselves are kept on a CPU if they take at most 512 MiB.

    Parameters
    ----------
    shards : sequence of array
        As for `Rows`.
    n_threads : int, optional
        As for `Rows`.
    target : GpuTarget, optional
        As for `Rows`.
    like : array, optional
        As for `Rows`.

    Notes
    -----
    Dhillon and Modha, "Concept decompositions for large sparse text data using clustering" (2001).
    Reading a row of zeros, which has no direction, raises `InputError`.
    """

    plain_means = False
    block_bytes = 28  # float64 rows, their scaled copies, and the rounded copies

    def __init__(
        self,
        shards: Sequence[Any],
        *,
        n_threads: int | None = None,
        target: GpuTarget | None = None,
        like: Any = None,
    ) -> None:
        super().__init__(shards, n_threads=n_threads, target=target, like=like)
        self._lengths: Float64 | None = None
        self._keeps = False
        self._kept: Any = None

    def expect_passes(self) -> None:
        """Keep scaled rows from the next pass on if they fit; scaling takes as long as a pass."""
        super().expect_passes()
        size = self.n * self.d * np.dtype(self.center_dtype).itemsize
        self._keeps = not self.on_gpu and size <= _KEPT_BYTES

    def take(self, indices: Int64) -> Float64:
        """Copy the scaled rows with these numbers to the host, float64 [len(indices), d]."""
        values = super().take(indices)
        return self.rounded(values / lengths(values))

    def centers_of(self, sums: Float64, counts: Float64, former: Float64) -> Float64:
        """Compute the directions of the clusters' sums; a sum of zero keeps its former centre."""
        norms = lengths(sums)
        directed = (norms > 0)[:, 0]
        centers = former.copy()
        centers[directed] = sums[directed] / norms[directed]
        return self.rounded(centers)

    def parts(self) -> Iterator[tuple[slice, Any]]:
        """Yield the scaled rows in order, in blocks, with their place in 0 .. n - 1."""
        if self._kept is not None:
            yield slice(0, self.n), self._kept
            return
        kept = np.empty((self.n, self.d), self.center_dtype) if self._keeps else None
        # The codes of each block on a GPU fill whole tiles. The memory budget counts one
        # incomplete tile per shard, so all blocks but a shard's last one must be whole tiles.
        multiple = TILE_ROWS if self.on_gpu else 1
        for place, shard in super().parts():
            for local, block in row_blocks(shard, max(1, _BLOCK // max(1, self.d)), multiple):
                rows = slice(place.start + local.start, place.start + local.stop)
                with on_device(block):
                    yield rows, self._scaled(block, rows, None if kept is None else kept[rows])
        self._kept = kept

    def _scaled(self, block: Any, rows: slice, out: Any = None) -> Any:
        """Scale a block of rows where it lies, and measure its lengths in the first pass."""
        if self._lengths is None:
            self._lengths = np.full(self.n, np.nan)
        known = self._lengths[rows]
        is_new = bool(np.isnan(known[0]))
        if self.on_gpu:
            scaled = self._scaled_on_gpu(block, known, is_new=is_new)
        else:
            scaled = self._scaled_on_cpu(block, known, out, is_new=is_new)
        can_be_scaled = (known > _SHORTEST) & (known < _LONGEST)
        if not can_be_scaled.all():
            self._lengths = None
            place = int(np.flatnonzero(~can_be_scaled)[0])
            _refuse_row(float64_on_host(block[place]), self.place_of(rows.start + place))
        return scaled

    def _scaled_on_gpu(self, block: Any, known: Float64, *, is_new: bool) -> Any:
        values = contiguous(block, "float64")
        # The kernel adds up the squares of a row in one order, whatever block contains the row.
        norms = self._distance_to_zero(values) ** 0.5
        if is_new:
            known[:] = to_host(norms)
        with np.errstate(divide="ignore", invalid="ignore"):
            return contiguous(values / norms[:, None], self.center_dtype)

    def _scaled_on_cpu(self, block: Any, known: Float64, out: Any, *, is_new: bool) -> Any:
        source = to_host(contiguous(block, "float32") if self.dtype == "bfloat16" else block)
        scaled = np.empty(source.shape, dtype=self.center_dtype) if out is None else out
        threads = min(self.threads, len(source))
        ends = np.linspace(0, len(source), threads + 1, dtype=int)
        shares = [slice(*pair) for pair in itertools.pairwise(ends)]
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda s: _scale(source[s], known[s], scaled[s], is_new=is_new), shares))
        return scaled

    def _distance_to_zero(self, values: Any) -> Any:
        """Squared distances float64 [n] of rows on a GPU to the origin."""
        zero = self.workspace.to_device(np.zeros((1, self.d)))
        return kmeans_assign(values, zero, distance_dtype="float64")[1]


def _refuse_row(values: Float64, row: str) -> None:
    """Raise the error that names a row [d] that cannot be scaled."""
    if np.isnan(values).any():
        problem = "contains NaN"
    elif np.isinf(values).any():
        problem = "contains infinity"
    elif not values.any():
        problem = "holds only zeros, which have no direction,"
    else:
        problem = "has values too small or too large to scale"
    raise InputError(
        f"X {problem} in {row}; spherical K-means scales rows to length one, so "
        "remove such rows or replace their values"
    )


def _scale(source: Any, norms: Float64, scaled: Any, *, is_new: bool) -> None:
    """Divide rows [n, d] of any dtype by their lengths float64 [n]; measure new lengths first."""
    n, d = source.shape
    step = max(1, min(n, _PIECE // max(1, d)))
    values, squares = np.empty((2, step, d))
    for start in range(0, n, step) if is_new else ():
        piece = source[start : start + step]
        np.copyto(values[: len(piece)], piece)
        part = lengths(values[: len(piece)], out=squares[: len(piece)])
        norms[start : start + step] = part[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        np.divide(source, norms[:, None], out=scaled, casting="same_kind", dtype=np.float64)


def lengths(values: Float64, out: Float64 | None = None) -> Float64:
    """Euclidean lengths float64 [n, 1] of rows; `out` [n, d] receives the squares.

    The squares of a row are added up in one order, whatever array contains the row.
    """
    with np.errstate(over="ignore"):
        squares = np.multiply(values, values, out=out)
        return np.asarray(np.sqrt(squares.sum(axis=1, keepdims=True)))
