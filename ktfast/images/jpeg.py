"""What ktfast learns from the header of a JPEG file before the pixels are decoded."""

import io

from ktfast.images.opening import ASPECT_LIMIT, PIXEL_LIMIT, exif_orientation, opened

DIVISORS = (8, 4, 2)
"""libjpeg decodes a JPEG file at 1/8, 1/4 or 1/2 of its size in less time than at full size."""
MARGIN = 1.5
"""A reduced image is at least this number of times as large as the target.

The final resize to the target thereby still averages pixels. docs/how-to/own-images.md gives the
measured difference between the pixels of reduced and of full decoding.
"""


def reduction(height: int, width: int, short_side: int) -> int:
    """The divisor of the size at which a JPEG file is decoded: 1, 2, 4 or 8.

    Parameters
    ----------
    height, width : int
        Size of the file's image in pixels.
    short_side : int
        Shorter side in pixels to which the decoded image is resized.

    Returns
    -------
    int
        The largest divisor whose reduced image is at least `MARGIN` times as large as the target.
    """
    least = MARGIN * short_side
    return next((by for by in DIVISORS if min(height, width) >= by * least), 1)


def is_safe_jpeg(data: bytes | memoryview, pixel_limit: int = PIXEL_LIMIT) -> bool:
    """Whether Pillow and DALI decode the file to the same picture, if its data is undamaged.

    True for baseline and progressive JPEG files with Huffman codes and 8-bit gray or colour. The
    size must be one that `decode_rgb` accepts with this limit of pixels, and an end marker must be
    in the last 1,024 bytes.
    """
    frame = jpeg_frame(data)
    if frame is None or b"\xff\xd9" not in bytes(data[-1024:]):
        return False
    bits, height, width, components = frame
    plain = bits == 8 and components in (1, 3) and min(height, width) > 0
    small = height * width <= pixel_limit
    return plain and small and max(height, width) <= ASPECT_LIMIT * min(height, width)


def is_upright_colour_jpeg(data: bytes | memoryview, pixel_limit: int = PIXEL_LIMIT) -> bool:
    """Whether a file that `decode_rgb` accepts can be stored in a prepared set unchanged."""
    frame = jpeg_frame(data)
    if frame is None or frame[3] != 3 or not is_safe_jpeg(data, pixel_limit):
        return False
    with opened(io.BytesIO(data), ("JPEG",), pixel_limit) as image:
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
