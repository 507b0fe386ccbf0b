"""Segmentation: the class of every pixel (after Long, Shelhamer and Darrell 2015).

The file holds the training task, the test of a trained network, and VOC's mean intersection over
union.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ktfast.errors import InputError
from ktfast.evaluation.average_precision import mean_of_defined
from ktfast.images.augment import Normalizer, normalize_images, normalize_padded
from ktfast.images.feeds.base import Batch, Feed
from ktfast.training.loop import StepOutput
from ktfast.voc.data import IGNORED
from ktfast.voc.heads import FixedNorms


class SegmentationTask:
    """Training task of a fully convolutional network.

    The loss is the cross-entropy of the pixels that are not ignored. Every photograph has the same
    weight.

    Parameters
    ----------
    model : FixedNorms
        Network to train.
    normalization : Normalizer
        Normalisation of the images, see `ktfast.images.augment.normalize_images`.
    """

    def __init__(self, model: FixedNorms, *, normalization: Normalizer = "imagenet") -> None:
        self.model = model
        self.normalization = normalization

    def step(self, batch: Batch, epoch: int) -> StepOutput:
        """Loss of a batch of photographs with masks, and the fraction of pixels that are right."""
        images, masks = _split(batch.images)
        logits = self.model(normalize_padded(images, batch.sizes, self.normalization))
        losses = functional.cross_entropy(logits, masks, ignore_index=IGNORED, reduction="none")
        counted = masks != IGNORED
        pixels = counted.sum((1, 2)).clamp_min(1)
        right = (_classes(logits.detach()) == masks) & counted
        return StepOutput(
            (losses.sum((1, 2)) / pixels).mean(),
            {"accuracy": (right.sum((1, 2)) / pixels).mean()},
        )


class Confusion:
    """Counts pixels by true and predicted class, over all images of a set.

    Parameters
    ----------
    n_classes : int
        Number of classes, the background included.

    Attributes
    ----------
    counts : array, int64 [n_classes, n_classes]
        Number of pixels; row: true class, column: predicted class.
    """

    def __init__(self, n_classes: int) -> None:
        self.counts = np.zeros((n_classes, n_classes), np.int64)

    def add(self, truth: NDArray[np.uint8], predicted: NDArray[np.integer]) -> None:
        """Count the pixels of one image, except ignored ones.

        Parameters
        ----------
        truth : array, uint8 [h, w]
            True classes; 255 is ignored.
        predicted : array, int [h, w]
            Predicted classes.

        Raises
        ------
        InputError
            The shapes differ, or a class is out of range.
        """
        n = len(self.counts)
        if truth.shape != predicted.shape:
            raise InputError(
                f"truth and predicted must have one shape; truth is of shape {truth.shape}, "
                f"predicted of {predicted.shape}"
            )
        counted = truth != IGNORED
        rows, columns = truth[counted].astype(np.int64), predicted[counted].astype(np.int64)
        for name, classes in (("truth", rows), ("predicted", columns)):
            if len(classes) and not (classes.min() >= 0 and classes.max() < n):
                raise InputError(
                    f"{name} must hold classes 0 .. {n - 1}, got {classes.min()} .. {classes.max()}"
                )
        self.counts += np.bincount(n * rows + columns, minlength=n * n).reshape(n, n)

    def intersection_over_union(self) -> NDArray[np.float64]:
        """Intersection over union of each class, float64 [n_classes].

        NaN for a class that is neither in the masks nor in the predictions.
        """
        shared = np.diag(self.counts).astype(np.float64)
        union = self.counts.sum(0) + self.counts.sum(1) - shared
        undefined = np.full(len(shared), np.nan)
        values: NDArray[np.float64] = np.divide(shared, union, out=undefined, where=union > 0)
        return values

    def mean(self) -> float:
        """Mean intersection over union of the classes that have one; NaN without a pixel."""
        return mean_of_defined(self.intersection_over_union())

    def pixel_accuracy(self) -> float:
        """Fraction of pixels whose class is right; NaN without a pixel."""
        total = int(self.counts.sum())
        return float(np.diag(self.counts).sum() / total) if total else float("nan")


@torch.inference_mode()
def segment(
    model: FixedNorms, feed: Feed, n_classes: int, *, normalization: Normalizer = "imagenet"
) -> Confusion:
    """Predict the class of every pixel and compare the predictions with the masks.

    Parameters
    ----------
    model : FixedNorms
        Network to test. The function puts it into evaluation mode and leaves it there.
    feed : Feed
        Photographs with masks, one per batch: padding a photograph would change its predictions.
    n_classes : int
        Number of classes, the background included.
    normalization : Normalizer
        Normalisation of the images; the same as in training.

    Returns
    -------
    Confusion
        Pixel counts over all photographs.
    """
    device = next(model.parameters()).device
    confusion = Confusion(n_classes)
    model.eval()
    for batch in feed.epoch(0):
        images, masks = _split(batch.images.to(device))
        predicted = _classes(model(normalize_images(images, normalization)))
        for mask, classes in zip(masks, predicted, strict=True):
            confusion.add(mask.to(torch.uint8).cpu().numpy(), classes.cpu().numpy())
    return confusion


def _classes(logits: Tensor) -> Tensor:
    """The class of every pixel, int64 [B, H, W]; on a CPU `max` is 5 times as fast as `argmax`."""
    return logits.max(1).indices


def _split(views: Tensor) -> tuple[Tensor, Tensor]:
    """Images uint8 [B, H, W, 3] and masks int64 [B, H, W] of views with four channels."""
    return views[..., :3], views[..., 3].long()
