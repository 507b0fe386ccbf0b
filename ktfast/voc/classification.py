"""Classification: which of VOC's classes a photograph shows (after Krähenbühl et al. 2016).

A photograph may show several classes. The metric is in `ktfast.evaluation.average_precision`.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from ktfast.images.augment import Normalizer, normalize_images
from ktfast.images.feeds.base import Batch, Feed
from ktfast.training.loop import StepOutput


class MultiLabelTask:
    """Training task of a classifier with one yes-or-no answer per class.

    The loss of an image is the sigmoid cross-entropy summed over the classes.

    Parameters
    ----------
    model : Module
        Classifier with one output per class.
    presence : array, int8 [n, n_classes]
        1: the image shows the class. -1: it does not. 0: the answer does not count. One row per
        row of the feed's source.
    normalization : Normalizer
        Normalisation of the images, see `ktfast.images.augment.normalize_images`.
    """

    def __init__(
        self,
        model: nn.Module,
        presence: npt.NDArray[np.int8],
        *,
        normalization: Normalizer = "imagenet",
    ) -> None:
        self.model = model
        self.presence = torch.from_numpy(presence)
        self.normalization = normalization

    def step(self, batch: Batch, epoch: int) -> StepOutput:
        """Loss of a batch of views, and the fraction of counted answers that are right."""
        images = normalize_images(batch.images, self.normalization)
        self.presence = self.presence.to(images.device)
        truth = self.presence[batch.rows.to(images.device, non_blocking=True)]
        logits = self.model(images).float()
        losses = functional.binary_cross_entropy_with_logits(
            logits, (truth > 0).float(), weight=(truth != 0).float(), reduction="sum"
        )
        right = ((logits.detach() > 0) == (truth > 0))[truth != 0].float().mean()
        return StepOutput(losses / len(batch), {"accuracy": right})


@torch.inference_mode()
def image_scores(
    model: nn.Module, feed: Feed, *, crops: int, normalization: Normalizer = "imagenet"
) -> npt.NDArray[np.float32]:
    """Score every photograph: the mean of the logits over several random views.

    Parameters
    ----------
    model : Module
        Classifier. The function puts it into evaluation mode and leaves it there.
    feed : Feed
        Views in the order of the source. Each epoch delivers another view of every photograph.
    crops : int
        Number of views, at least 1.
    normalization : Normalizer
        Normalisation of the images; the same as in training.

    Returns
    -------
    array, float32 [n, n_classes]
        Mean logits.
    """
    device = next(model.parameters()).device
    model.eval()
    total: Tensor | None = None
    for crop in range(crops):
        parts = [
            model(normalize_images(batch.images.to(device), normalization)).float()
            for batch in feed.epoch(crop)
        ]
        scores = torch.cat(parts)
        total = scores if total is None else total + scores
    assert total is not None
    mean: npt.NDArray[np.float32] = (total / crops).cpu().numpy()
    return mean
