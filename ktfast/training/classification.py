"""Classification by labels or pseudo-labels: the loss of a batch, and accuracy on held-out images.

A task turns a batch of a feed into a loss. `ktfast.training.loop.train` trains any task.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ktfast.errors import InputError
from ktfast.images.augment import Normalizer, center_crop, normalize_images
from ktfast.images.feeds.base import Batch, Feed
from ktfast.images.random_views import RandomViews
from ktfast.models import TargetNetwork
from ktfast.training.loop import StepOutput


class ClassificationTask:
    """Name the class or the cluster of an image.

    Parameters
    ----------
    model : TargetNetwork or nn.Module
        Classifier.
    labels : Tensor, int64 [n]
        Label of each row of the feed's source.
    crop : int
        Side of the random square that the network sees, pixels.
    seed : int
        Seed of the crops and mirrors.
    mirror : bool
        Mirror half of the images.
    normalization : str or callable
        Normalisation of the images, as in `ktfast.images.augment.normalize_images`.
    area : pair of float, optional
        Share of an image that a view covers; see `ktfast.images.random_views.RandomViews`.
    color_jitter : float
        Strength of random changes of colour; see `RandomViews`.

    Raises
    ------
    InputError
        A label is negative, or not below the number of the model's classes.
    """

    def __init__(
        self,
        model: TargetNetwork | nn.Module,
        labels: Tensor,
        *,
        crop: int,
        seed: int,
        mirror: bool = True,
        normalization: Normalizer = "imagenet",
        area: tuple[float, float] | None = None,
        color_jitter: float = 0.0,
    ) -> None:
        n_classes = getattr(model, "n_classes", None)
        if len(labels) and (
            int(labels.min()) < 0 or (n_classes is not None and int(labels.max()) >= n_classes)
        ):
            raise InputError(
                f"labels must lie in 0 .. {'n_classes' if n_classes is None else n_classes} - 1,"
                f" got {int(labels.min())} .. {int(labels.max())}"
            )
        self.model = model
        self.labels = labels
        self.views = RandomViews(crop, mirror, seed, area, color_jitter)
        self.normalization = normalization

    def step(self, batch: Batch, epoch: int) -> StepOutput:
        """Cross-entropy and accuracy of random views of a batch."""
        images = self.views(batch.images, batch.sample_ids, epoch)
        self.labels = self.labels.to(images.device)
        labels = self.labels[batch.rows.to(images.device, non_blocking=True)]
        return label_loss(self.model(normalize_images(images, self.normalization)), labels)


@dataclass(frozen=True)
class ClassificationScores:
    """Accuracies in [0, 1].

    Attributes
    ----------
    top1 : float
        Share of images whose most probable class is right.
    mean_per_class : float
        Mean of that share over the classes that have images.
    """

    top1: float
    mean_per_class: float


@torch.inference_mode()
def classification_scores(
    model: nn.Module,
    feed: Feed,
    labels: Tensor,
    *,
    crop: int,
    normalization: Normalizer = "imagenet",
) -> ClassificationScores:
    """Accuracy of a classifier on the centre crops of a feed.

    Parameters
    ----------
    model : nn.Module
        Classifier. The function puts the classifier into evaluation mode and back.
    feed : Feed
        Images. The function reads the feed's epoch 0 once.
    labels : Tensor, int64 [n]
        Label of each row of the feed's source.
    crop : int
        Side of the centre square, pixels.
    normalization : str or callable
        Normalisation of the images, as in `ktfast.images.augment.normalize_images`.

    Returns
    -------
    scores : ClassificationScores
        Accuracy over images, and the mean over classes.
    """
    device = next(model.parameters()).device
    labels = labels.to(device)
    n_classes = int(labels.max()) + 1
    hits, counts = (torch.zeros(n_classes, dtype=torch.int64, device=device) for _ in range(2))
    with evaluating(model):
        for batch in feed.epoch(0):
            squares = center_crop(batch.images.to(device), crop)
            images = normalize_images(squares, normalization)
            truth = labels[batch.rows.to(device)]
            right = (model(images).argmax(1) == truth).long()
            hits.index_add_(0, truth, right)
            counts.index_add_(0, truth, torch.ones_like(right))
    seen = counts > 0
    return ClassificationScores(
        top1=float(hits.sum() / counts.sum()),
        mean_per_class=float((hits[seen] / counts[seen]).mean()),
    )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode for the length of a block."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def label_loss(logits: Tensor, labels: Tensor) -> StepOutput:
    """Cross-entropy and accuracy of logits [B, C] against labels int64 [B]."""
    loss = functional.cross_entropy(logits.float(), labels)
    accuracy = (logits.detach().argmax(1) == labels).float().mean()
    return StepOutput(loss, {"accuracy": accuracy})
