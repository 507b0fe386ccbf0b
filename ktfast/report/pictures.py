"""The pictures of the report: examples of the pretext task, and images of clusters."""

import base64
import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
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
class Thumbnail:
    """A small image of a cluster.

    Attributes
    ----------
    source : str
        The image, as a data URI.
    name : str
        File name; empty if unknown.
    path : str
        Path below the folder of images; empty if unknown.
    link : str
        Address of the file; empty if the file does not exist any more.
    """

    source: str
    name: str = ""
    path: str = ""
    link: str = ""


@dataclass(frozen=True)
class Montage:
    """The most central images of one cluster.

    Attributes
    ----------
    cluster, size : int
        Number of the cluster, and number of its images.
    images : list of Thumbnail
        The images, the most central first.
    folder : str
        Address of the folder with all images of the cluster; empty if there is none.
    """

    cluster: int
    size: int
    images: list[Thumbnail]
    folder: str = ""


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


def montages(
    arrays: dict[str, NDArray[Any]],
    paths: Mapping[int, Sequence[str]],
    images_folder: Path | None,
    linked: Callable[[int], str] = lambda cluster: "",
) -> list[Montage]:
    """Lay out `cluster/montage.npz`, the largest cluster first.

    Parameters
    ----------
    arrays : dict of str to array
        images uint8 [c, m, s, s, 3], clusters int [c], sizes int [c]. A cluster of fewer than m
        images is padded; the montage leaves the padding out.
    paths : mapping of int to sequence of str
        Paths of the images by cluster, in the order of the images. Empty if they are unknown.
    images_folder : Path, optional
        Folder that the paths are relative to. None: the page links to no file.
    linked : callable
        Gives the address of the folder with all images of a cluster, or an empty text.

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
    found = []
    for row in np.argsort(-sizes, kind="stable"):
        cluster, size = int(arrays["clusters"][row]), int(sizes[row])
        sources = [data_uri(image, 82) for image in images[row][:size]]
        names = list(paths.get(cluster, ()))
        if len(names) != len(sources):
            names = [""] * len(sources)  # the paths are unknown, or belong to other images
        thumbnails = [
            _thumbnail(source, name, images_folder)
            for source, name in zip(sources, names, strict=True)
        ]
        found.append(Montage(cluster, size, thumbnails, linked(cluster)))
    return found


def _thumbnail(source: str, path: str, folder: Path | None) -> Thumbnail:
    """Name an image, and link to its file if the file exists."""
    file = Path(os.path.abspath(folder / path)) if folder is not None and path else None
    link = file.as_uri() if file is not None and file.is_file() else ""
    return Thumbnail(source, path.rpartition("/")[2], path, link)
