"""Decode and resize every image once, and pack the images into shards that feeds read fast.

A prepared set is a folder of shards: tar files in the layout of WebDataset, where `000000042.jpg`
is row 42. Each shard has a table of its images. The file `index.json` is written last. Every image
of the image index is in the prepared set or in its list of skipped images.

The bytes of a prepared set depend only on the images and the options, not on threads or
interruptions. After an interruption, the next call continues after the last whole shard.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ktfast.durable import remove_leftovers
from ktfast.errors import ConfigError, DataError
from ktfast.images.arrays import ArrayFormat
from ktfast.images.decode import decode
from ktfast.images.in_order import in_order
from ktfast.images.index import ImageIndex, SkippedImage
from ktfast.images.opening import PIXEL_LIMIT
from ktfast.images.shard_writer import ShardWriter, skip_reason
from ktfast.images.source import Decoding, FolderSource, PreparedSet

SHARD_BYTES = 256 << 20
"""Default size of a shard. An interruption loses at most one shard of work."""


def prepare(
    index: ImageIndex,
    out: str | os.PathLike[str],
    *,
    short_side: int,
    quality: int = 95,
    subsampling: Literal["4:2:0", "4:2:2", "4:4:4"] = "4:2:0",
    format: Literal["jpeg", "raw"] = "jpeg",
    shard_bytes: int = SHARD_BYTES,
    max_pixels: int = PIXEL_LIMIT,
    decoding: Decoding = "reduced",
    arrays: ArrayFormat | None = None,
    n_threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PreparedSet:
    """Prepare the images of an index, or continue an interrupted call with the same options.

    Parameters
    ----------
    index : ImageIndex
        Images to prepare.
    out : str or Path
        Destination folder. It is created if it does not exist.
    short_side : int
        Shorter side of the stored images in pixels.
    quality : int, default 95
        Quality of the JPEG files, 1 to 100. An upright colour JPEG file that already has the right
        size is stored without encoding it again.
    subsampling : {"4:2:0", "4:2:2", "4:4:4"}, default "4:2:0"
        Chroma subsampling of the JPEG files.
    format : {"jpeg", "raw"}, default "jpeg"
        "raw" stores arrays uint8 [H, W, 3] in .npy format. They need no decoding but take about 20
        times the space.
    shard_bytes : int, default 268435456
        A shard ends when it holds at least this number of bytes.
    max_pixels : int, default 64000000
        Images with more pixels are skipped.
    decoding : {"reduced", "full"}, default "reduced"
        "reduced" decodes a JPEG file that is much larger than `short_side` at 1/2, 1/4 or 1/8 of
        its size, which is faster and changes pixels a little. "full" decodes every pixel of the
        file, as earlier versions of ktfast did.
    arrays : ArrayFormat, optional
        What the arrays of the index have in common; they are stored as "raw". None: the index lists
        images.
    n_threads : int, optional
        Number of threads that decode. None: one per core of this process.
    progress : callable, optional
        Called with (images done, images in all).

    Returns
    -------
    PreparedSet
        The prepared set.

    Raises
    ------
    ConfigError
        An option is impossible.
    OSError
        The disk is full or cannot be written. A later call continues after the last whole shard.
    """
    if short_side < 1 or shard_bytes < 1 or max_pixels < 1 or not 1 <= quality <= 100:
        raise ConfigError(
            "short_side, shard_bytes and max_pixels must be at least 1 and quality 1 .. 100,"
            f" got {short_side}, {shard_bytes}, {max_pixels} and {quality}"
        )
    if format not in ("jpeg", "raw"):
        raise ConfigError(f"format must be jpeg or raw, got {format!r}")
    if decoding not in ("reduced", "full"):
        raise ConfigError(f"decoding must be reduced or full, got {decoding!r}")
    options: dict[str, Any] = {
        "short_side": short_side, "quality": quality, "subsampling": subsampling,
        "format": format, "shard_bytes": shard_bytes,
    }  # fmt: skip
    if arrays is not None:
        options |= {"format": "raw", "channels": arrays.channels}
        options["range"] = [arrays.low, arrays.high]
    if max_pixels != PIXEL_LIMIT:  # sets of earlier versions lack the option
        options["max_pixels"] = max_pixels
    if decoding != "full":  # sets of earlier versions lack the option, and were decoded fully
        options["decoding"] = decoding
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    remove_leftovers(out)
    ShardWriter(index, out, options, progress).write_all(n_threads)
    return PreparedSet.open(out)


def verified(
    index: ImageIndex,
    *,
    n_threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ImageIndex:
    """Decode every image once, and move images that cannot be decoded to the skipped images.

    Call this before a feed reads the original files. A prepared set needs no such call, because
    `prepare` has decoded all of its images.

    Parameters
    ----------
    index : ImageIndex
        Images to verify.
    n_threads : int, optional
        Number of threads that decode. None: one per core of this process.
    progress : callable, optional
        Called with (images done, images in all).

    Returns
    -------
    ImageIndex
        The images that can be decoded.
    """
    source = FolderSource(index)

    def reason(row: int) -> str | None:
        try:
            # Decoding at the smallest size reads all of a JPEG file's data too.
            decode(source.read(row), source.name(row), 1)
        except DataError as error:
            return skip_reason(error)
        return None

    good, skipped = [], []
    with in_order(reason, index.n, n_threads) as reasons:
        for row, problem in reasons(0):
            if problem is None:
                good.append(row)
            else:
                skipped.append(SkippedImage(index.paths[row], problem))
            if progress is not None:
                progress(row + 1, index.n)
    return index.take(np.array(good, np.int64), skipped)
