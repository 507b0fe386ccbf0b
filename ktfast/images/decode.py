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
"""

import io

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from ktfast.images.decode_memory import DECODING
from ktfast.images.jpeg import jpeg_frame, reduction
from ktfast.images.opening import (
    FORMATS,
    PIXEL_LIMIT,
    TURNS,
    DecodeError,
    check_size,
    exif_orientation,
    opened,
)
from ktfast.images.resize import DecodedImage


def decode_rgb(
    data: bytes | memoryview, name: str, *, pixel_limit: int = PIXEL_LIMIT
) -> Image.Image:
    """Decode one image file at its full size.

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
    return decode(data, name, None, pixel_limit=pixel_limit).image


def decode(
    data: bytes | memoryview,
    name: str,
    short_side: int | None,
    *,
    pixel_limit: int = PIXEL_LIMIT,
) -> DecodedImage:
    """Decode one image file, perhaps at a fraction of its size.

    libjpeg can decode a JPEG file at 1/2, 1/4 or 1/8 of its size in less time. The pixels then
    differ a little from those of full decoding; docs/how-to/own-images.md gives the measured
    difference. Files of other formats are decoded at their full size.

    Parameters
    ----------
    data : bytes or memoryview
        Content of the file.
    name : str
        Name of the image in error messages.
    short_side : int or None
        Shorter side in pixels to which the caller resizes the image. `jpeg.reduction` gives the
        fraction. None: the image is decoded at its full size.
    pixel_limit : int, default 64000000
        Most pixels that the header may claim.

    Returns
    -------
    DecodedImage
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
            width, height = image.size
            check_size(width, height, name, pixel_limit)
            divisor = 1 if short_side is None else _draft(image, data, short_side)
            DECODING.take(len(data) + _decoding_bytes(image, width * height, divisor))
            image.load()
            orientation = exif_orientation(image)
            rgb = _to_rgb(image)
            upright = rgb if orientation == 1 else rgb.transpose(TURNS[orientation])
            if divisor == 1:
                return DecodedImage.of(upright)
            box = _turned_box(orientation, rgb.size, (width / divisor, height / divisor))
            shape = (height, width) if orientation < 5 else (width, height)
            return DecodedImage(upright, shape, box)
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


def _draft(image: Image.Image, data: bytes | memoryview, short_side: int) -> int:
    """Let libjpeg decode an opened JPEG file at a fraction of its size; return the divisor."""
    frame = jpeg_frame(data) if image.format in ("JPEG", "MPO") else None
    if frame is None or frame[0] != 8:
        return 1
    width, height = image.size
    divisor = reduction(height, width, short_side)
    if divisor > 1:
        image.draft(None, (width // divisor, height // divisor))
    return divisor


def _turned_box(
    orientation: int, size: tuple[int, int], covered: tuple[float, float]
) -> tuple[float, float, float, float]:
    """Where the picture lies in the pixels after they are turned upright.

    Before, the picture begins in the upper left corner and covers a width and a height that may be
    a fraction of a pixel smaller than the size of the image.
    """
    left = size[0] - covered[0] if orientation in (2, 3, 7, 8) else 0.0
    top = size[1] - covered[1] if orientation in (3, 4, 6, 7) else 0.0
    right, bottom = left + covered[0], top + covered[1]
    return (left, top, right, bottom) if orientation < 5 else (top, left, bottom, right)


def _decoding_bytes(image: Image.Image, pixels: int, divisor: int) -> int:
    """Most bytes that decoding an image of so many pixels at 1/`divisor` of its size takes."""
    needed = -(-pixels // divisor**2) * _bytes_per_pixel(image)
    if image.info.get("progressive"):
        needed += 6 * pixels  # libjpeg keeps the coefficients of the whole image
    return needed


def _bytes_per_pixel(image: Image.Image) -> int:
    """Largest number of bytes per decoded pixel that `decode` holds, measured for each format.

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
