"""Rows scaled to length one as they are read, for clustering by the angle (spherical K-means)."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ktfast._backend import on_device
from ktfast.errors import InputError
from ktfast.kmeans_rows import Float64, Int64, Rows, float64_on_host, to_host
from ktfast.ops.vectors import contiguous, row_blocks

# Elements of scaled rows that exist at a time, and that a thread scales at a time.
_BLOCK = 1 << 23
_PIECE = 1 << 16
# Squares of shorter or longer rows leave the range of float64; no float32 row is one of them.
_SHORTEST, _LONGEST = 1e-150, 1e150


class SphericalRows(Rows):
    """Rows of length one, whose clusters have centres of length one.

    A row is read as ``x / ||x||``, computed in float64 and rounded once: to float64 for float64
    rows, else to float32. Blocks are scaled when they are read; no scaled copy of all is kept.
    Reading a row that is zero, and so has no direction, raises `InputError`.
    """

    plain_means = False

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
        for place, shard in super().parts():
            for local, block in row_blocks(shard, max(1, _BLOCK // max(1, self.d))):
                first = place.start + local.start
                with on_device(block):
                    scaled, fine = self._scaled(block)
                if not fine.all():
                    self._name(block, first, int(np.flatnonzero(~fine)[0]))
                yield slice(first, first + len(block)), scaled

    def _scaled(self, block: Any) -> tuple[Any, Any]:
        """A block scaled where it lies, and which of its rows could be: bool [n], on the CPU."""
        if self.on_gpu:
            values = contiguous(block, "float64")
            norms = (values * values).sum(axis=1, keepdims=True) ** 0.5
            return contiguous(values / norms, self.center_dtype), _fine(to_host(norms))
        scaled = np.empty(tuple(block.shape), dtype=self.center_dtype)
        fine = np.empty(len(block), dtype=bool)
        step = max(1, _PIECE // max(1, self.d))

        def scale(start: int) -> None:
            piece = slice(start, start + step)
            values = float64_on_host(block[piece])
            norms = lengths(values)
            fine[piece] = _fine(norms)
            with np.errstate(divide="ignore", invalid="ignore"):
                np.divide(values, norms, out=scaled[piece], casting="same_kind")

        pieces = range(0, len(block), step)
        threads = min(self.threads, len(pieces))
        if threads == 1:
            for start in pieces:
                scale(start)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(scale, pieces))
        return scaled, fine

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


def lengths(values: Float64) -> Float64:
    """Euclidean lengths float64 [n, 1]; each is added up in one order wherever its row lies."""
    with np.errstate(over="ignore"):
        return np.asarray(np.sqrt((values * values).sum(axis=1, keepdims=True)))


def _fine(norms: Float64) -> Any:
    return ((norms > _SHORTEST) & (norms < _LONGEST))[:, 0]
