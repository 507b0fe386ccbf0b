"""Cut a box out of an image and resize the box, with the pixels of Pillow in less time."""

from typing import Any

import numpy as np
import numpy.typing as npt

from ktfast.native.modules import cpu

__all__ = ["image_resize", "image_resize_is_fast"]


def image_resize_is_fast() -> bool:
    """Whether `image_resize` has a kernel for this processor: AVX2 on x86-64."""
    return bool(cpu.image_resize_is_fast())


def image_resize(
    image: npt.NDArray[np.uint8], box: tuple[float, float, float, float], height: int, width: int
) -> npt.NDArray[np.uint8]:
    """Resize a part of an image: bilinear with antialiasing.

    Parameters
    ----------
    image : array, uint8 [H, W, 4]
        Pixels in NumPy. The fourth byte of a pixel is ignored.
    box : tuple of float
        Left, top, right and bottom edge of the part, in pixels.
    height, width : int
        Size of the result in pixels.

    Returns
    -------
    array, uint8 [height, width, 3]
        The pixels that Pillow's ``Image.resize((width, height), BILINEAR, box)`` gives, bit by bit.

    Raises
    ------
    ValueError
        The box is empty or not within the image, or the processor lacks AVX2.
    """
    out: Any = np.empty((height, width, 3), np.uint8)
    cpu.image_resize(image=image, box=np.asarray(box, np.float32), out=out)
    return out  # type: ignore[no-any-return]
