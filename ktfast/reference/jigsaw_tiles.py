"""Jigsaw++ puzzles in plain NumPy, tile by tile. The kernels must equal this bit for bit.

Noroozi, Vinjimoor, Favaro, Pirsiavash: "Boosting Self-Supervised Learning via Knowledge Transfer",
CVPR 2018 (arXiv 1805.00385).
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ktfast.reference.philox import bounded, draw, happens

DEFAULTS: dict[str, Any] = {
    "jitter": 18,
    "chroma_shift": 2,
    "max_occluders": 2,
    "gray_probability": 0.7,
    "projection_probability": 0.5,
    "donor_color": "shared",
}


def choose(
    n_permutations: int,
    permutations: npt.NDArray[Any],
    row: int,
    batch: int,
    *,
    sample_id: int,
    seed: int,
    epoch: int,
    jitter: int,
    chroma_shift: int,
    max_occluders: int,
    gray_probability: float,
    projection_probability: float,
    donor_color: str,
) -> dict[str, Any]:
    """The random choices for one row of the batch, named as in `ktfast.ops.JigsawChoices`."""
    n_tiles = permutations.shape[1]
    words = draw(seed, sample_id, epoch, 0)
    label = bounded(words[0], n_permutations)
    gray, projection = choose_color(words, gray_probability, projection_probability)
    n_occluders = bounded(words[3], max_occluders + 1) if batch > 1 else 0
    choices: dict[str, Any] = {
        "permutation": label,
        "offsets": choose_offsets(n_tiles, jitter, chroma_shift, seed, sample_id, epoch),
        "gray": gray,
        "projection": projection,
        "occluded": np.zeros(n_tiles, dtype=np.uint8),
        "cells": permutations[label].astype(np.int32),
        "donor": -1,
        "donor_gray": False,
        "donor_projection": False,
    }
    if n_occluders:
        words = draw(seed, sample_id, epoch, 1)
        choices["donor"] = (row + 1 + bounded(words[0], batch - 1)) % batch
        if donor_color == "independent":
            gray, projection = choose_color(words, gray_probability, projection_probability)
        choices["donor_gray"], choices["donor_projection"] = gray, projection
    slots, cells = list(range(n_tiles)), list(range(n_tiles))
    for i in range(n_occluders):
        words = draw(seed, sample_id, epoch, 64 + i)
        for deck, word in ((slots, words[0]), (cells, words[1])):
            j = i + bounded(word, n_tiles - i)
            deck[i], deck[j] = deck[j], deck[i]
        choices["occluded"][slots[i]] = 1
        choices["cells"][slots[i]] = cells[i]
    return choices


def choose_color(
    words: list[int], gray_probability: float, projection_probability: float
) -> tuple[bool, bool]:
    """Whether a puzzle is gray, and whether it loses its green-magenta axis."""
    gray = happens(words[1], gray_probability)
    return gray, not gray and happens(words[2], projection_probability)


def choose_offsets(
    n_tiles: int, jitter: int, chroma_shift: int, seed: int, sample_id: int, epoch: int
) -> npt.NDArray[np.int32]:
    """Start (y, x) of each slot's tile inside its cell, per colour channel: int32 [n, 3, 2]."""
    offsets = np.zeros((n_tiles, 3, 2), dtype=np.int32)
    for slot in range(n_tiles):
        first, second = (draw(seed, sample_id, epoch, 2 + 2 * slot + i) for i in range(2))
        start = [bounded(word, jitter + 1) for word in first[:2]]
        shifts = [bounded(word, chroma_shift + 1) for word in first[2:] + second]
        offsets[slot] = np.array(start) + np.reshape(shifts, (3, 2))
    return offsets


def cut(
    image: npt.NDArray[np.uint8], grid: int, cell: int, offsets: npt.NDArray[Any], size: int
) -> npt.NDArray[np.int64]:
    """Cut one tile, int64 [size, size, 3]; each channel has its own offset (y, x) in the cell."""
    height, width = image.shape[0] // grid, image.shape[1] // grid
    top = (image.shape[0] - grid * height) // 2 + cell // grid * height
    left = (image.shape[1] - grid * width) // 2 + cell % grid * width
    planes = []
    for channel in range(3):
        y, x = top + int(offsets[channel, 0]), left + int(offsets[channel, 1])
        planes.append(image[y : y + size, x : x + size, channel])
    return np.stack(planes, axis=-1).astype(np.int64)


def color(tile: npt.NDArray[np.int64], gray: bool, projection: bool) -> tuple[Any, int]:
    """The tile's colours as integers [size, size, 3] and the number that they are divided by."""
    if gray:
        return np.repeat(tile.sum(axis=-1, keepdims=True), 3, axis=-1), 3
    if projection:
        axis = np.array([-1, 2, -1])
        return 6 * tile - axis * (tile @ axis)[..., None], 6
    return tile, 1


def normalise(numerators: Any, scale: int, statistics: str) -> npt.NDArray[np.float32]:
    """Normalise by mean and std of the tile or of its channels, or divide by 255."""
    if statistics == "none":
        return np.asarray(numerators.astype(np.float32) * np.float32(1 / (255 * scale)))
    groups = numerators.reshape(-1, 3) if statistics == "channel" else numerators.reshape(-1, 1)
    n = len(groups)
    means, inverses = [], []
    for group in groups.T:
        total = int(group.sum())
        spread = n * int((group**2).sum()) - total**2  # n^2 times the variance
        means.append(np.float32(total / n))
        inverses.append(np.float32(n / math.sqrt(spread)) if spread else np.float32(1))
    scaled = (numerators.astype(np.float32) - np.array(means)) * np.array(inverses)
    return np.asarray(scaled, dtype=np.float32)


def draw_puzzle(
    own: npt.NDArray[np.uint8],
    donor: npt.NDArray[np.uint8],
    choices: dict[str, Any],
    tile_size: int,
    statistics: str,
) -> npt.NDArray[np.float32]:
    """The tiles of one puzzle, float32 [n_tiles, 3, t, t], from its image and its donor."""
    n_tiles = len(choices["cells"])
    tiles = np.empty((n_tiles, 3, tile_size, tile_size), dtype=np.float32)
    for slot in range(n_tiles):
        occluded = bool(choices["occluded"][slot])
        prefix = "donor_" if occluded else ""
        tile = cut(
            donor if occluded else own,
            math.isqrt(n_tiles),
            choices["cells"][slot],
            choices["offsets"][slot],
            tile_size,
        )
        numerators, scale = color(tile, choices[prefix + "gray"], choices[prefix + "projection"])
        tiles[slot] = normalise(numerators, scale, statistics).transpose(2, 0, 1)
    return tiles


def jigsaw_tiles(
    images: npt.NDArray[np.uint8],
    permutations: npt.NDArray[Any],
    *,
    sample_ids: npt.NDArray[np.int64],
    tile_size: int = 64,
    statistics: str = "tile",
    indices: npt.NDArray[np.int64] | None = None,
    **options: Any,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], list[dict[str, Any]]]:
    """Cut, colour and normalise the puzzles of a batch.

    Parameters
    ----------
    images : array, uint8 [B, H, W, 3]
        Images; with `indices` the shape is [N, H, W, 3].
    permutations : array, integers [P, n_tiles]
        Permutation set. Slot s of a puzzle shows cell ``permutations[label, s]``.
    sample_ids : array, int64 [B]
        Number that identifies each image.
    tile_size : int, default 64
        Side t of a tile in pixels.
    statistics : {"tile", "channel", "none"}, default "tile"
        What a tile is normalised by.
    indices : array, int64 [B], optional
        Row of `images` of each puzzle. None: puzzle b is made of image b.
    **options : int, float or str
        Further options of `choose`. `seed` and `epoch` are required. The others have the defaults
        of `ktfast.ops.jigsaw_tiles`, and `jitter` has the default 18.

    Returns
    -------
    tiles : array, float32 [B, n_tiles, 3, t, t]
        Normalised tiles.
    labels : array, int64 [B]
        Row of `permutations` of each puzzle.
    choices : list of dict
        All random choices of each puzzle.
    """
    batch = len(sample_ids)
    rows = np.arange(batch) if indices is None else indices
    tiles = np.empty((batch, permutations.shape[1], 3, tile_size, tile_size), dtype=np.float32)
    all_choices = []
    for row in range(batch):
        choices = choose(
            len(permutations),
            permutations,
            row,
            batch,
            sample_id=int(sample_ids[row]),
            **{**DEFAULTS, **options},
        )
        donor = images[rows[choices["donor"]]]
        tiles[row] = draw_puzzle(images[rows[row]], donor, choices, tile_size, statistics)
        all_choices.append(choices)
    labels = np.array([c["permutation"] for c in all_choices], dtype=np.int64)
    return tiles, labels, all_choices
