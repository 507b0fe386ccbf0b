"""Resize decoded images: bilinear with antialiasing, a triangle filter as wide as the reduction."""

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from ktfast.images.pixels import pixels_of
from ktfast.ops.image_resize import image_resize, image_resize_is_fast


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
        fast = _fast_resized(self.image, self.box, height, width)
        if fast is not None:
            return Image.fromarray(fast)
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
        fast = _fast_resized(self.image, box, size, size)
        if fast is not None:
            return fast
        return np.asarray(self.image.resize((size, size), Image.Resampling.BILINEAR, box=box))


def _fast_resized(
    image: Image.Image, box: tuple[float, float, float, float], height: int, width: int
) -> npt.NDArray[np.uint8] | None:
    """The pixels that Pillow's resize gives, in less time; None if Pillow has to resize."""
    if image.mode != "RGB" or not image_resize_is_fast() or not _gives_pixels_of_pillow():
        return None
    # Pillow 13 resamples the columns of such a tall image first, which rounds other numbers.
    if image.height - height > max(0, 2 * (image.width - width)):
        return None
    found = pixels_of(image)
    if found is None:
        return None
    pixels, owner = found
    resized = image_resize(pixels, box, height, width)
    del owner  # the pixels were valid until here
    return resized


@functools.cache
def _gives_pixels_of_pillow() -> bool:
    """Whether the compiled resize agrees with the installed version of Pillow on a small image."""
    noise = np.random.default_rng(0).integers(0, 256, (41, 53, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    box, size = (1.3, 2.6, 50.1, 38.2), (23, 17)
    found = pixels_of(image)
    if found is None:
        return False
    pillow = image.resize(size, Image.Resampling.BILINEAR, box=box)
    return np.array_equal(image_resize(found[0], box, size[1], size[0]), np.asarray(pillow))


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
