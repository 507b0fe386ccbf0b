"""Rotation (Gidaris, Singh, Komodakis, ICLR 2018): name by how much a photograph is turned."""

import torch
from torch import Tensor

from ktfast.images.augment import normalize_images, random_crops
from ktfast.images.feeds.base import Batch
from ktfast.pretext.classifying import ClassifyingPretext

_ROOM = 8
"""The default jitter, the largest shift of the square, is 1 / 8 of the crop: 31 of 255 px."""


class Rotation(ClassifyingPretext):
    """Name the rotation of a photograph: 0, 90, 180 or 270 degrees.

    A batch holds all four rotations of each photograph, as in the paper. The network sees a square
    at a random place of the crop, mirrored at random.
    """

    title = "Rotation"
    lead = (
        "Left: the photograph. Right of it: the photograph as the network sees it, normalised and "
        "turned. The network must name the rotation."
    )
    answers = ("0 degrees", "90 degrees", "180 degrees", "270 degrees")

    @property
    def input_size(self) -> int:
        """Side of the square that the network sees, pixels: the crop minus the largest shift."""
        jitter, crop = self.options.jitter, self.options.crop
        return crop - (crop // _ROOM if jitter is None else jitter)

    def questions(self, batch: Batch, epoch: int) -> tuple[Tensor, Tensor]:
        """Turn each photograph by 0, 90, 180 and 270 degrees: [B, 4, 3, s, s] and [B, 4]."""
        squares = random_crops(
            batch.images,
            batch.sample_ids,
            crop=self.input_size,
            mirror=True,
            seed=self.seed,
            epoch=epoch,
        )
        upright = normalize_images(squares, "image")
        turned = [torch.rot90(upright, turns, (2, 3)) for turns in range(4)]
        labels = torch.arange(4, device=upright.device).expand(len(batch), 4)
        return torch.stack(turned, 1), labels
