"""What an objective on the teacher's features has to do: a loss of a batch, and a held-out measure.

Every objective sees the same targets: one vector of length 1 for each image, from the teacher's
features (`ktfast.pipeline.steps.learn_features`). The student's classifier is the head. It has one
output per component of the targets, and is dropped after the training, as in SimReg (Navaneet et
al., BMVC 2021). Images, random views and optimiser are those of the objective `clusters`.
"""

from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ktfast.config import TransferConfig
from ktfast.images.augment import center_crop, normalize_images
from ktfast.images.feeds.base import Batch
from ktfast.images.random_views import RandomViews
from ktfast.training.loop import StepOutput


class Objective(ABC):
    """A student network, and the teacher's features that it learns.

    A subclass defines `loss` and `score`.

    Parameters
    ----------
    model : nn.Module
        The student. It maps images [B, 3, crop, crop] to outputs [B, p].
    targets : array, float32 [n, p]
        Vector of length 1 for each image of the feed's source, in memory or memory-mapped.
    options : TransferConfig
        Options of the section `transfer`.
    seed : int
        Seed of the random views.

    Attributes
    ----------
    title : str
        Name of the objective in the report.
    measure_name : str
        What `score` measures, in a few words.
    whole_batches : bool
        Whether the loss of a batch is no mean over its images, so that a batch must not be split.
    """

    title: str = ""
    measure_name: str = ""
    whole_batches: bool = False

    def __init__(
        self,
        model: nn.Module,
        targets: npt.NDArray[np.float32],
        options: TransferConfig,
        *,
        seed: int,
    ) -> None:
        self.model = model
        self.options = options
        self._views = RandomViews(
            options.crop, options.mirror, seed, options.area, options.color_jitter
        )
        self._targets = targets
        # Targets in memory move to the student's device once. Others are read batch by batch.
        self._placed = None if isinstance(targets, np.memmap) else torch.from_numpy(targets)

    def step(self, batch: Batch, epoch: int) -> StepOutput:
        """Compute the loss of random views of a batch."""
        images = self._views(batch.images, batch.sample_ids, epoch)
        return self.loss(*self._pair(images, batch.rows))

    def measure(self, batch: Batch, epoch: int) -> Tensor:
        """Compute the score [B] of the centre crop of each image; the epoch has no effect."""
        return self.score(*self._pair(center_crop(batch.images, self.options.crop), batch.rows))

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> StepOutput:
        """Compute the loss of a batch.

        Parameters
        ----------
        outputs : Tensor, float32 [B, p]
            Outputs of the student.
        targets : Tensor, float32 [B, p]
            Vectors of length 1 from the teacher's features.

        Returns
        -------
        output : StepOutput
            Loss and metrics. The mean over the batch, unless `whole_batches` is set.
        """

    @abstractmethod
    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Measure the outputs [B, p] against the targets [B, p]: one number [B] for each image."""

    def _pair(self, images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs of the student for cropped images, and the targets of the images' rows."""
        device = next(self.model.parameters()).device
        images = normalize_images(images.to(device), self.options.normalization)
        if self._placed is None:
            targets = torch.from_numpy(self._targets[rows.cpu().numpy()]).to(device)
        else:
            self._placed = self._placed.to(device)
            targets = self._placed[rows.to(device, non_blocking=True)]
        return self.model(images).float(), targets
