"""Permutation sets for jigsaw puzzles, with a guaranteed smallest Hamming distance.

`permutation_set` is public as `ktfast.permutation_set`.

The Hamming distance of two permutations is the number of places in which they differ. If m tiles of
a puzzle are hidden, two permutations are certain to stay distinguishable only if their distance is
at least m + 1. Jigsaw++ hides up to two tiles, so its set needs a distance of 3.
"""

import itertools
import math

import numpy as np
import numpy.typing as npt

from ktfast.errors import InputError

__all__ = ["permutation_set"]

# 4 x 4 cells have 2e13 permutations. The search then chooses among this many random ones.
_RANDOM_POOL = 1 << 17
# 2 x 2 cells have 24 permutations. One random order may miss a perfect set that another finds.
_TRIES_OF_SMALL_POOL = 64


def permutation_set(
    n: int = 701, *, grid: int = 3, min_distance: int = 3, seed: int = 0
) -> npt.NDArray[np.uint8]:
    """Choose permutations of the cells of a puzzle that are far apart in Hamming distance.

    The defaults are those of Jigsaw++: 701 permutations of 3 x 3 cells that differ in at least 3
    places (Noroozi et al., CVPR 2018, section 4, and the code that the authors released).

    Parameters
    ----------
    n : int, default 701
        Number of permutations, at least 1.
    grid : int, default 3
        Number of cells along each side of the puzzle: 2, 3 or 4.
    min_distance : int, default 3
        Smallest allowed Hamming distance between two permutations, 1 to ``grid**2``. The set
        usually exceeds this distance: 701 permutations of 3 x 3 cells are at least 5 apart.
    seed : int, default 0
        Seed of the search, at least 0. A seed gives the same set with every version of NumPy.

    Returns
    -------
    array, uint8 [n, grid**2]
        The permutation set, row-major. Each row is a permutation of ``0 .. grid**2 - 1``. A smaller
        set of the same seed and grid equals the first rows of a larger one. The exceptions are 2 x
        2 cells, where the search tries several orders, and 4 x 4 cells with more than 16,384
        permutations.

    Raises
    ------
    InputError
        An argument is out of range, no such set exists, or the search did not find one. This is
        a ValueError.

    Notes
    -----
    The search is greedy. The next permutation is always one whose distance to the nearest chosen
    permutation is largest. Noroozi and Favaro (ECCV 2016, algorithm 1) maximise the mean distance
    to the chosen permutations instead, which can leave pairs that differ in only 2 places.

    Examples
    --------
    >>> import ktfast
    >>> ktfast.permutation_set(2)
    array([[5, 2, 7, 6, 8, 0, 3, 4, 1],
           [3, 8, 5, 1, 7, 6, 2, 0, 4]], dtype=uint8)
    """
    cells = _checked_cells(n, grid, min_distance, seed)
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


def _checked_cells(n: int, grid: int, min_distance: int, seed: int) -> int:
    """Refuse impossible arguments before the search; return the number of cells."""
    if not 2 <= grid <= 4:
        raise InputError(f"grid must be 2, 3 or 4 cells along each side, got {grid}")
    cells = grid * grid
    if n < 1:
        raise InputError(f"n must be at least 1 permutation, got {n}")
    if not 1 <= min_distance <= cells:
        raise InputError(
            f"min_distance must be 1 to {cells} for {grid} x {grid} cells, got {min_distance}"
        )
    if seed < 0:
        raise InputError(f"seed must be 0 or more, got {seed}")
    # Singleton's bound for a distance d: two permutations that agree in their first
    # cells - d + 1 places are closer than d. So each choice of values for these places can occur
    # once, and there are cells! / (d - 1)! such choices.
    most = math.factorial(cells) // math.factorial(min_distance - 1)
    if n > most:
        raise InputError(
            f"{n} permutations of {grid} x {grid} cells cannot be {min_distance} apart: there are "
            f"at most {most}; ask for fewer permutations, a smaller min_distance or a larger grid"
        )
    return cells


def _shuffled_pool(cells: int, size: int, seed: int, attempt: int) -> npt.NDArray[np.uint8]:
    """Permutations to choose from, uint8 [cells, size], in seeded random order.

    The pool holds every permutation if `size` allows that, else random ones. The order comes from
    sorting raw random numbers: NumPy promises never to change the raw stream, but may change how
    `Generator.permutation` uses the stream.
    """
    bits = np.random.PCG64(np.random.SeedSequence((seed, cells, attempt)))
    if size < math.factorial(cells):
        keys = bits.random_raw(size * cells).reshape(size, cells)
        return np.ascontiguousarray(np.argsort(keys, axis=1, kind="stable").astype(np.uint8).T)
    flat = itertools.chain.from_iterable(itertools.permutations(range(cells)))
    every = np.fromiter(flat, dtype=np.uint8, count=size * cells).reshape(size, cells)
    return np.ascontiguousarray(every[np.argsort(bits.random_raw(size), kind="stable")].T)


def _greedy_max_min(pool: npt.NDArray[np.uint8], n: int) -> tuple[npt.NDArray[np.int64], int]:
    """Choose n columns of `pool`, uint8 [cells, size].

    Returns
    -------
    chosen : array, int64 [n]
        The columns. There are fewer than n if the pool is too small.
    smallest : int
        Smallest distance between two chosen columns. The distance is 0 if the pool is too small or
        if a permutation had to be chosen twice.
    """
    cells, size = pool.shape
    chosen = np.zeros(min(n, size), dtype=np.int64)
    smallest = cells
    nearest = np.full(size, cells + 1, dtype=np.uint8)  # distance of each column to the chosen ones
    distance = np.empty(size, dtype=np.uint8)
    differs = np.empty(size, dtype=np.bool_)
    for i in range(len(chosen)):
        index = int(nearest.argmax())
        if i > 0:
            smallest = min(smallest, int(nearest[index]))
        if smallest <= 2 and size == math.factorial(cells):
            # Different permutations are at least 2 apart, so every column that is not yet
            # chosen is exactly 2 from the nearest chosen one, and any such column will do.
            chosen[i:] = np.flatnonzero(nearest)[: len(chosen) - i]
            return chosen, 2
        chosen[i] = index
        distance.fill(0)
        for row, value in zip(pool, pool[:, index], strict=True):
            np.not_equal(row, value, out=differs)
            np.add(distance, differs.view(np.uint8), out=distance)
        np.minimum(nearest, distance, out=nearest)
    return chosen, smallest if len(chosen) == n else 0
