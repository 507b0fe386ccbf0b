"""Items that are arrays instead of photographs: spectrograms, or images of any number of channels.

An item is a `.npy` file. A prepared set stores arrays as uint8, as it stores photographs: one range
of values, the same for all items, is mapped to 0..255.
"""

import os
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from ktfast.errors import DataError
from ktfast.images.opening import PIXEL_LIMIT, DecodeError, check_size
from ktfast.images.resize import resized_shape
from ktfast.readers import npy_of

ARRAY_SUFFIX = ".npy"
"""Suffix of the files that are items of a folder of arrays."""


@dataclass(frozen=True)
class ArrayFormat:
    """What every array of a folder has in common.

    Attributes
    ----------
    channels : int
        Number of channels.
    low, high : float
        Values that become 0 and 255. Values outside are cut.
    """

    channels: int
    low: float = 0.0
    high: float = 255.0

    def read(self, data: bytes, name: str, pixel_limit: int = PIXEL_LIMIT) -> npt.NDArray[np.uint8]:
        """Read the content of a `.npy` file.

        Parameters
        ----------
        data : bytes
            Content of the file: numbers [H, W] or [H, W, C].
        name : str
            Name of the file in error messages.
        pixel_limit : int
            Most pixels H * W of an array.

        Returns
        -------
        pixels : array, uint8 [H, W, C]
            The values, with `low` mapped to 0 and `high` mapped to 255.

        Raises
        ------
        DecodeError
            The file is damaged, or its array has another shape or type, too many or too few pixels,
            or values that are not finite.
        """
        try:
            found = npy_of(data, name, "write the file again with numpy.save")
        except DataError as error:
            raise DecodeError(name, f"no readable .npy file ({error.__cause__})") from error
        if found.ndim == 2:
            found = found[:, :, None]
        if found.ndim != 3 or found.dtype.kind not in "uif":
            raise DecodeError(
                name,
                f"an array of {found.dtype} of shape {found.shape}; expected integers or floats of "
                "shape [height, width] or [height, width, channels]",
            )
        if found.shape[2] != self.channels:
            raise DecodeError(
                name,
                f"{found.shape[2]} channels; expected {self.channels} (transfer.channels)",
            )
        check_size(found.shape[1], found.shape[0], name, pixel_limit)
        return self._to_bytes(found, name)

    def _to_bytes(self, values: npt.NDArray[np.generic], name: str) -> npt.NDArray[np.uint8]:
        if values.dtype == np.uint8 and (self.low, self.high) == (0.0, 255.0):
            return np.ascontiguousarray(values, np.uint8)
        numbers = values.astype(np.float64)
        if not np.isfinite(numbers).all():
            raise DecodeError(name, "the array holds values that are not finite")
        scaled = (numbers - self.low) * (255.0 / (self.high - self.low))
        pixels: npt.NDArray[np.uint8] = np.rint(scaled.clip(0.0, 255.0)).astype(np.uint8)
        return pixels


def resized_array(pixels: npt.NDArray[np.uint8], short_side: int) -> npt.NDArray[np.uint8]:
    """Resize each channel of an array, bilinear with antialiasing as for photographs.

    Parameters
    ----------
    pixels : array, uint8 [H, W, C]
        The array.
    short_side : int
        Shorter side of the result in pixels.

    Returns
    -------
    resized : array, uint8 [h, w, C]
        The resized array; `pixels` itself if it has this size.
    """
    height, width = resized_shape(pixels.shape[0], pixels.shape[1], short_side)
    if (height, width) == pixels.shape[:2]:
        return pixels
    planes = [
        Image.fromarray(np.ascontiguousarray(pixels[:, :, channel])).resize(
            (width, height), Image.Resampling.BILINEAR
        )
        for channel in range(pixels.shape[2])
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=2)


def array_square(
    pixels: npt.NDArray[np.uint8], *, short_side: int, size: int
) -> npt.NDArray[np.uint8]:
    """Resize an array, and cut a square from its centre: uint8 [size, size, C]."""
    resized = resized_array(pixels, short_side)
    top, left = (resized.shape[0] - size) // 2, (resized.shape[1] - size) // 2
    return resized[top : top + size, left : left + size]


def array_picture(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    """Draw an array for the report: the mean over its channels in gray, an image of mode RGB."""
    gray = np.rint(pixels.mean(axis=2)).astype(np.uint8)
    return Image.fromarray(gray).convert("RGB")


def is_array(name: str) -> bool:
    """Whether the name of a file is that of an array."""
    return os.path.splitext(name)[1].lower() == ARRAY_SUFFIX
