"""Rows scaled to length one as they are read, for clustering by the angle (spherical K-means)."""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ktfast.errors import InputError
from ktfast.kmeans.rows import Float64, Int64, Rows, float64_on_host, to_host
from ktfast.native.arrays import on_device
from ktfast.ops.kmeans_assign import kmeans_assign
from ktfast.ops.kmeans_tensor import TILE_ROWS
from ktfast.ops.vectors import contiguous, row_blocks

# Elements of scaled rows that exist at a time, and that a thread measures at a time.
_BLOCK = 1 << 21
_PIECE = 1 << 14
# Scaled rows are kept while all of them take at most so many bytes.
_KEPT_BYTES = 1 << 29
# Squares of shorter or longer rows leave the range of float64; no float32 row is one of them.
_SHORTEST, _LONGEST = 1e-150, 1e150


class SphericalRows(Rows):
    """Rows of length one, whose clusters have centres of length one.

    A row is read as ``x / ||x||``, computed in float64 and rounded once: to float64 for float64
    rows, else to float32. Blocks are scaled when they are read. Their lengths are kept, 8 bytes a
    row, and after `expect_passes` the scaled rows are if all of them take at most 512 MiB (CPU).
    Reading a row that is zero, and so has no direction, raises `InputError`.
    """

    plain_means = False
    block_bytes = 28  # float64 rows, their scaled twins, and these rounded
    _lengths: Float64 | None = None
    _keeps = False
    _kept: Any = None

    def expect_passes(self) -> None:
        """Keep the scaled rows of the next pass if they are few: scaling takes as long as one."""
        size = self.n * self.d * np.dtype(self.center_dtype).itemsize
        self._keeps = not self.on_gpu and size <= _KEPT_BYTES

    def take(self, indices: Int64) -> Float64:
        """The scaled rows with these numbers, float64 [len(indices), d], on the CPU."""
        values = super().take(indices)
        return self.rounded(values / lengths(values))

    def means(self, sums: Float64, counts: Float64, former: Float64) -> Float64:
        """The directions of the clusters' sums; one without a direction keeps its former centre."""
        norms = lengths(sums)
        directed = (norms > 0)[:, 0]
        centers = former.copy()
        centers[directed] = sums[directed] / norms[directed]
        return self.rounded(centers)

    def parts(self) -> Iterator[tuple[slice, Any]]:
        """The scaled rows in order, in blocks, with their place in 0 .. n - 1."""
        if self._kept is not None:
            yield slice(0, self.n), self._kept
            return
        kept = np.empty((self.n, self.d), self.center_dtype) if self._keeps else None
        # Codes of a GPU's block fill whole tiles, which the memory budget counts once a shard.
        multiple = TILE_ROWS if self.on_gpu else 1
        for place, shard in super().parts():
            for local, block in row_blocks(shard, max(1, _BLOCK // max(1, self.d)), multiple):
                rows = slice(place.start + local.start, place.start + local.stop)
                with on_device(block):
                    yield rows, self._scaled(block, rows, None if kept is None else kept[rows])
        self._kept = kept

    def _scaled(self, block: Any, rows: slice, out: Any = None) -> Any:
        """A block of rows, scaled where it lies; measures their lengths the first time."""
        if self._lengths is None:
            self._lengths = np.full(self.n, np.nan)
        known = self._lengths[rows]
        is_new = bool(np.isnan(known[0]))
        if self.on_gpu:
            values = contiguous(block, "float64")
            # The distance to zero is added up in one order, whatever block a row lies in.
            norms = self._distance_to_zero(values) ** 0.5
            if is_new:
                known[:] = to_host(norms)
            with np.errstate(divide="ignore", invalid="ignore"):
                scaled = contiguous(values / norms[:, None], self.center_dtype)
        else:
            source = to_host(contiguous(block, "float32") if self.dtype == "bfloat16" else block)
            scaled = np.empty(source.shape, dtype=self.center_dtype) if out is None else out
            threads = min(self.threads, len(source))
            ends = np.linspace(0, len(source), threads + 1, dtype=int)
            shares = [slice(*pair) for pair in itertools.pairwise(ends)]
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(lambda s: _scale(source[s], known[s], scaled[s], is_new), shares))
        fine = (known > _SHORTEST) & (known < _LONGEST)
        if not fine.all():
            self._lengths = None
            self._name(block, rows.start, int(np.flatnonzero(~fine)[0]))
        return scaled

    def _distance_to_zero(self, values: Any) -> Any:
        """Squared distances float64 [n] of rows on a GPU to the origin."""
        zero = self.to_device(np.zeros((1, self.d)))
        return kmeans_assign(values, zero, distance_dtype="float64")[1]

    def _name(self, block: Any, first: int, place: int) -> None:
        values = float64_on_host(block[place])
        if np.isnan(values).any():
            problem = "contains NaN"
        elif np.isinf(values).any():
            problem = "contains infinity"
        elif not values.any():
            problem = "holds only zeros, which have no direction,"
        else:
            problem = "has values too small or too large to scale"
        raise InputError(
            f"X {problem} in row {first + place}; spherical K-means scales rows to length one, so "
            "remove such rows or fill them in"
        )


def _scale(source: Any, norms: Float64, scaled: Any, is_new: bool) -> None:
    """Scale rows [n, d] of any dtype by their lengths float64 [n]; measure these if new."""
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
    """Euclidean lengths float64 [n, 1]; each is added up in one order wherever its row lies.

    `out` [n, d] is written to if it is given.
    """
    with np.errstate(over="ignore"):
        squares = np.multiply(values, values, out=out)
        return np.asarray(np.sqrt(squares.sum(axis=1, keepdims=True)))
