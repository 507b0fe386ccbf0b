"""The pictures of the report: examples of the pretext task, and images of clusters."""

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ktfast.errors import DataError
from ktfast.pretext.pictures import Example, Panel

MONTAGE_ARRAYS = {"images": 5, "clusters": 1, "sizes": 1}


@dataclass(frozen=True)
class Drawing:
    """A panel of an example of the pretext task, with its pixels as a data URI.

    Attributes
    ----------
    source : str
        The pixels, as a data URI.
    width, height : int
        Size of the panel in pixels.
    panel : Panel
        Text, squares and gaps of the panel.
    """

    source: str
    width: int
    height: int
    panel: Panel


@dataclass(frozen=True)
class DrawnExample:
    """An example of the pretext task: drawings side by side above a caption."""

    drawings: list[Drawing]
    caption: str


@dataclass(frozen=True)
class Montage:
    """The most central images of one cluster."""

    cluster: int
    size: int
    images: list[str]


def data_uri(image: NDArray[np.uint8], quality: int = 88) -> str:
    """Encode an image uint8 [h, w, 3] as JPEG with full colour resolution, as a data URI."""
    buffer = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(image))
    picture.save(buffer, "JPEG", quality=quality, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def drawn(example: Example) -> DrawnExample:
    """Encode the pixels of an example of the pretext task."""
    drawings = [
        Drawing(data_uri(panel.pixels, 92), panel.pixels.shape[1], panel.pixels.shape[0], panel)
        for panel in example.panels
    ]
    return DrawnExample(drawings, example.caption)


def montages(arrays: dict[str, NDArray[Any]]) -> list[Montage]:
    """Lay out `cluster/montage.npz`, the largest cluster first.

    Parameters
    ----------
    arrays : dict of str to array
        images uint8 [c, m, s, s, 3], clusters int [c], sizes int [c]. A cluster of fewer than m
        images is padded; the montage leaves the padding out.

    Returns
    -------
    list of Montage
        One montage per cluster.

    Raises
    ------
    DataError
        The images are not uint8 RGB.
    """
    images, sizes = arrays["images"], arrays["sizes"]
    if images.dtype != np.uint8 or images.shape[-1] != 3:
        raise DataError(
            f"cluster/montage.npz holds {images.dtype} images {images.shape}, not uint8 RGB images"
        )
    return [
        Montage(
            cluster=int(arrays["clusters"][row]),
            size=int(sizes[row]),
            images=[data_uri(image, 82) for image in images[row][: int(sizes[row])]],
        )
        for row in np.argsort(-sizes, kind="stable")
    ]
