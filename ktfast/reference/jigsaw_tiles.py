"""Jigsaw++ puzzles, tile by tile, in plain NumPy: what the kernels must equal bit for bit.

Noroozi, Vinjimoor, Favaro, Pirsiavash: "Boosting Self-Supervised Learning via Knowledge Transfer",
CVPR 2018.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ktfast.reference.philox import bounded, draw, happens


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
    """The random choices of one row of the batch; names as in ktfast.ops.JigsawChoices."""
    n_tiles = permutations.shape[1]
    words = draw(seed, sample_id, epoch, 0)
    label = bounded(words[0], n_permutations)
    gray = happens(words[1], gray_probability)
    projection = not gray and happens(words[2], projection_probability)
    n_occluders = bounded(words[3], max_occluders + 1) if batch > 1 else 0
    offsets = np.zeros((n_tiles, 3, 2), dtype=np.int32)
    for slot in range(n_tiles):
        first, second = (draw(seed, sample_id, epoch, 2 + 2 * slot + i) for i in range(2))
        start = [bounded(word, jitter + 1) for word in first[:2]]
        shifts = [bounded(word, chroma_shift + 1) for word in first[2:] + second]
        offsets[slot] = np.array(start) + np.reshape(shifts, (3, 2))
    choices: dict[str, Any] = {
        "permutation": label,
        "offsets": offsets,
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
            gray = happens(words[1], gray_probability)
            projection = not gray and happens(words[2], projection_probability)
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


def cut(
    image: npt.NDArray[np.uint8], grid: int, cell: int, offsets: npt.NDArray[Any], size: int
) -> npt.NDArray[np.int64]:
    """One tile [size, size, 3]; every channel starts at its own (y, x) offset inside the cell."""
    height, width = image.shape[0] // grid, image.shape[1] // grid
    top = (image.shape[0] - grid * height) // 2 + cell // grid * height
    left = (image.shape[1] - grid * width) // 2 + cell % grid * width
    planes = []
    for channel in range(3):
        y, x = top + int(offsets[channel, 0]), left + int(offsets[channel, 1])
        planes.append(image[y : y + size, x : x + size, channel])
    return np.stack(planes, axis=-1).astype(np.int64)


def color(tile: npt.NDArray[np.int64], gray: bool, projection: bool) -> tuple[Any, int]:
    """The tile's colours as integer numerators [size, size, 3], and the scale that divides them."""
    if gray:
        return np.repeat(tile.sum(axis=-1, keepdims=True), 3, axis=-1), 3
    if projection:
        axis = np.array([-1, 2, -1])
        return 6 * tile - axis * (tile @ axis)[..., None], 6
    return tile, 1


def normalise(numerators: Any, scale: int, statistics: str) -> npt.NDArray[np.float32]:
    """Centre and scale by the tile's mean and std, those of its channels, or 0 and 255."""
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


def jigsaw_tiles(
    images: npt.NDArray[np.uint8],
    permutations: npt.NDArray[Any],
    *,
    sample_ids: npt.NDArray[np.int64],
    seed: int,
    epoch: int,
    tile_size: int = 64,
    jitter: int = 18,
    chroma_shift: int = 2,
    max_occluders: int = 2,
    gray_probability: float = 0.7,
    projection_probability: float = 0.5,
    donor_color: str = "shared",
    statistics: str = "tile",
    indices: npt.NDArray[np.int64] | None = None,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], list[dict[str, Any]]]:
    """Cut, colour and normalise the puzzles of a batch.

    Parameters
    ----------
    images : uint8 [B, H, W, 3], or [N, H, W, 3] with `indices` int64 [B].
    permutations : integers [P, n_tiles]; slot s of a puzzle shows cell ``permutations[label, s]``.

    Returns
    -------
    tiles float32 [B, n_tiles, 3, t, t], labels int64 [B], and the choices of every row.
    """
    batch, (n_permutations, n_tiles) = len(sample_ids), permutations.shape
    grid = math.isqrt(n_tiles)
    rows = np.arange(batch) if indices is None else indices
    tiles = np.empty((batch, n_tiles, 3, tile_size, tile_size), dtype=np.float32)
    all_choices = []
    for row in range(batch):
        choices = choose(
            n_permutations,
            permutations,
            row,
            batch,
            sample_id=int(sample_ids[row]),
            seed=seed,
            epoch=epoch,
            jitter=jitter,
            chroma_shift=chroma_shift,
            max_occluders=max_occluders,
            gray_probability=gray_probability,
            projection_probability=projection_probability,
            donor_color=donor_color,
        )
        for slot in range(n_tiles):
            occluded = bool(choices["occluded"][slot])
            prefix = "donor_" if occluded else ""
            image = images[rows[choices["donor"] if occluded else row]]
            tile = cut(image, grid, choices["cells"][slot], choices["offsets"][slot], tile_size)
            numerators, scale = color(
                tile, choices[prefix + "gray"], choices[prefix + "projection"]
            )
            tiles[row, slot] = normalise(numerators, scale, statistics).transpose(2, 0, 1)
        all_choices.append(choices)
    labels = np.array([c["permutation"] for c in all_choices], dtype=np.int64)
    return tiles, labels, all_choices
