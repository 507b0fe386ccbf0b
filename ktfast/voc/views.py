"""What a network is shown of a photograph that is not cut to one size beforehand.

A view is a function of (row, epoch) alone, so that whoever needs the geometry again, to move boxes
with the pixels, asks for it instead of passing it along.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from ktfast.errors import DataError
from ktfast.images.augment import draw_one
from ktfast.voc.data import IGNORED, VocSet

# Colours that become about zero when images are normalised; of a mask's channel, what is ignored.
FILL = (124, 116, 104, IGNORED)
_TOP, _LEFT, _MIRROR, _AREA, _SCALE = range(5)
_FINE = 1 << 24  # steps of a draw that stands for a real number


class View(ABC):
    """Pixels of a row in an epoch.

    Attributes
    ----------
    source : photographs.
    channels : 3, or 4 where the last is a mask.
    largest : no side is longer, pixels; 0: not known.
    """

    source: VocSet
    channels = 3
    largest = 0

    def __init__(self, source: VocSet, *, seed: int, mirror: bool) -> None:
        self.source = source
        self.seed = seed
        self.mirror = mirror

    @abstractmethod
    def __call__(self, row: int, epoch: int) -> npt.NDArray[np.uint8]:
        """The view, uint8 [h, w, channels]; `DataError` names an image that cannot be read."""

    def mirrored(self, row: int, epoch: int) -> bool:
        """Whether left and right are exchanged."""
        return self.mirror and self._draw(row, epoch, 2, _MIRROR) == 1

    def _draw(self, row: int, epoch: int, n: int, number: int) -> int:
        sample = int(self.source.sample_ids[row])
        return draw_one(sample, n, seed=self.seed, epoch=epoch, number=number)

    def _fraction(self, row: int, epoch: int, number: int) -> float:
        return self._draw(row, epoch, _FINE, number) / (_FINE - 1)

    def _turned(self, pixels: npt.NDArray[np.uint8], row: int, epoch: int) -> npt.NDArray[np.uint8]:
        return pixels[:, ::-1] if self.mirrored(row, epoch) else pixels


class AreaCrops(View):
    """A random square of the photograph, resized.

    Parameters
    ----------
    source : photographs.
    crop : side of the view, pixels.
    area : least and greatest share of the photograph's area that the square covers, uniform; one
        that does not fit is as large as the shorter side.
    seed : of the choices.
    mirror : mirror half of the views.
    """

    def __init__(
        self, source: VocSet, *, crop: int, area: tuple[float, float], seed: int, mirror: bool
    ) -> None:
        super().__init__(source, seed=seed, mirror=mirror)
        self.largest = crop
        self.area = area

    def __call__(self, row: int, epoch: int) -> npt.NDArray[np.uint8]:
        """The view, uint8 [crop, crop, 3]."""
        image = self.source.image(row)
        least, most = self.area
        share = least + (most - least) * self._fraction(row, epoch, _AREA)
        side = min(math.sqrt(share * image.width * image.height), image.width, image.height)
        side = max(side, 1.0)
        left = self._fraction(row, epoch, _LEFT) * (image.width - side)
        top = self._fraction(row, epoch, _TOP) * (image.height - side)
        box = (left, top, min(left + side, image.width), min(top + side, image.height))
        size = (self.largest, self.largest)
        view = np.asarray(image.resize(size, Image.Resampling.BILINEAR, box=box))
        return self._turned(view, row, epoch)


@dataclass(frozen=True)
class Placement:
    """Where a photograph's pixels lie in a view.

    Attributes
    ----------
    height, width : of the view, pixels.
    scale_y, scale_x : view pixels per pixel of the photograph.
    mirrored : left and right are exchanged.
    """

    height: int
    width: int
    scale_y: float
    scale_x: float
    mirrored: bool

    def into_view(self, boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Boxes of the photograph, edges float32 [m, 4], as boxes of the view."""
        scale = np.array([self.scale_x, self.scale_y] * 2, np.float32)
        moved = boxes * scale
        if self.mirrored:
            moved = np.stack(
                [self.width - moved[:, 2], moved[:, 1], self.width - moved[:, 0], moved[:, 3]], 1
            )
        return moved.astype(np.float32)


class Rescaled(View):
    """The whole photograph, resized to one of several shorter sides.

    Parameters
    ----------
    source : photographs.
    short_sides : pixels; one is drawn for each view.
    longest : the longer side is at most this, pixels, and the shorter one shorter if need be.
    seed : of the choices.
    mirror : mirror half of the views.
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

    def place(self, row: int, epoch: int) -> Placement:
        """The geometry of a view."""
        height, width = self.source.shape(row)
        short_side = self.short_sides[self._draw(row, epoch, len(self.short_sides), _SCALE)]
        scale = min(short_side / min(height, width), self.largest / max(height, width))
        new_height, new_width = (max(1, round(scale * side)) for side in (height, width))
        return Placement(
            new_height, new_width, new_height / height, new_width / width, self.mirrored(row, epoch)
        )

    def __call__(self, row: int, epoch: int) -> npt.NDArray[np.uint8]:
        """The view, uint8 [h, w, 3]."""
        place, image = self.place(row, epoch), self.source.image(row)
        size = (place.width, place.height)
        view = image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)
        return self._turned(np.asarray(view), row, epoch)


class Masked(View):
    """The whole photograph as it is, and its mask as a fourth channel."""

    channels = 4

    def __call__(self, row: int, epoch: int) -> npt.NDArray[np.uint8]:
        """The view, uint8 [h, w, 4]; `DataError` if mask and photograph differ in size."""
        image, mask = np.asarray(self.source.image(row)), self.source.mask(row)
        if mask.shape != image.shape[:2]:
            raise DataError(
                f"mask {self.source.mask_path(row)} has {mask.shape[1]} x {mask.shape[0]} pixels, "
                f"its photograph {image.shape[1]} x {image.shape[0]}"
            )
        return self._turned(np.dstack([image, mask]), row, epoch)
