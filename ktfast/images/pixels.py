"""The memory of Pillow's images, without a copy."""

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image


class _ArrowArray(ctypes.Structure):
    """The beginning of the struct ArrowArray of Apache Arrow's C data interface."""


_ArrowArray._fields_ = [
    ("length", ctypes.c_int64),
    ("null_count", ctypes.c_int64),
    ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_ArrowArray))),
]

_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype = ctypes.c_void_p
_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]


def pixels_of(image: Image.Image) -> tuple[npt.NDArray[np.uint8], Any] | None:
    """Look at the pixels of an RGB image.

    Parameters
    ----------
    image : Image
        Image of mode RGB.

    Returns
    -------
    pixels : (array, owner) or None
        The pixels, uint8 [height, width, 4], which are valid while `owner` exists. None if Pillow
        is older than 11.2, or keeps the image in several blocks of memory, which it does with
        images of more than about four million pixels.
    """
    core: Any = vars(Image)["core"]  # Pillow's types hide the module
    if not hasattr(image, "__arrow_c_array__") or core.get_alignment() != 1:
        return None
    try:
        owner = image.__arrow_c_array__()
    except (ValueError, MemoryError):  # several blocks of memory
        return None
    array = _ArrowArray.from_address(_pointer(owner[1], b"arrow_array"))
    n = image.width * image.height
    if (array.length, array.offset, array.n_children) != (n, 0, 1):
        return None
    channels = array.children[0].contents
    if (channels.length, channels.offset, channels.n_buffers) != (4 * n, 0, 2):
        return None
    memory: Any = (ctypes.c_uint8 * (4 * n)).from_address(channels.buffers[1])
    return np.frombuffer(memory, np.uint8).reshape(image.height, image.width, 4), owner
