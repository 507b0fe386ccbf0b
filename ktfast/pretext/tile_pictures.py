"""Pictures of tasks on tiles: the squares cut from a photograph, and the tiles in their slots."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ktfast.errors import DataError
from ktfast.ops import jigsaw_tiles
from ktfast.pretext.pictures import Example, Panel, Square, shown_pixels

Arrays = Mapping[str, npt.NDArray[Any]]

PUZZLE_ARRAYS = {
    "tiles": 5,
    "labels": 1,
    "images": 4,
    "cells": 2,
    "offsets": 4,
    "occluded": 2,
    "gray": 1,
}
"""Names and numbers of dimensions of the arrays that `puzzle_arrays` gives."""

# The three channels of a tile are cut at slightly different offsets. The picture shows the square
# of the green channel.
_GREEN = 1


def puzzle_arrays(
    images: Tensor,
    sample_ids: Tensor,
    permutations: npt.NDArray[Any] | Tensor,
    *,
    seed: int,
    epoch: int,
    **options: Any,
) -> dict[str, npt.NDArray[Any]]:
    """Cut images into puzzles and return the puzzles with every random choice.

    Parameters
    ----------
    images : Tensor, uint8 [B, S, S, 3]
        RGB images.
    sample_ids : Tensor, int64 [B]
        Identity of each image, from which the random choices follow.
    permutations : array, integers [P, n_tiles]
        Permutation set.
    seed : int
        Seed of the random choices.
    epoch : int
        Epoch of the random choices.
    **options : Any
        Further options of `ktfast.ops.jigsaw_tiles`, such as tile_size.

    Returns
    -------
    arrays : dict of str to array
        "tiles" uint8 [B, n_tiles, t, t, 3], "labels" int64 [B], "images" as given, and "cells",
        "offsets", "occluded" and "gray" as in `ktfast.ops.JigsawChoices`.
    """
    tiles, labels, choices = jigsaw_tiles(
        images,
        permutations,
        sample_ids=sample_ids,
        seed=seed,
        epoch=epoch,
        **options,
        return_choices=True,
    )
    arrays: dict[str, Tensor] = {
        "labels": labels,
        "images": images,
        "cells": choices.cells,
        "offsets": choices.offsets,
        "occluded": choices.occluded,
        "gray": choices.gray,
    }
    found = {name: torch.as_tensor(value).cpu().numpy() for name, value in arrays.items()}
    return {"tiles": shown_pixels(tiles), **found}


def puzzle_caption(arrays: Arrays, row: int) -> str:
    """Describe a puzzle: its permutation, its colour, and how many tiles are occluders."""
    hidden = int(arrays["occluded"][row].sum())
    return (
        f"permutation {int(arrays['labels'][row])}, {'gray' if arrays['gray'][row] else 'colour'}, "
        f"{hidden or 'no'} tile{'' if hidden == 1 else 's'} from another image"
    )


def puzzle_examples(
    arrays: Arrays,
    *,
    slots: int | None = None,
    caption: Callable[[Arrays, int], str] = puzzle_caption,
    alt: str = "the puzzle as the network sees it",
) -> list[Example]:
    """Lay out puzzles: the photograph with the squares that were cut, and the tiles.

    Parameters
    ----------
    arrays : mapping of str to array
        What `puzzle_arrays` gave.
    slots : int, optional
        Number of slots that the network sees, side by side. None: all, as a square.
    caption : callable
        Caption of the puzzle in a row of the arrays.
    alt : str
        What the panel of the tiles shows.

    Returns
    -------
    examples : list of Example
        One example for each puzzle.

    Raises
    ------
    DataError
        The shapes or dtypes of the arrays do not fit each other.
    """
    n_tiles = arrays["tiles"].shape[1]
    grid = math.isqrt(n_tiles)
    expected = {"cells": (n_tiles,), "occluded": (n_tiles,), "offsets": (n_tiles, 3, 2)}
    if (
        any(arrays[key].shape[1:] != shape for key, shape in expected.items())
        or grid**2 != n_tiles
        or {arrays[key].dtype for key in ("tiles", "images")} != {np.dtype(np.uint8)}
        or arrays["images"].shape[3] != 3
        or arrays["tiles"].shape[2:] != (arrays["tiles"].shape[2],) * 2 + (3,)
    ):
        raise DataError(
            "pretext/examples.npz holds arrays that do not fit each other; redo the stage pretext"
        )
    seen, columns = (n_tiles, grid) if slots is None else (slots, slots)
    return [
        Example(
            panels=(_photograph(arrays, row, seen, grid), _mosaic(arrays, row, seen, columns, alt)),
            caption=caption(arrays, row),
        )
        for row in range(len(arrays["labels"]))
    ]


def _photograph(arrays: Arrays, row: int, seen: int, grid: int) -> Panel:
    """The photograph with the squares that were cut from it; occluders have no square."""
    image, side = arrays["images"][row], arrays["tiles"].shape[2]
    height, width = image.shape[:2]
    cell_y, cell_x = height // grid, width // grid
    top, left = (height - grid * cell_y) // 2, (width - grid * cell_x) // 2
    cuts = []
    for slot, cell in enumerate(arrays["cells"][row][:seen].tolist()):
        if not arrays["occluded"][row, slot]:
            down, across = divmod(cell, grid)
            shift_y, shift_x = (int(part) for part in arrays["offsets"][row, slot, _GREEN])
            x, y = left + across * cell_x + shift_x, top + down * cell_y + shift_y
            cuts.append(Square(x, y, side, str(cell + 1)))
    return Panel(image, f"photograph with the {len(cuts)} squares that were cut", tuple(cuts))


def _mosaic(arrays: Arrays, row: int, seen: int, columns: int, alt: str) -> Panel:
    """The tiles in their slots, with the numbers of their cells."""
    tiles = arrays["tiles"][row]
    side = tiles.shape[1]
    gap = max(2, side // 12)
    rows = -(-seen // columns)
    height, width = (count * side + (count - 1) * gap for count in (rows, columns))
    mosaic = np.full((height, width, 3), 128, np.uint8)
    slots = []
    for slot, cell in enumerate(arrays["cells"][row][:seen].tolist()):
        y, x = (part * (side + gap) for part in divmod(slot, columns))
        mosaic[y : y + side, x : x + side] = tiles[slot]
        hidden = bool(arrays["occluded"][row, slot])
        text = "×" if hidden else str(cell + 1)
        slots.append(Square(x, y, side, text, drawn=hidden, marked=hidden))
    gaps = [(line * (side + gap) - gap, 0, gap, height) for line in range(1, columns)]
    gaps += [(0, line * (side + gap) - gap, width, gap) for line in range(1, rows)]
    return Panel(mosaic, alt, tuple(slots), tuple(gaps))
