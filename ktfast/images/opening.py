"""Open an image file with Pillow: which formats, which sizes, and which way up.

Only formats that Pillow decodes within the process are opened. Pillow would run Ghostscript for an
EPS file.
"""

import contextlib
import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, cast

from PIL import Image

from ktfast.errors import DataError
from ktfast.images.kinds import READS_AVIF

PIXEL_LIMIT = 64_000_000
"""An image whose header claims more pixels is refused before it is decoded, by default."""
ASPECT_LIMIT = 50
"""An image is refused if its longer side is more than this number of times its shorter side."""
FORMATS = (
    "JPEG", "PNG", "BMP", "DIB", "GIF", "TIFF", "WEBP", "PPM", "TGA", "JPEG2000",
    *(["AVIF"] * READS_AVIF),
)  # fmt: skip
"""Pillow's names of the formats. The decoder of JPEG also reads MPO, a file of several pictures."""


class DecodeError(DataError):
    """An image that cannot be decoded.

    Attributes
    ----------
    reason : str
        The message without the name of the image.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} cannot be decoded: {reason}")
        self.reason = reason


@contextlib.contextmanager
def opened(
    file: str | os.PathLike[str] | BinaryIO, formats: Sequence[str], pixel_limit: int = PIXEL_LIMIT
) -> Iterator[Image.Image]:
    """Open an image file, but read no more than its header.

    Parameters
    ----------
    file : path or binary file
        The image file.
    formats : sequence of str
        Pillow's names of the formats that are tried.
    pixel_limit : int
        Number of pixels that the caller accepts. Pillow's own limit of 179 million pixels is
        raised to this number if the number is larger.

    Yields
    ------
    image : Image
        The image, whose pixels are not read yet. `check_size` compares its size with the limit.
    """
    with (
        _pillow_warnings_ignored,
        _pillow_limit.raised(pixel_limit),
        Image.open(file, formats=tuple(formats)) as image,
    ):
        yield image


def check_size(width: int, height: int, name: str, pixel_limit: int) -> None:
    """Refuse an image by its size in pixels.

    Raises
    ------
    DecodeError
        The image is empty, has more than `pixel_limit` pixels, or is too elongated.
    """
    if width < 1 or height < 1:
        raise DecodeError(name, f"the header claims {width} x {height} pixels")
    if width * height > pixel_limit:
        limit = f"more than the limit of {pixel_limit:,} (data.max_megapixels)"
        raise DecodeError(name, f"the header claims {width} x {height} pixels, {limit}")
    if max(width, height) > ASPECT_LIMIT * min(width, height):
        raise DecodeError(name, f"{width} x {height} pixels, more elongated than {ASPECT_LIMIT}:1")


TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How an image is turned upright, by its EXIF orientation. Orientation 1 is upright."""


def exif_orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 if the image has none or its EXIF data is damaged."""
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # the EXIF parser may fail in any way; the pixels can be fine
        return 1
    return orientation if orientation in TURNS else 1


class _PillowWarningsIgnored:
    """A context that ignores Pillow's warnings about unusual files, in any number of threads.

    `warnings.catch_warnings` saves and restores the list of filters, which goes wrong if two
    threads overlap. Here the first thread that enters adds one filter, and the last thread that
    leaves removes the filter.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._filter: Any = None

    def __enter__(self) -> None:
        with self._lock:
            self._depth += 1
            if self._depth == 1:
                warnings.filterwarnings("ignore", module=r"PIL\.")
                self._filter = warnings.filters[0]

    def __exit__(self, *_: object) -> None:
        filters = cast(list[Any], warnings.filters)
        with self._lock:
            self._depth -= 1
            if self._depth == 0 and self._filter in filters:
                filters.remove(self._filter)


_pillow_warnings_ignored = _PillowWarningsIgnored()


class _PillowLimit:
    """Raises Pillow's limit of pixels while at least one thread decodes larger images.

    ktfast compares the size of every image with its own limit before it reads the pixels.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._before: int | None = None

    @contextlib.contextmanager
    def raised(self, pixel_limit: int) -> Iterator[None]:
        with self._lock:
            before = self._before if self._depth else Image.MAX_IMAGE_PIXELS
            # Pillow refuses images of more than twice its limit.
            needed = before is not None and pixel_limit > 2 * before
            if needed:
                self._depth += 1
                self._before = before
                Image.MAX_IMAGE_PIXELS = max(pixel_limit, Image.MAX_IMAGE_PIXELS or 0)
        try:
            yield
        finally:
            if needed:
                with self._lock:
                    self._depth -= 1
                    if self._depth == 0:
                        Image.MAX_IMAGE_PIXELS = self._before


_pillow_limit = _PillowLimit()
