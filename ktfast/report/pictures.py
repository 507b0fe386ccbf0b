"""The pictures of the report: puzzles with the squares that were cut, and images of clusters."""

import base64
import io
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ktfast.errors import DataError

PUZZLE_ARRAYS = {
    "tiles": 5,
    "labels": 1,
    "images": 4,
    "cells": 2,
    "offsets": 4,
    "occluded": 2,
    "gray": 1,
}
MONTAGE_ARRAYS = {"images": 5, "clusters": 1, "sizes": 1}
# The three channels of a tile are cut at slightly different offsets. The page shows the square of
# the green channel.
_GREEN = 1


@dataclass(frozen=True)
class Box:
    """A square on a picture in pixels, and the text in the square."""

    x: int
    y: int
    side: int
    text: str
    occluded: bool


@dataclass(frozen=True)
class Puzzle:
    """A photograph with the squares that were cut, and the puzzle made of the tiles.

    Attributes
    ----------
    source : str
        The photograph, as a data URI.
    height, width : int
        Size of the photograph in pixels.
    cuts : list of Box
        Squares that were cut from the photograph.
    mosaic : str
        The puzzle, as a data URI.
    mosaic_side : int
        Side of the puzzle in pixels.
    gaps : list of pairs of int
        Start and width in pixels of the lines between the tiles, along both axes.
    slots : list of Box
        Tiles of the puzzle.
    gray : bool
        Whether the tiles are gray.
    label : int
        Number of the permutation.
    """

    source: str
    height: int
    width: int
    cuts: list[Box]
    mosaic: str
    mosaic_side: int
    gaps: list[tuple[int, int]]
    slots: list[Box]
    gray: bool
    label: int

    @property
    def n_occluded(self) -> int:
        """Number of tiles that come from another image (occluders)."""
        return sum(slot.occluded for slot in self.slots)

    @property
    def cuts_in_words(self) -> str:
        """The photograph in words, for readers who do not see it."""
        cells = ", ".join(sorted((cut.text for cut in self.cuts), key=int))
        return f"Photograph with a square cut from each of the cells {cells}"

    @property
    def slots_in_words(self) -> str:
        """The puzzle in words, for readers who do not see it."""
        cells = ", ".join("another image" if s.occluded else s.text for s in self.slots)
        return f"The puzzle as the network sees it. Its slots, row by row, show the cells {cells}"


@dataclass(frozen=True)
class Thumbnail:
    """A small image of a cluster.

    Attributes
    ----------
    source : str
        The image, as a data URI.
    name : str
        File name; empty if unknown.
    path : str
        Path below the folder of images; empty if unknown.
    link : str
        Address of the file; empty if there is no such file any more.
    """

    source: str
    name: str = ""
    path: str = ""
    link: str = ""


@dataclass(frozen=True)
class Montage:
    """The most central images of one cluster.

    Attributes
    ----------
    cluster, size : int
        Number of the cluster, and number of its images.
    images : list of Thumbnail
        The images, the most central first.
    folder : str
        Address of the folder with all images of the cluster; empty if there is none.
    """

    cluster: int
    size: int
    images: list[Thumbnail]
    folder: str = ""


def data_uri(image: NDArray[np.uint8], quality: int = 88) -> str:
    """Encode an image uint8 [h, w, 3] as JPEG with full colour resolution, as a data URI."""
    buffer = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(image))
    picture.save(buffer, "JPEG", quality=quality, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def puzzles(arrays: dict[str, NDArray[Any]], limit: int) -> list[Puzzle]:
    """Lay out the first puzzles of `pretext/examples.npz`.

    Parameters
    ----------
    arrays : dict of str to array
        The arrays named in PUZZLE_ARRAYS: tiles uint8 [m, n, t, t, 3] as the network sees them,
        images uint8 [m, H, W, 3], cells int [m, n] (source cell of each slot), offsets int
        [m, n, 3, 2] (y, x in the cell for each channel), occluded [m, n], gray [m], labels [m].
    limit : int
        Largest number of puzzles.

    Returns
    -------
    list of Puzzle
        The puzzles.

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
    return [
        _puzzle({key: array[row] for key, array in arrays.items()}, grid)
        for row in range(min(limit, len(arrays["labels"])))
    ]


def montages(
    arrays: dict[str, NDArray[Any]],
    paths: Mapping[int, Sequence[str]],
    images_folder: Path | None,
    linked: Callable[[int], str] = lambda cluster: "",
) -> list[Montage]:
    """Lay out `cluster/montage.npz`, the largest cluster first.

    Parameters
    ----------
    arrays : dict of str to array
        images uint8 [c, m, s, s, 3], clusters int [c], sizes int [c]. A cluster of fewer than m
        images is padded; the montage leaves the padding out.
    paths : mapping of int to sequence of str
        Paths of the images by cluster, in the order of the images. Empty if they are unknown.
    images_folder : Path, optional
        Folder that the paths are relative to. None: the page links to no file.
    linked : callable
        Gives the address of the folder with all images of a cluster, or an empty text.

    Returns
    -------
    list of Montage
        One montage per cluster.

    Raises
    ------
    DataError
        The images are not uint8 RGB.
    """
    images, sizes = arrays["images"], arrays["sizes"]
    if images.dtype != np.uint8 or images.shape[-1] != 3:
        raise DataError(
            f"cluster/montage.npz holds {images.dtype} images {images.shape}, not uint8 RGB images"
        )
    found = []
    for row in np.argsort(-sizes, kind="stable"):
        cluster, size = int(arrays["clusters"][row]), int(sizes[row])
        sources = [data_uri(image, 82) for image in images[row][:size]]
        names = list(paths.get(cluster, ()))
        if len(names) != len(sources):
            names = [""] * len(sources)  # the paths are unknown, or those of other images
        thumbnails = [
            _thumbnail(source, name, images_folder)
            for source, name in zip(sources, names, strict=True)
        ]
        found.append(Montage(cluster, size, thumbnails, linked(cluster)))
    return found


def _thumbnail(source: str, path: str, folder: Path | None) -> Thumbnail:
    """Name an image, and link to its file if the file exists."""
    file = Path(os.path.abspath(folder / path)) if folder is not None and path else None
    link = file.as_uri() if file is not None and file.is_file() else ""
    return Thumbnail(source, path.rpartition("/")[2], path, link)


def _puzzle(example: dict[str, NDArray[Any]], grid: int) -> Puzzle:
    tiles, image = example["tiles"], example["images"]
    height, width = image.shape[:2]
    side = tiles.shape[1]
    cell_y, cell_x = height // grid, width // grid
    top, left = (height - grid * cell_y) // 2, (width - grid * cell_x) // 2
    gap = max(2, side // 12)
    mosaic_side = grid * side + (grid - 1) * gap
    mosaic = np.full((mosaic_side, mosaic_side, 3), 128, np.uint8)
    cuts, slots = [], []
    for slot, cell in enumerate(example["cells"].tolist()):
        y, x = (part * (side + gap) for part in divmod(slot, grid))
        mosaic[y : y + side, x : x + side] = tiles[slot]
        occluded = bool(example["occluded"][slot])
        slots.append(Box(x, y, side, "×" if occluded else str(cell + 1), occluded))
        if not occluded:
            row, column = divmod(cell, grid)
            shift_y, shift_x = (int(part) for part in example["offsets"][slot, _GREEN])
            cut_x, cut_y = left + column * cell_x + shift_x, top + row * cell_y + shift_y
            cuts.append(Box(cut_x, cut_y, side, str(cell + 1), False))
    return Puzzle(
        source=data_uri(image),
        height=height,
        width=width,
        cuts=cuts,
        mosaic=data_uri(mosaic, 92),
        mosaic_side=mosaic_side,
        gaps=[(line * (side + gap) - gap, gap) for line in range(1, grid)],
        slots=slots,
        gray=bool(example["gray"]),
        label=int(example["labels"]),
    )
