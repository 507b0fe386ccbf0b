"""Read the permutation set of a puzzle from a file of the user."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from ktfast.errors import DataError, reading, shown
from ktfast.readers import read_npy, read_text

MOST = 10_000
"""Largest number of permutations in a file. Each permutation is a class of the puzzle network."""
_REMEDY = "give a .npy file or a text file with one permutation per line"


def read_permutations(path: Path, grid: int, *, min_distance: int) -> npt.NDArray[np.uint8]:
    """Read a permutation set.

    Parameters
    ----------
    path : Path
        A .npy file of integers [P, grid * grid], or a text file with one permutation per line. The
        numbers of a line are separated by spaces or commas. Cells are counted from 0 or from 1.
    grid : int
        Number of cells along each side of the puzzle.
    min_distance : int
        Number of places in which every two permutations must differ.

    Returns
    -------
    permutations : array, uint8 [P, grid * grid]
        The permutations, counted from 0.

    Raises
    ------
    DataError
        The file cannot be read, a row is no permutation of the cells, or two rows are too close.
    """
    rows = _numbers(path)
    cells = grid * grid
    if rows.ndim != 2 or rows.shape[1] != cells or not 2 <= len(rows) <= MOST:
        raise DataError(
            f"{shown(path)} holds an array of shape {list(rows.shape)}; a puzzle of {grid} x {grid}"
            f" cells needs 2 to {MOST:,} permutations of {cells} numbers each; give another file, "
            "or change pretext.grid"
        )
    first = 1 if rows.min() == 1 else 0
    wrong = np.flatnonzero((np.sort(rows, axis=1) != np.arange(first, first + cells)).any(axis=1))
    if len(wrong):
        raise DataError(
            f"{shown(path)}: row {wrong[0]} is {rows[wrong[0]].tolist()}, which does not hold each "
            f"number from {first} to {first + cells - 1} once; correct the file"
        )
    permutations = (rows - first).astype(np.uint8)
    if (close := _first_close_pair(permutations, min_distance)) is not None:
        raise DataError(
            f"{shown(path)}: the rows {close[0]} and {close[1]} differ in fewer than {min_distance}"
            " places, so that the network could not tell them apart; give permutations that "
            "differ more, or lower pretext.max_occluders"
        )
    return permutations


def _numbers(path: Path) -> npt.NDArray[np.int64]:
    """Read the numbers of a file, int64."""
    if path.suffix == ".npy":
        array = read_npy(path, _REMEDY)
        if array.dtype.kind not in "iu":
            raise DataError(f"{shown(path)} holds {array.dtype} values, not integers; {_REMEDY}")
        with reading(path, "a permutation set", _REMEDY):
            return array.astype(np.int64)
    text = read_text(path, "a permutation set", _REMEDY)
    with reading(path, "a permutation set", _REMEDY):
        lines = [line.replace(",", " ").split() for line in text.splitlines()]
        return np.array([[int(word) for word in line] for line in lines if line], dtype=np.int64)


def _first_close_pair(
    permutations: npt.NDArray[np.uint8], min_distance: int
) -> tuple[int, int] | None:
    """The first two rows that differ in fewer than `min_distance` places, or None."""
    for row in range(1, len(permutations)):
        distances = (permutations[:row] != permutations[row]).sum(axis=1)
        if (near := np.flatnonzero(distances < min_distance)).size:
            return int(near[0]), row
    return None
