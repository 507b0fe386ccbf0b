"""What networks are trained for: the puzzle, and classification by labels or pseudo-labels.

A task turns a batch of a feed into a loss; `ktfast.training.train` does the rest.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from ktfast.augment import Normalization, center_crop, normalize_images, random_crops
from ktfast.data.feed import Batch, Feed
from ktfast.errors import InputError
from ktfast.models import JigsawNet, Trunk
from ktfast.ops import jigsaw_tiles
from ktfast.training import StepOutput

__all__ = [
    "ClassificationScores",
    "ClassificationTask",
    "JigsawTask",
    "classification_scores",
    "jigsaw_accuracy",
]


# Options of `jigsaw_tiles` that are fixed by the batch and the network.
_SET_BY_TASK = (
    "sample_ids", "epoch", "indices", "return_choices", "dtype", "channels_last", "out",
)  # fmt: skip


class JigsawTask:
    """Which permutation was applied to the tiles of an image (Jigsaw++).

    Parameters
    ----------
    model : puzzle network.
    permutations : integers [P, n_tiles].
    seed : of every random choice of the puzzles.
    options : further options of `ktfast.ops.jigsaw_tiles`, such as tile_size.
    """

    def __init__(
        self,
        model: JigsawNet,
        permutations: npt.NDArray[Any] | Tensor,
        *,
        seed: int,
        **options: Any,
    ) -> None:
        self.model = model
        self.permutations = torch.as_tensor(np.asarray(permutations))
        self.seed = seed
        self.options = options
        self._kept: dict[tuple[torch.dtype, torch.device, bool], Tensor] = {}
        for name in _SET_BY_TASK:
            if name in options:
                raise InputError(f"JigsawTask sets {name} itself; leave it out")

    def step(self, batch: Batch, epoch: int) -> StepOutput:
        """Cross-entropy and accuracy of a batch.

        Its tiles take the memory of the step before, whose backward pass must be done by then:
        if it comes later, autograd raises.
        """
        tiles, labels = self.puzzles(batch, epoch, reuse=True)
        return _classify(self.model(tiles), labels)

    def puzzles(self, batch: Batch, epoch: int, *, reuse: bool = False) -> tuple[Tensor, Tensor]:
        """The puzzles of a batch, as the network wants them.

        Parameters
        ----------
        batch : images; they are read where they lie, in a resident feed's pool too.
        epoch : of the random choices.
        reuse : write over the tiles of the last call with `reuse`.

        Returns
        -------
        tiles [B, n_tiles, 3, t, t] and labels int64 [B].
        """
        device = batch.pool.device
        self.permutations = self.permutations.to(device)
        dtype = torch.float32
        if torch.is_autocast_enabled(device.type):
            dtype = torch.get_autocast_dtype(device.type)
        first = next(iter(self.model.trunk.features.convolutions().values())).weight
        channels_last = first.is_contiguous(memory_format=torch.channels_last)
        kind = dtype, device, channels_last
        kept = self._kept.get(kind) if reuse else None
        tiles, labels = jigsaw_tiles(
            batch.pool,
            self.permutations,
            indices=batch.indices,
            sample_ids=batch.sample_ids.to(device, non_blocking=True),
            seed=self.seed,
            epoch=epoch,
            dtype=str(dtype).removeprefix("torch."),
            channels_last=channels_last,
            out=None if kept is None or len(kept) < len(batch) else kept[: len(batch)],
            **self.options,
        )
        if reuse and len(tiles) > (0 if kept is None else len(kept)) and not tiles.is_inference():
            self._kept = {kind: tiles}
        return tiles, labels


class ClassificationTask:
    """Which class, or cluster, an image belongs to.

    Parameters
    ----------
    model : classifier.
    labels : int64 [n], one per row of the feed's source.
    crop : side of the random square that the network sees, pixels.
    seed : of the crops and mirrors.
    mirror : mirror half of the images.
    normalization : of the images, as in `ktfast.augment.normalize_images`.

    Raises
    ------
    InputError : a label is negative or not below the number of the model's classes.
    """

    def __init__(
        self,
        model: Trunk | nn.Module,
        labels: Tensor,
        *,
        crop: int,
        seed: int,
        mirror: bool = True,
        normalization: Normalization = "imagenet",
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
        self.crop = crop
        self.seed = seed
        self.mirror = mirror
        self.normalization = normalization

    def step(self, batch: Batch, epoch: int) -> StepOutput:
        """Cross-entropy and accuracy of a batch, randomly cropped and mirrored."""
        images = random_crops(
            batch.images,
            batch.sample_ids,
            crop=self.crop,
            mirror=self.mirror,
            seed=self.seed,
            epoch=epoch,
        )
        self.labels = self.labels.to(images.device)
        labels = self.labels[batch.rows.to(images.device, non_blocking=True)]
        return _classify(self.model(normalize_images(images, self.normalization)), labels)


@dataclass(frozen=True)
class ClassificationScores:
    """Accuracies in [0, 1]: over images, and the mean over classes that have images."""

    top1: float
    mean_per_class: float
    n_images: int


@torch.inference_mode()
def classification_scores(
    model: nn.Module,
    feed: Feed,
    labels: Tensor,
    *,
    crop: int,
    normalization: Normalization = "imagenet",
) -> ClassificationScores:
    """Accuracy of a classifier on the centre crops of a feed.

    Parameters
    ----------
    model : classifier; it is put into evaluation mode for the time.
    feed : images; its first epoch is read once.
    labels : int64 [n], one per row of the feed's source.
    crop : side of the centre square, pixels.
    normalization : of the images, as in `ktfast.augment.normalize_images`.
    """
    device = next(model.parameters()).device
    labels = labels.to(device)
    n_classes = int(labels.max()) + 1
    hits, counts = (torch.zeros(n_classes, dtype=torch.int64, device=device) for _ in range(2))
    with _evaluating(model):
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
        n_images=int(counts.sum()),
    )


@torch.inference_mode()
def jigsaw_accuracy(
    task: JigsawTask, feed: Feed, *, epoch: int, max_images: int | None = None
) -> float:
    """Share of puzzles that the network solves.

    Parameters
    ----------
    task : network and puzzles.
    feed : images; its first epoch is read once.
    epoch : epoch of the puzzles' random choices; one that training never reaches is held out.
    max_images : stop after about this many images.
    """
    device = next(task.model.parameters()).device
    right, seen = torch.zeros((), dtype=torch.int64, device=device), 0
    with _evaluating(task.model):
        for batch in feed.epoch(0):
            tiles, labels = task.puzzles(batch, epoch)
            right += (task.model(tiles).argmax(1) == labels).sum()
            seen += len(labels)
            if max_images is not None and seen >= max_images:
                break
    return int(right) / seen


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for the length of a block."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _classify(logits: Tensor, labels: Tensor) -> StepOutput:
    loss = functional.cross_entropy(logits.float(), labels)
    accuracy = (logits.detach().argmax(1) == labels).float().mean()
    return StepOutput(loss, {"accuracy": accuracy})
