"""Permutation sets for jigsaw puzzles, with a guaranteed smallest Hamming distance.

With at most m tiles hidden, two permutations stay distinguishable only if they differ in at least
m + 1 places; Jigsaw++ hides two, so its set needs 3. Sets are found by greedy max-min selection:
the next permutation is one whose nearest chosen permutation is as far away as possible.
"""

import itertools
import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ktfast.errors import InputError

# 4 x 4 has 2e13 permutations: the greedy choice is then made among this many random ones.
_RANDOM_POOL = 1 << 17
# Of 24 permutations a greedy order may miss a perfect set (A4, say) that another order finds.
_TRIES_OF_SMALL_POOL = 64


class HammingStatistics(NamedTuple):
    """Smallest, mean and largest pairwise Hamming distance of a permutation set."""

    minimum: int
    mean: float
    maximum: int


def permutation_set(
    n: int = 701, *, grid: int = 3, min_distance: int = 3, seed: int = 0
) -> npt.NDArray[np.uint8]:
    """Choose permutations of the cells of a puzzle that are far apart in Hamming distance.

    Parameters
    ----------
    n : how many permutations, at least 1.
    grid : cells along each side of the puzzle, 2 to 4.
    min_distance : the smallest distance allowed between any two permutations, 1 to grid**2. The
        set usually exceeds it: 701 permutations of 3 x 3 cells are at least 5 apart.
    seed : 0 or more; the same seed gives the same set with every version of NumPy.

    Returns
    -------
    uint8 [n, grid**2], C-contiguous; each row is a permutation of 0 .. grid**2 - 1. The first rows
    are the farthest apart, and a smaller set of the same seed and grid is a prefix of a larger one
    (except for 2 x 2, where several orders are tried, and for very large 4 x 4 sets).

    Raises
    ------
    InputError : no such set exists, or the greedy search did not find one.

    Notes
    -----
    The method is the permutation selection of Noroozi and Favaro (ECCV 2016) with the minimum
    distance as its objective instead of the mean, which can leave pairs only 2 apart.
    """
    cells = _checked(n, grid, min_distance, seed)
    if cells == 4:
        tries, pool_size = _TRIES_OF_SMALL_POOL, math.factorial(cells)
    else:
        tries, pool_size = 1, min(math.factorial(cells), max(_RANDOM_POOL, 8 * n))
    best = 0
    for attempt in range(tries):
        pool = _shuffled_pool(cells, pool_size, seed, attempt)
        chosen, distance = _greedy_max_min(pool, n)
        if distance >= min_distance:
            return np.ascontiguousarray(pool[:, chosen].T)
        best = max(best, distance)
    raise InputError(
        f"no {n} permutations of {grid} x {grid} cells at least {min_distance} apart were found "
        f"(the greedy search reached {best}); ask for fewer permutations or a smaller min_distance"
    )


def hamming_distances(permutations: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Return the Hamming distance of every pair of rows.

    Parameters
    ----------
    permutations : integers [n, cells], cells at most 255.

    Returns
    -------
    uint8 [n * (n - 1) / 2], pairs (0, 1), (0, 2), ..., (n - 2, n - 1).
    """
    rows: npt.NDArray[Any] = np.asarray(permutations)
    if rows.ndim != 2 or rows.shape[1] > 255:
        raise InputError(f"permutations must be [n, cells], cells <= 255, but are {rows.shape}")
    n = len(rows)
    distances = np.empty(n * (n - 1) // 2, dtype=np.uint8)
    start = 0
    for i in range(n - 1):
        stop = start + n - 1 - i
        np.sum(rows[i + 1 :] != rows[i], axis=1, dtype=np.uint8, out=distances[start:stop])
        start = stop
    return distances


def hamming_statistics(permutations: npt.ArrayLike) -> HammingStatistics:
    """Summarise `hamming_distances`; a set of one permutation has no pairs and is refused."""
    distances = hamming_distances(permutations)
    if distances.size == 0:
        raise InputError("distances need at least two permutations, but the set has fewer")
    return HammingStatistics(int(distances.min()), float(distances.mean()), int(distances.max()))


def _checked(n: int, grid: int, min_distance: int, seed: int) -> int:
    """Refuse what is impossible before searching; return the number of cells."""
    if not 2 <= grid <= 4:
        raise InputError(f"grid must be 2, 3 or 4 cells along each side, but is {grid}")
    cells = grid * grid
    if n < 1:
        raise InputError(f"n must be at least 1 permutation, but is {n}")
    if not 1 <= min_distance <= cells:
        raise InputError(
            f"min_distance must be 1 to {cells} for {grid} x {grid} cells, but is {min_distance}"
        )
    if seed < 0:
        raise InputError(f"seed must be 0 or more, but is {seed}")
    # Rows that agree in cells - d + 1 places are closer than d, so fixing the values of those
    # places leaves room for one row only: at most cells! / (d - 1)! rows (Singleton's bound).
    most = math.factorial(cells) // math.factorial(min_distance - 1)
    if n > most:
        raise InputError(
            f"{n} permutations of {grid} x {grid} cells cannot be {min_distance} apart: there are "
            f"at most {most}; ask for fewer permutations, a smaller min_distance or a larger grid"
        )
    return cells


def _shuffled_pool(cells: int, size: int, seed: int, attempt: int) -> npt.NDArray[np.uint8]:
    """Candidates uint8 [cells, size] in seeded random order: all permutations or random ones.

    Raw generator output is sorted, because NumPy promises the raw stream for good but may change
    how `Generator.permutation` uses it.
    """
    bits = np.random.PCG64(np.random.SeedSequence((seed, cells, attempt)))
    if size < math.factorial(cells):
        keys = bits.random_raw(size * cells).reshape(size, cells)
        return np.ascontiguousarray(np.argsort(keys, axis=1, kind="stable").astype(np.uint8).T)
    flat = itertools.chain.from_iterable(itertools.permutations(range(cells)))
    every = np.fromiter(flat, dtype=np.uint8, count=size * cells).reshape(size, cells)
    return np.ascontiguousarray(every[np.argsort(bits.random_raw(size), kind="stable")].T)


def _greedy_max_min(pool: npt.NDArray[np.uint8], n: int) -> tuple[npt.NDArray[np.int64], int]:
    """Choose n columns of `pool` [cells, size]; also return their smallest distance.

    The smallest distance is 0 where the pool is too small or holds a column twice.
    """
    cells, size = pool.shape
    chosen = np.zeros(min(n, size), dtype=np.int64)
    smallest = cells
    nearest = np.full(size, cells + 1, dtype=np.uint8)  # of each candidate to the chosen ones
    distance = np.empty(size, dtype=np.uint8)
    differs = np.empty(size, dtype=np.bool_)
    for i in range(len(chosen)):
        index = int(nearest.argmax())
        if i > 0:
            smallest = min(smallest, int(nearest[index]))
        if smallest <= 2 and size == math.factorial(cells):
            # Distinct permutations are 2 apart at least, so every one left is as good.
            chosen[i:] = np.flatnonzero(nearest)[: len(chosen) - i]
            return chosen, 2
        chosen[i] = index
        distance.fill(0)
        for row, value in zip(pool, pool[:, index], strict=True):
            np.not_equal(row, value, out=differs)
            np.add(distance, differs.view(np.uint8), out=distance)
        np.minimum(nearest, distance, out=nearest)
    return chosen, smallest if len(chosen) == n else 0
