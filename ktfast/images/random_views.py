"""The random views that a network is trained on: crops, mirrors, scales and colours.

Every random choice is a function of (seed, epoch, sample id), as in `ktfast.images.augment`.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ktfast.images.augment import draw, random_crops

# Numbers of the draws; 0 to 2 are those of `random_crops`.
_TOP, _LEFT, _MIRROR, _AREA, _ASPECT, _BRIGHTNESS, _CONTRAST, _SATURATION = range(8)
_FINE = 1 << 24  # a random fraction is a drawn integer below this number, divided by it
_WIDEST = 4 / 3
_GRAY = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class RandomViews:
    """Make a random view of each image of a batch.

    Attributes
    ----------
    crop : int
        Side of the views, pixels.
    mirror : bool
        Whether to mirror each image with probability 1/2.
    seed : int
        Seed of the random choices.
    area : pair of float, optional
        Smallest and largest share of the image's area that a view covers. The view is a rectangle
        with an aspect ratio of 3/4 to 4/3 that is resized to a square (Szegedy et al. 2015). None:
        a view is a square of `crop` pixels that is not resized.
    color_jitter : float
        Brightness, contrast and saturation are multiplied, in this order, by factors between
        1 - color_jitter and 1 + color_jitter.
    """

    crop: int
    mirror: bool
    seed: int
    area: tuple[float, float] | None = None
    color_jitter: float = 0.0

    def __call__(self, images: Tensor, sample_ids: Tensor, epoch: int) -> Tensor:
        """Make the views of a batch.

        Parameters
        ----------
        images : Tensor, uint8 [B, S, S, C]
            RGB images, or arrays of C channels.
        sample_ids : Tensor, int64 [B]
            Sample id of each image.
        epoch : int
            Number of the epoch.

        Returns
        -------
        Tensor, uint8 [B, crop, crop, C]
            The views.
        """
        if self.area is None:
            views = random_crops(
                images,
                sample_ids,
                crop=self.crop,
                mirror=self.mirror,
                seed=self.seed,
                epoch=epoch,
            )
        else:
            views = self._resized(images, sample_ids.to(images.device), epoch)
        if self.color_jitter:
            views = self._recolored(views, sample_ids.to(images.device), epoch)
        return views

    def _fraction(self, ids: Tensor, epoch: int, number: int) -> Tensor:
        """A uniform fraction in [0, 1] per image, float32 [B]."""
        return draw(ids, _FINE, seed=self.seed, epoch=epoch, number=number).float() / (_FINE - 1)

    def _resized(self, images: Tensor, ids: Tensor, epoch: int) -> Tensor:
        """Cut a random rectangle from each image and resize it to a square."""
        assert self.area is not None
        height, width = images.shape[1:3]
        least, most = self.area
        share = least + (most - least) * self._fraction(ids, epoch, _AREA)
        logarithm = math.log(_WIDEST) * (2 * self._fraction(ids, epoch, _ASPECT) - 1)
        aspect = torch.exp(logarithm)
        tall = (share * height * width / aspect).sqrt().clamp(1, height)
        wide = (share * height * width * aspect).sqrt().clamp(1, width)
        top = self._fraction(ids, epoch, _TOP) * (height - tall)
        left = self._fraction(ids, epoch, _LEFT) * (width - wide)
        flipped = draw(ids, 2, seed=self.seed, epoch=epoch, number=_MIRROR).bool() & self.mirror
        down = _resampling(top, tall, height, self.crop)
        across = _resampling(left, wide, width, self.crop)
        across = torch.where(flipped[:, None, None], across.flip(1), across)
        with torch.autocast(images.device.type, enabled=False):
            n, size = len(images), self.crop
            rows = down @ images.float().flatten(2)
            turned = rows.reshape(n, size, width, -1).transpose(1, 2).flatten(2)
            views = (across @ turned).reshape(n, size, size, -1).transpose(1, 2)
        return views.round_().clamp_(0, 255).to(torch.uint8)

    def _recolored(self, views: Tensor, ids: Tensor, epoch: int) -> Tensor:
        """Change brightness, contrast and saturation of each view."""
        factors = [
            1 + self.color_jitter * (2 * self._fraction(ids, epoch, number) - 1)
            for number in (_BRIGHTNESS, _CONTRAST, _SATURATION)
        ]
        brightness, contrast, saturation = (factor[:, None, None, None] for factor in factors)
        colors = (views.float() * brightness).clamp_(0, 255)
        weights = colors.new_tensor(_GRAY)
        mean = (colors * weights).sum(3).mean((1, 2))[:, None, None, None]
        colors = (mean + (colors - mean) * contrast).clamp_(0, 255)
        gray = (colors * weights).sum(3, keepdim=True)
        colors = (gray + (colors - gray) * saturation).round_().clamp_(0, 255)
        return colors.to(torch.uint8)


def _resampling(start: Tensor, length: Tensor, size: int, out: int) -> Tensor:
    """Weights that resize a part of a line of pixels, with a triangle filter as Pillow's.

    As in Pillow, the filter also reads pixels just outside the part.

    Parameters
    ----------
    start, length : Tensor, float32 [B]
        The part, pixels.
    size, out : int
        Number of pixels of the line and of the result.

    Returns
    -------
    Tensor, float32 [B, out, size]
        Weights of the pixels; they sum to 1.
    """
    scale = (length / out)[:, None, None]
    places = torch.arange(out, device=start.device, dtype=torch.float32)[None, :, None]
    pixels = torch.arange(size, device=start.device, dtype=torch.float32)[None, None, :]
    centers = start[:, None, None] + (places + 0.5) * scale
    weights = (1 - (pixels + 0.5 - centers).abs() / scale.clamp_min(1)).clamp_min(0)
    return weights / weights.sum(2, keepdim=True)
