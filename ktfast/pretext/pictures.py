"""Pictures of Jigsaw++: puzzles as the network sees them, and the random choices behind them."""

from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from ktfast.ops import jigsaw_tiles


def puzzle_pictures(
    images: Tensor,
    sample_ids: Tensor,
    permutations: npt.NDArray[Any],
    *,
    seed: int,
    epoch: int,
    **options: Any,
) -> dict[str, npt.NDArray[Any]]:
    """Cut images into puzzles and return the puzzles with every random choice, for a report.

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
    pictures : dict of str to array
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
    # Tiles are normalised: the range of 0 to 255 shows two standard deviations on either side.
    shown = (tiles.permute(0, 1, 3, 4, 2).float() * 63.75 + 127.5).clamp(0, 255).to(torch.uint8)
    arrays = {
        "tiles": shown,
        "labels": labels,
        "images": images,
        "cells": choices.cells,
        "offsets": choices.offsets,
        "occluded": choices.occluded,
        "gray": choices.gray,
    }
    return {name: value.cpu().numpy() for name, value in arrays.items()}
