"""Which of VOC's classes a photograph shows, several at a time (after Krähenbühl et al. 2016)."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from ktfast.images.augment import Normalization, normalize_images
from ktfast.images.feeds.base import Batch, Feed
from ktfast.training.loop import StepOutput


class MultiLabelTask:
    """A sigmoid cross-entropy for each class, summed over classes.

    Parameters
    ----------
    model : classifier with an output for each class.
    presence : int8 [n, n_classes], 1 shown, -1 not, 0 does not count; one row per row of the
        feed's source.
    normalization : of the images, as in `ktfast.images.augment.normalize_images`.
    """

    def __init__(
        self,
        model: nn.Module,
        presence: npt.NDArray[np.int8],
        *,
        normalization: Normalization = "imagenet",
    ) -> None:
        self.model = model
        self.presence = torch.from_numpy(presence)
        self.normalization = normalization

    def step(self, batch: Batch, epoch: int) -> StepOutput:
        """Loss of a batch of views, and the share of its counted answers that are right."""
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
    model: nn.Module, feed: Feed, *, crops: int, normalization: Normalization = "imagenet"
) -> npt.NDArray[np.float32]:
    """Scores of every photograph: the mean of the logits over several random views.

    Parameters
    ----------
    model : classifier; it is in evaluation mode afterwards.
    feed : views in the source's order; each of its epochs is another view of all photographs.
    crops : how many views.
    normalization : as in training.

    Returns
    -------
    float32 [n, n_classes].
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
