"""The photographs of a benchmark: a sample of a folder, and its prepared shards."""

from pathlib import Path
from typing import Literal

import numpy as np

from ktfast.errors import DataError
from ktfast.images.index import ImageIndex
from ktfast.images.prepare import prepare
from ktfast.images.source import PreparedSet


def sample(folder: Path, images: int) -> ImageIndex:
    """At most `images` photographs of a folder, spread evenly over its files."""
    index = ImageIndex.scan(folder, labels="none")
    rows = np.unique(np.linspace(0, index.n - 1, images).astype(np.int64))
    return index.take(rows)


def prepared(
    index: ImageIndex,
    folder: Path,
    *,
    short_side: int,
    format: Literal["jpeg", "raw"] = "jpeg",
    n_threads: int | None = None,
) -> PreparedSet:
    """Prepare photographs, all of which must be readable.

    Parameters
    ----------
    index : ImageIndex
        The photographs.
    folder : Path
        Receives the shards.
    short_side : int
        Pixels of the shorter side after resizing.
    format : {"jpeg", "raw"}, optional
        What the shards hold of each image.
    n_threads : int, optional
        Decoding threads.

    Returns
    -------
    shards : PreparedSet
        The prepared images.

    Raises
    ------
    DataError
        An image cannot be decoded.
    """
    shards = prepare(index, folder, short_side=short_side, format=format, n_threads=n_threads)
    if shards.skipped:
        image = shards.skipped[0]
        raise DataError(
            f"{len(shards.skipped)} of the images cannot be decoded, the first is {image.path}"
            f" ({image.reason}); choose another folder"
        )
    return shards
