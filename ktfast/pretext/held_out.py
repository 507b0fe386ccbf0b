"""The held-out measure of a pretext task: its mean over images that no training step has used."""

from typing import Protocol

import torch
from torch import Tensor, nn

from ktfast.images.feeds.base import Batch, Feed
from ktfast.training.classification import evaluating


class Measured(Protocol):
    """A network and its measure; `ktfast.pretext.protocol.Pretext` has both."""

    @property
    def model(self) -> nn.Module:
        """The network."""
        ...

    def measure(self, batch: Batch, epoch: int) -> Tensor:
        """One value [B] for each image of a batch."""
        ...


@torch.inference_mode()
def held_out_measure(
    task: Measured, feed: Feed, *, epoch: int, max_images: int | None = None
) -> float:
    """Mean of a task's measure over images, such as the share of solved puzzles.

    Parameters
    ----------
    task : Measured
        Network and measure.
    feed : Feed
        Images. The function reads the feed's epoch 0 once.
    epoch : int
        Epoch of the random choices. Give an epoch that training never reaches, so that the network
        has not seen the same choices.
    max_images : int, optional
        Stop after the batch with which the number of images reaches this value. None: all images.

    Returns
    -------
    mean : float
        Sum of the values divided by the number of images.
    """
    device = next(task.model.parameters()).device
    total, seen = torch.zeros((), dtype=torch.float64, device=device), 0
    with evaluating(task.model):
        for batch in feed.epoch(0):
            total += task.measure(batch, epoch).double().sum()
            seen += len(batch)
            if max_images is not None and seen >= max_images:
                break
    return float(total) / seen
