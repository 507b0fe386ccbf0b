"""Views: the pixels of a photograph that a network sees, cropped, resized or mirrored.

A view depends only on (row, epoch). Code that moves boxes along with the pixels therefore asks the
view for its geometry again; nothing has to be passed along with the pixels.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from ktfast.errors import DataError
from ktfast.images.augment import draw_one
from ktfast.images.decode_memory import DECODING
from ktfast.images.resize import square
from ktfast.voc.data import IGNORED, VocSet

# Padding: colours that the normalisation "imagenet" turns into about zero, and for a mask the
# ignored class.
FILL = (124, 116, 104, IGNORED)
_TOP, _LEFT, _MIRROR, _AREA, _SCALE = range(5)
_FINE = 1 << 24  # a random fraction is a drawn integer below this number, divided by it


class View(ABC):
    """Makes the pixels of a row in an epoch.

    Parameters
    ----------
    source : VocSet
        Photographs.
    seed : int
        Seed of the random choices.
    mirror : bool
        Mirror half of the views.

    Attributes
    ----------
    channels : int
        3, or 4 if the last channel is a mask.
    largest : int
        Longest possible side of a view in pixels; 0 if unknown.
    """

    channels = 3
    largest = 0

    def __init__(self, source: VocSet, *, seed: int, mirror: bool) -> None:
        self.source = source
        self.seed = seed
        self.mirror = mirror

    @abstractmethod
    def __call__(self, row: int, epoch: int) -> npt.NDArray[np.uint8]:
        """The view, uint8 [h, w, channels]; raises `DataError` for an unreadable image."""

    def mirrored(self, row: int, epoch: int) -> bool:
        """Whether the view is mirrored, that is, left and right are exchanged."""
        return self.mirror and self._draw(row, epoch, 2, _MIRROR) == 1

    def _draw(self, row: int, epoch: int, n: int, number: int) -> int:
        sample = int(self.source.sample_ids[row])
        return draw_one(sample, n, seed=self.seed, epoch=epoch, number=number)

    def _fraction(self, row: int, epoch: int, number: int) -> float:
        return self._draw(row, epoch, _FINE, number) / (_FINE - 1)

    def _turned(self, pixels: npt.NDArray[np.uint8], row: int, epoch: int) -> npt.NDArray[np.uint8]:
        return pixels[:, ::-1] if self.mirrored(row, epoch) else pixels


class AreaCrops(View):
    """Random squares of the photographs, resized to one size.

    Parameters
    ----------
    source : VocSet
        Photographs.
    crop : int
        Side of the view in pixels.
    area : pair of float
        Smallest and largest fraction of the photograph's area that the square covers; the fraction
        is drawn uniformly. The square's side is at most the photograph's shorter side.
    seed : int
        Seed of the random choices.
    mirror : bool
        Mirror half of the views.
    """

    def __init__(
        self, source: VocSet, *, crop: int, area: tuple[float, float], seed: int, mirror: bool
    ) -> None:
        super().__init__(source, seed=seed, mirror=mirror)
        self.largest = crop
        self.area = area

    def __call__(self, row: int, epoch: int) -> npt.NDArray[np.uint8]:
        """The view, uint8 [crop, crop, 3]."""
        with DECODING.block():
            return self._turned(self._cut(row, epoch), row, epoch)

    def _cut(self, row: int, epoch: int) -> npt.NDArray[np.uint8]:
        """The square before it is mirrored."""
        image = self.source.image(row)
        least, most = self.area
        share = least + (most - least) * self._fraction(row, epoch, _AREA)
        side = min(math.sqrt(share * image.width * image.height), image.width, image.height)
        side = max(side, 1.0)
        left = self._fraction(row, epoch, _LEFT) * (image.width - side)
        top = self._fraction(row, epoch, _TOP) * (image.height - side)
        box = (left, top, min(left + side, image.width), min(top + side, image.height))
        size = (self.largest, self.largest)
        return np.asarray(image.resize(size, Image.Resampling.BILINEAR, box=box))


class CenterSquares(View):
    """The central square of each photograph, whose shorter side was resized.

    Parameters
    ----------
    source : VocSet
        Photographs.
    short_side : int
        Shorter side of the resized photograph, pixels.
    size : int
        Side of the square, pixels.
    """

    def __init__(self, source: VocSet, *, short_side: int, size: int) -> None:
        super().__init__(source, seed=0, mirror=False)
        self.short_side = short_side
        self.largest = size

    def __call__(self, row: int, epoch: int) -> npt.NDArray[np.uint8]:
        """The view, uint8 [size, size, 3]."""
        with DECODING.block():
            image = self.source.image(row)
            return square(image, short_side=self.short_side, size=self.largest)


@dataclass(frozen=True)
class ViewGeometry:
    """Size of a view, and where the photograph's pixels lie in the view.

    Attributes
    ----------
    height, width : int
        Size of the view in pixels.
    scale_y, scale_x : float
        View pixels per pixel of the photograph.
    mirrored : bool
        Left and right are exchanged.
    """

    height: int
    width: int
    scale_y: float
    scale_x: float
    mirrored: bool

    def into_view(self, boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Convert boxes of the photograph, edges float32 [m, 4], into boxes of the view."""
        scale = np.array([self.scale_x, self.scale_y] * 2, np.float32)
        moved = boxes * scale
        if self.mirrored:
            moved = np.stack(
                [self.width - moved[:, 2], moved[:, 1], self.width - moved[:, 0], moved[:, 3]], 1
            )
        return moved.astype(np.float32)


class Rescaled(View):
    """Whole photographs, resized to a shorter side that is drawn from a list.

    Parameters
    ----------
    source : VocSet
        Photographs.
    short_sides : tuple of int
        Shorter sides in pixels; one is drawn for each view.
    longest : int
        Largest longer side in pixels. This limit takes precedence over the shorter side.
    seed : int
        Seed of the random choices.
    mirror : bool
        Mirror half of the views.
    """

    def __init__(
        self,
        source: VocSet,
        *,
        short_sides: tuple[int, ...],
        longest: int,
        seed: int,
        mirror: bool,
    ) -> None:
        super().__init__(source, seed=seed, mirror=mirror)
        self.short_sides = short_sides
        self.largest = longest

    def geometry(self, row: int, epoch: int) -> ViewGeometry:
        """Size of a view, and where the photograph's pixels lie in the view."""
        height, width = self.source.shape(row)
        short_side = self.short_sides[self._draw(row, epoch, len(self.short_sides), _SCALE)]
        scale = min(short_side / min(height, width), self.largest / max(height, width))
        new_height, new_width = (max(1, round(scale * side)) for side in (height, width))
        return ViewGeometry(
            new_height, new_width, new_height / height, new_width / width, self.mirrored(row, epoch)
        )

    def __call__(self, row: int, epoch: int) -> npt.NDArray[np.uint8]:
        """The view, uint8 [h, w, 3]."""
        geometry = self.geometry(row, epoch)
        size = (geometry.width, geometry.height)
        with DECODING.block():
            image = self.source.image(row)
            view = image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)
            return self._turned(np.asarray(view), row, epoch)


class Masked(View):
    """Whole photographs in their own size, with the mask as a fourth channel."""

    channels = 4

    def __call__(self, row: int, epoch: int) -> npt.NDArray[np.uint8]:
        """The view, uint8 [h, w, 4]; raises `DataError` if the mask has another size."""
        # The sizes are compared before the pixels of a mask, which may be huge, are read.
        check_mask_size(self.source, row)
        with DECODING.block():
            image, mask = np.asarray(self.source.image(row)), self.source.mask(row)
            return self._turned(np.dstack([image, mask]), row, epoch)


def check_mask_size(source: VocSet, row: int) -> None:
    """Raise `DataError` if the mask and the photograph of a row differ in size."""
    (height, width), mask = source.shape(row), source.mask_shape(row)
    if mask != (height, width):
        raise DataError(
            f"mask {source.mask_path(row)} has {mask[1]} x {mask[0]} pixels, its photograph "
            f"{width} x {height}; both must have the same size"
        )
