"""Resize decoded images: bilinear with antialiasing, a triangle filter as wide as the reduction."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image, perhaps at a fraction of its size.

    Attributes
    ----------
    image : Image
        Upright image of mode RGB.
    shape : tuple of int
        Height and width of the image at its full size, in pixels.
    box : tuple of float
        Left, top, right and bottom edge of the picture in `image`, in pixels. The size of a reduced
        image is rounded up, so the picture may end within the last row or column of pixels.
    """

    image: Image.Image
    shape: tuple[int, int]
    box: tuple[float, float, float, float]

    @classmethod
    def of(cls, image: Image.Image) -> "DecodedImage":
        """Wrap an image of full size."""
        return cls(image, (image.height, image.width), (0.0, 0.0, *image.size))

    @property
    def is_reduced(self) -> bool:
        """Whether the image was decoded at a fraction of its size."""
        return self.shape != (self.image.height, self.image.width)

    def resized(self, short_side: int) -> Image.Image:
        """Resize the image so that its shorter side is `short_side` pixels."""
        height, width = resized_shape(*self.shape, short_side)
        if (width, height) == self.image.size and not self.is_reduced:
            return self.image
        return self.image.resize((width, height), Image.Resampling.BILINEAR, box=self.box)

    def square(self, *, short_side: int, size: int) -> npt.NDArray[np.uint8]:
        """Resize the shorter side and cut a square from the centre: uint8 [size, size, 3].

        Only the pixels of the square are resampled. The values are the same as after resizing the
        whole image.
        """
        height, width = resized_shape(*self.shape, short_side)
        top, left = (height - size) // 2, (width - size) // 2
        if (width, height) == self.image.size and not self.is_reduced:
            return np.asarray(self.image.crop((left, top, left + size, top + size)))
        x0, y0, x1, y1 = self.box
        x, y = (x1 - x0) / width, (y1 - y0) / height
        box = (x0 + left * x, y0 + top * y, x0 + (left + size) * x, y0 + (top + size) * y)
        return np.asarray(self.image.resize((size, size), Image.Resampling.BILINEAR, box=box))


def resized_shape(height: int, width: int, short_side: int) -> tuple[int, int]:
    """(height, width) after resizing the shorter side; the longer side is rounded half up."""
    shorter, longer = min(height, width), max(height, width)
    scaled = max(short_side, (2 * longer * short_side + shorter) // (2 * shorter))
    return (short_side, scaled) if height <= width else (scaled, short_side)


def resize_short_side(image: Image.Image, short_side: int) -> Image.Image:
    """Resize an image so that its shorter side is `short_side` pixels."""
    return DecodedImage.of(image).resized(short_side)


def square(image: Image.Image, *, short_side: int, size: int) -> npt.NDArray[np.uint8]:
    """Resize an image and cut a square from its centre; see `DecodedImage.square`."""
    return DecodedImage.of(image).square(short_side=short_side, size=size)
