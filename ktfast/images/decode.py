"""Decode the bytes of any image file to RGB, or raise one exception that says why not.

All feeds and all prepared sets follow the same conventions:

- The EXIF orientation is applied. Of several frames, the first one is decoded.
- Transparent pixels are drawn over white, because the colour below them is arbitrary.
- 16-bit gray is divided by 257. 32-bit integers and floats are scaled from the smallest of the
  ranges 0..1 (floats only), 0..255 and 0..65535 that holds all values of the image. If no range
  holds all values, they are scaled from their minimum and maximum.
- Resizing is bilinear with antialiasing: a triangle filter as wide as the reduction.

All threads share one budget of memory (`ktfast.images.decode_memory`), which bounds how many large
images are decoded at the same time.

Only formats that Pillow decodes within the process are opened. Pillow would run Ghostscript for an
EPS file.
"""

import contextlib
import io
import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, UnidentifiedImageError

from ktfast.errors import DataError
from ktfast.images.decode_memory import DECODING
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


def decode_rgb(
    data: bytes | memoryview, name: str, *, pixel_limit: int = PIXEL_LIMIT
) -> Image.Image:
    """Decode one image file.

    Parameters
    ----------
    data : bytes or memoryview
        Content of the file.
    name : str
        Name of the image in error messages.
    pixel_limit : int, default 64000000
        Most pixels that the header may claim.

    Returns
    -------
    Image
        Upright image of mode RGB.

    Raises
    ------
    DecodeError
        The file is empty, damaged, truncated, of an unknown format, too large or too elongated.
    """
    if not len(data):
        raise DecodeError(name, "the file is empty")
    try:
        with opened(io.BytesIO(data), FORMATS, pixel_limit) as image, DECODING.block():
            check_size(image.width, image.height, name, pixel_limit)
            DECODING.take(len(data) + image.width * image.height * _bytes_per_pixel(image))
            image.load()
            turn = _TURNS.get(exif_orientation(image))
            rgb = _to_rgb(image)
            return rgb if turn is None else rgb.transpose(turn)
    except DecodeError:
        raise
    except UnidentifiedImageError as error:
        raise DecodeError(name, "not an image file of a known format") from error
    except MemoryError:
        raise
    except Exception as error:  # decoders raise any kind of exception on damaged bytes
        raise DecodeError(name, f"{error} ({type(error).__name__})") from error


def upright_shape(path: str, pixel_limit: int = PIXEL_LIMIT) -> tuple[int, int]:
    """(height, width) of the image that `decode_rgb` would return, read from the file's header.

    Raises
    ------
    DecodeError
        The file cannot be opened as an image.
    """
    try:
        with opened(path, FORMATS, pixel_limit) as image:
            width, height = image.size
            return (width, height) if exif_orientation(image) >= 5 else (height, width)
    except Exception as error:  # decoders raise any kind of exception on damaged bytes
        raise DecodeError(path, f"{error} ({type(error).__name__})") from error


def resized_shape(height: int, width: int, short_side: int) -> tuple[int, int]:
    """(height, width) after resizing the shorter side; the longer side is rounded half up."""
    shorter, longer = min(height, width), max(height, width)
    scaled = max(short_side, (2 * longer * short_side + shorter) // (2 * shorter))
    return (short_side, scaled) if height <= width else (scaled, short_side)


def resize_short_side(image: Image.Image, short_side: int) -> Image.Image:
    """Resize an image so that its shorter side is `short_side` pixels."""
    height, width = resized_shape(image.height, image.width, short_side)
    if (width, height) == image.size:
        return image
    return image.resize((width, height), Image.Resampling.BILINEAR)


def square(image: Image.Image, *, short_side: int, size: int) -> npt.NDArray[np.uint8]:
    """Resize the shorter side and cut a square from the centre: uint8 [size, size, 3].

    Only the pixels of the square are resampled. The values are the same as after resizing the whole
    image.
    """
    height, width = resized_shape(image.height, image.width, short_side)
    top, left = (height - size) // 2, (width - size) // 2
    if (width, height) == image.size:
        return np.asarray(image.crop((left, top, left + size, top + size)))
    x, y = image.width / width, image.height / height
    box = (left * x, top * y, (left + size) * x, (top + size) * y)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box))


def is_safe_jpeg(data: bytes | memoryview) -> bool:
    """Whether Pillow and DALI decode the file to the same picture, if its data is undamaged.

    True for baseline and progressive JPEG files with Huffman codes and 8-bit gray or colour. The
    size must be one that `decode_rgb` accepts, and an end marker must be in the last 1,024 bytes.
    """
    frame = jpeg_frame(data)
    if frame is None or b"\xff\xd9" not in bytes(data[-1024:]):
        return False
    bits, height, width, components = frame
    plain = bits == 8 and components in (1, 3) and min(height, width) > 0
    small = height * width <= PIXEL_LIMIT
    return plain and small and max(height, width) <= ASPECT_LIMIT * min(height, width)


def is_upright_colour_jpeg(data: bytes | memoryview) -> bool:
    """Whether a file that `decode_rgb` accepts can be stored in a prepared set unchanged."""
    frame = jpeg_frame(data)
    if frame is None or frame[3] != 3 or not is_safe_jpeg(data):
        return False
    with _pillow_warnings_ignored, Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        return image.mode == "RGB" and exif_orientation(image) == 1


def jpeg_frame(data: bytes | memoryview) -> tuple[int, int, int, int] | None:
    """(bits, height, width, components) of a baseline or progressive Huffman-coded JPEG file.

    None for any other file, and for a file with gaps between the segments before the pixels.
    libjpeg, which Pillow uses, skips such gaps, but other decoders do not.
    """
    if bytes(data[:2]) != b"\xff\xd8":
        return None
    frame = None
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xDA:
            return frame
        if marker in (0xC0, 0xC1, 0xC2):
            height, width = (data[i] << 8 | data[i + 1] for i in (at + 5, at + 7))
            frame = data[at + 4], height, width, data[at + 9]
        elif marker < 0xC0 or (marker < 0xDA and marker not in (0xC4, 0xC8)):
            return None
        is_fill = marker == 0xFF
        at += 1 if is_fill else 2 + (data[at + 2] << 8 | data[at + 3])
    return None


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


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def exif_orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 if the image has none or its EXIF data is damaged."""
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # the EXIF parser may fail in any way; the pixels can be fine
        return 1
    return orientation if orientation in _TURNS else 1


def _bytes_per_pixel(image: Image.Image) -> int:
    """Largest number of bytes per pixel that `decode_rgb` holds, measured for each format.

    Pillow stores a colour pixel in 4 bytes. Most images exist twice while they are converted.
    """
    if image.format in _DECODER_BYTES:
        needed = _DECODER_BYTES[image.format]
    elif image.mode[0] in "IF":
        needed = 32
    elif image.mode == "LAB":
        needed = 12
    elif image.format == "JPEG" and image.mode == "RGB":
        needed = 4
    else:
        needed = 8
    if image.info.get("progressive"):
        needed += 6  # libjpeg keeps the coefficients of the whole image
    # Pillow reads the pixels of a PNG file before it gives the EXIF orientation.
    is_turned = "exif" in image.info and (image.format != "JPEG" or exif_orientation(image) != 1)
    return needed + (4 if is_turned else 0)


_DECODER_BYTES = {"WEBP": 28, "JPEG2000": 20, "AVIF": 16}
"""Bytes per pixel of formats whose decoders hold copies of the image."""


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return (
            image if image.format == "JPEG" else image.copy()
        )  # Pillow may reopen the file of another format
    if image.mode[0] in "IF":
        return _wide_gray_to_rgb(image)
    if image.mode == "LAB":
        return _lab_to_rgb(image)
    if image.has_transparency_data:
        return _over_white(image)
    return image.convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    """Draw an image with transparent pixels over white.

    The work is done in strips, because three more copies of a large image take much memory.
    """
    rgb = Image.new("RGB", image.size)
    for top in range(0, image.height, _STRIP):
        strip = image.crop((0, top, image.width, min(top + _STRIP, image.height)))
        layer = strip.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        rgb.paste(Image.alpha_composite(white, layer).convert("RGB"), (0, top))
    return rgb


_STRIP = 256
"""Rows of pixels that are drawn over white at a time."""


def _wide_gray_to_rgb(image: Image.Image) -> Image.Image:
    """Convert gray of more than 8 bits (modes I, I;16, F) to RGB; see the module's docstring."""
    values = np.nan_to_num(np.asarray(image).astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if image.mode.startswith("I;16"):
        low, high = 0.0, 65535.0
    elif low >= 0 and high <= 65535:
        fits_unit = image.mode == "F" and high <= 1
        low, high = 0.0, 1.0 if fits_unit else 255.0 if high <= 255 else 65535.0
    scale = 255.0 / (high - low) if high > low else 0.0
    return Image.fromarray(np.rint((values - low) * scale).astype(np.uint8)).convert("RGB")


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    if converted is None:
        raise ValueError("no conversion from LAB to RGB")
    return converted


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
