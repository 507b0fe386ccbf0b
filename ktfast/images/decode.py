"""Bytes of any image file to an RGB image, or one exception that says why not.

Conventions, the same for every feed and for prepared sets:
- the EXIF orientation is applied; of several frames the first counts;
- transparency is laid over white (the colour under a transparent pixel is arbitrary);
- 16-bit gray is divided by 257; wider integers and floats are taken as 0..1, 0..255 or 0..65535,
  whichever holds all values, and else stretched from their minimum to their maximum;
- resizing is bilinear with antialiasing (a triangle filter as wide as the reduction).

Only formats whose decoders run in the process are opened: Pillow would hand EPS to Ghostscript.
"""

import io
import threading
import warnings
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, UnidentifiedImageError

from ktfast.errors import DataError

PIXEL_LIMIT = 64_000_000
"""Images whose header claims more pixels are refused before any is decoded."""
ASPECT_LIMIT = 50
"""Images whose longer side is more than this many times the shorter are refused."""
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "TIFF", "WEBP", "PPM", "TGA", "JPEG2000")


class DecodeError(DataError):
    """An image that cannot be decoded; `reason` is the message without the image's name."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} cannot be decoded: {reason}")
        self.reason = reason


def decode_rgb(
    data: bytes | memoryview, name: str, *, pixel_limit: int = PIXEL_LIMIT
) -> Image.Image:
    """Decode one image file.

    Parameters
    ----------
    data : the whole file.
    name : what error messages call it.
    pixel_limit : most pixels the header may claim.

    Returns
    -------
    image of mode RGB, upright.

    Raises
    ------
    DecodeError : empty, damaged, truncated, of unknown format, too large or too elongated.
    """
    if not len(data):
        raise DecodeError(name, "the file is empty")
    try:
        with _pillow_warnings_ignored, Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(image.width, image.height, name, pixel_limit)
            image.load()
            turn = _TURNS.get(_orientation(image))
            rgb = _to_rgb(image)
            return rgb if turn is None else rgb.transpose(turn)
    except DecodeError:
        raise
    except UnidentifiedImageError as error:
        raise DecodeError(name, "not an image file of a known format") from error
    except MemoryError:
        raise
    except Exception as error:  # decoders meet hostile bytes with every kind of exception
        raise DecodeError(name, f"{error} ({type(error).__name__})") from error


def upright_shape(path: str) -> tuple[int, int]:
    """(height, width) of an image file as `decode_rgb` gives it, from its header alone.

    Raises
    ------
    DecodeError : it cannot be opened as an image.
    """
    try:
        with _pillow_warnings_ignored, Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            return (width, height) if _orientation(image) >= 5 else (height, width)
    except Exception as error:  # decoders meet hostile bytes with every kind of exception
        raise DecodeError(path, f"{error} ({type(error).__name__})") from error


def resized_shape(height: int, width: int, short_side: int) -> tuple[int, int]:
    """(height, width) after resizing the shorter side; the longer one is rounded half up."""
    shorter, longer = min(height, width), max(height, width)
    scaled = max(short_side, (2 * longer * short_side + shorter) // (2 * shorter))
    return (short_side, scaled) if height <= width else (scaled, short_side)


def resize_short_side(image: Image.Image, short_side: int) -> Image.Image:
    """Resize so that the shorter side is `short_side` pixels."""
    height, width = resized_shape(image.height, image.width, short_side)
    if (width, height) == image.size:
        return image
    return image.resize((width, height), Image.Resampling.BILINEAR)


def square(image: Image.Image, *, short_side: int, size: int) -> npt.NDArray[np.uint8]:
    """Resize the shorter side, cut the centre: uint8 [size, size, 3].

    Only the pixels of the cut are resampled, which gives the same values as resizing it all.
    """
    height, width = resized_shape(image.height, image.width, short_side)
    top, left = (height - size) // 2, (width - size) // 2
    if (width, height) == image.size:
        return np.asarray(image.crop((left, top, left + size, top + size)))
    x, y = image.width / width, image.height / height
    box = (left * x, top * y, (left + size) * x, (top + size) * y)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box))


def is_safe_jpeg(data: bytes | memoryview) -> bool:
    """Whether every decoder makes the same picture of the file, if its data is undamaged.

    True for baseline and progressive JPEG with Huffman codes, 8-bit gray or colour, of a size
    that `decode_rgb` accepts, with an end marker in the last kilobyte.
    """
    frame = jpeg_frame(data)
    if frame is None or b"\xff\xd9" not in bytes(data[-1024:]):
        return False
    bits, height, width, components = frame
    plain = bits == 8 and components in (1, 3) and min(height, width) > 0
    small = height * width <= PIXEL_LIMIT
    return plain and small and max(height, width) <= ASPECT_LIMIT * min(height, width)


def is_upright_colour_jpeg(data: bytes | memoryview) -> bool:
    """Whether the file, one that `decode_rgb` accepts, can be stored in a prepared set as it is."""
    frame = jpeg_frame(data)
    if frame is None or frame[3] != 3 or not is_safe_jpeg(data):
        return False
    with _pillow_warnings_ignored, Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        return image.mode == "RGB" and _orientation(image) == 1


def jpeg_frame(data: bytes | memoryview) -> tuple[int, int, int, int] | None:
    """(bits, height, width, components) of a baseline or progressive Huffman-coded JPEG file.

    None where the segments up to the pixels do not follow each other without a gap: libjpeg, and
    so Pillow, skips what lies between, other decoders do not.
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


def _check_size(width: int, height: int, name: str, pixel_limit: int) -> None:
    if width < 1 or height < 1:
        raise DecodeError(name, f"the header claims {width} x {height} pixels")
    if width * height > pixel_limit:
        limit = f"more than the limit of {pixel_limit:,}"
        raise DecodeError(name, f"the header claims {width} x {height} pixels, {limit}")
    if max(width, height) > ASPECT_LIMIT * min(width, height):
        raise DecodeError(name, f"{width} x {height} pixels is over {ASPECT_LIMIT}:1 elongated")


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 .. 8; 1 where there is none or the EXIF data is damaged."""
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # any of a parser's errors, beside pixels that are readable
        return 1
    return orientation if orientation in _TURNS else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image if image.format == "JPEG" else image.copy()  # others may reopen the file
    if image.mode[0] in "IF":
        return _wide_gray_to_rgb(image)
    if image.mode == "LAB":
        return _lab_to_rgb(image)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _wide_gray_to_rgb(image: Image.Image) -> Image.Image:
    """Gray of more than 8 bits (modes I, I;16, F) to RGB, scaled as the module's docstring says."""
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
    """Keep Pillow's remarks on odd files from the user, and from becoming errors.

    `warnings.catch_warnings` restores a saved list, which is wrong as soon as two threads
    overlap; here the first to enter adds one filter and the last to leave takes it away.
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
