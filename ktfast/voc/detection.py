"""Where the objects of VOC's classes are: Fast R-CNN (Girshick 2015)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import starmap

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import batched_nms

from ktfast.errors import InputError
from ktfast.images.augment import Normalization, normalize_images
from ktfast.images.feeds.base import Batch
from ktfast.training.loop import StepOutput
from ktfast.voc.boxes import overlaps
from ktfast.voc.detection_metric import Detections
from ktfast.voc.feed import ViewFeed
from ktfast.voc.heads import FastRCNN
from ktfast.voc.proposals import Boxes, Proposals
from ktfast.voc.views import Rescaled

FOREGROUND, BACKGROUND = 0.5, 0.1
"""Regions that overlap an object by the first are its; from the second on they are background."""
CORRECTION_SCALE = (0.1, 0.1, 0.2, 0.2)
"""Corrections of boxes are learnt in these units."""
REGION_SIDE = 224
"""With several scales, a region is looked at where it is nearest to so many pixels squared."""
LEAST_SCORE = 0.001
SAME_OBJECT = 0.3
"""Of two detections of a class that overlap by more, the surer one stays."""
MOST_DETECTIONS = 100


@dataclass(frozen=True, eq=False)
class Regions:
    """Regions that are learnt from, of one photograph.

    Attributes
    ----------
    boxes : float32 [r, 4], edges in the photograph's pixels.
    labels : int64 [r], 0 background, else 1 + the object's class.
    objects : float32 [r, 4], the object that each shows; of background its own box.
    """

    boxes: Boxes
    labels: npt.NDArray[np.int64]
    objects: Boxes


class DetectionTask:
    """Cross-entropy over regions, and a smooth distance of the boxes of those that show objects.

    Parameters
    ----------
    model : network.
    view : photographs as the feed shows them.
    proposals : regions of every row; the objects themselves are added.
    regions : drawn from each photograph.
    foreground : share of them that may show an object.
    normalization : of the images, as in `ktfast.images.augment.normalize_images`.
    """

    def __init__(
        self,
        model: FastRCNN,
        view: Rescaled,
        proposals: Proposals,
        *,
        regions: int = 64,
        foreground: float = 0.25,
        normalization: Normalization = "imagenet",
    ) -> None:
        self.model = model
        self.view = view
        self.proposals = proposals
        self.regions = regions
        self.foreground = foreground
        self.normalization = normalization

    def step(self, batch: Batch, epoch: int) -> StepOutput:
        """Loss of a batch of photographs, and the share of its regions whose class is right."""
        rows = batch.rows.tolist()
        drawn = [self.draw(row, epoch) for row in rows]
        places = [self.view.place(row, epoch) for row in rows]
        boxes = [place.into_view(r.boxes) for place, r in zip(places, drawn, strict=True)]
        objects = [place.into_view(r.objects) for place, r in zip(places, drawn, strict=True)]
        images = normalize_images(batch.images, self.normalization)

        def moved(array: npt.NDArray[np.generic]) -> Tensor:
            return torch.from_numpy(array).to(images.device, non_blocking=True)

        labels = moved(np.concatenate([r.labels for r in drawn]))
        targets = moved(
            np.concatenate(list(starmap(corrections, zip(boxes, objects, strict=True))))
        )
        # Each photograph counts the same, however few regions it has.
        weights = moved(
            np.concatenate([np.full(len(b), 1 / (len(b) * len(rows)), np.float32) for b in boxes])
        )
        logits, moves = self.model(images, moved(numbered(boxes)))
        logits = logits.float()
        of_class = moves.float().view(len(labels), -1, 4)
        own = of_class.gather(1, labels.view(-1, 1, 1).expand(-1, 1, 4))[:, 0]
        distances = functional.smooth_l1_loss(own, targets, reduction="none").sum(1)
        losses = functional.cross_entropy(logits, labels, reduction="none")
        losses = losses + torch.where(labels > 0, distances, 0)
        right = (logits.detach().argmax(1) == labels).float()
        return StepOutput((losses * weights).sum(), {"accuracy": (right * weights).sum()})

    def draw(self, row: int, epoch: int) -> Regions:
        """The regions of a photograph that are learnt from in an epoch."""
        objects = self.view.source.objects[row]
        plain = ~objects.difficult
        truth, classes = objects.boxes[plain], objects.labels[plain]
        boxes = np.concatenate([truth, self.proposals.boxes(row)])
        if not len(truth):
            # An image without objects is all background.
            order = self._order(row, epoch, len(boxes))[: self.regions]
            nothing = np.zeros(len(order), np.int64)
            return Regions(boxes[order], nothing, boxes[order])
        shared = overlaps(boxes, truth)
        nearest, share = shared.argmax(1), shared.max(1)
        order = self._order(row, epoch, len(boxes))
        share_of = share[order]
        most = max(1, round(self.foreground * self.regions))
        shown = order[share_of >= FOREGROUND][:most]
        rest = order[(share_of < FOREGROUND) & (share_of >= BACKGROUND)]
        chosen = np.concatenate([shown, rest[: self.regions - len(shown)]])
        labels = np.where(share[chosen] >= FOREGROUND, 1 + classes[nearest[chosen]], 0)
        own = np.where(labels[:, None] > 0, truth[nearest[chosen]], boxes[chosen])
        return Regions(boxes[chosen], labels.astype(np.int64), own)

    def _order(self, row: int, epoch: int, n: int) -> npt.NDArray[np.int64]:
        """A random order of n regions, a function of (seed, epoch, sample id) alone."""
        sample = int(self.view.source.sample_ids[row])
        key = np.array([self.view.seed, sample], np.uint64)
        stream = np.random.Philox(key=key, counter=[0, 0, 0, epoch])
        return np.argsort(np.asarray(stream.random_raw(n)), kind="stable").astype(np.int64)


def numbered(boxes: Sequence[Boxes]) -> Boxes:
    """Regions of several images as one array [R, 5], the number of the image before the edges."""
    numbers = np.repeat(np.arange(len(boxes), dtype=np.float32), [len(b) for b in boxes])
    return np.concatenate([numbers[:, None], np.concatenate(boxes)], 1)


def corrections(boxes: Boxes, objects: Boxes) -> Boxes:
    """What moves boxes onto objects, float32 [r, 4]: shift in sizes, and logarithm of growth."""
    center, size = _center_size(boxes)
    goal, goal_size = _center_size(objects)
    moves = np.concatenate([(goal - center) / size, np.log(goal_size / size)], 1)
    scaled: Boxes = (moves / np.array(CORRECTION_SCALE)).astype(np.float32)
    return scaled


def corrected(boxes: Tensor, moves: Tensor) -> Tensor:
    """Boxes [R, 1, 4] moved by corrections [R, C, 4]; the inverse of `corrections`."""
    moves = moves * moves.new_tensor(CORRECTION_SCALE)
    size = boxes[..., 2:] - boxes[..., :2]
    center = boxes[..., :2] + size / 2 + moves[..., :2] * size
    # A box may grow to at most 62 times its side, which keeps it finite.
    half = size * moves[..., 2:].clamp(max=4.135).exp() / 2
    return torch.cat([center - half, center + half], -1)


def _center_size(boxes: Boxes) -> tuple[Boxes, Boxes]:
    size: Boxes = boxes[:, 2:] - boxes[:, :2]
    center: Boxes = boxes[:, :2] + size * np.float32(0.5)
    return center, size


@torch.inference_mode()
def detect(
    model: FastRCNN,
    feeds: Sequence[ViewFeed],
    proposals: Proposals,
    *,
    normalization: Normalization = "imagenet",
) -> list[Detections]:
    """Detect objects in every photograph of a set.

    Parameters
    ----------
    model : network; it is in evaluation mode afterwards.
    feeds : the photographs in order, one at a time, not mirrored, each feed at another scale.
    proposals : regions of every row.
    normalization : as in training.

    Returns
    -------
    of each photograph at most 100 detections, the surest first.

    Raises
    ------
    InputError : a feed shows something else than whole photographs of one scale.
    """
    views = [feed.view for feed in feeds]
    scaled = [v for v in views if isinstance(v, Rescaled) and len(v.short_sides) == 1]
    if len(scaled) < len(views) or any(feed.batch_size != 1 for feed in feeds):
        raise InputError("feeds must show one photograph at a time, each feed at one scale")
    model.eval()
    found = []
    for batches in zip(*(feed.epoch(0) for feed in feeds), strict=True):
        row = int(batches[0].rows[0])
        boxes = proposals.boxes(row)
        places = [view.place(row, 0) for view in scaled]
        areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
        sides = [np.sqrt(areas * place.scale_y * place.scale_x) for place in places]
        level = np.abs(np.stack(sides) - REGION_SIDE).argmin(0)
        parts = []
        for i, (batch, place) in enumerate(zip(batches, places, strict=True)):
            mine = boxes[level == i]
            if len(mine):
                parts.append((mine, *_answers(model, batch, place.into_view(mine), normalization)))
        height, width = scaled[0].source.shape(row)
        found.append(_kept(parts, height, width))
    return found


def _answers(
    model: FastRCNN, batch: Batch, boxes: Boxes, normalization: Normalization
) -> tuple[Tensor, Tensor]:
    """Probabilities [R, C + 1] and corrections [R, C + 1, 4] of regions of a view."""
    device = next(model.parameters()).device
    images = normalize_images(batch.images.to(device), normalization)
    logits, moves = model(images, torch.from_numpy(numbered([boxes])).to(device))
    return logits.float().softmax(1), moves.float().view(len(boxes), -1, 4)


def _kept(parts: Sequence[tuple[Boxes, Tensor, Tensor]], height: int, width: int) -> Detections:
    """The detections of a photograph: sure enough, and not of an object that is found already."""
    scores = torch.cat([part[1] for part in parts])[:, 1:]
    moves = torch.cat([part[2] for part in parts])[:, 1:]
    regions = torch.from_numpy(np.concatenate([part[0] for part in parts])).to(scores.device)
    boxes = corrected(regions[:, None], moves)
    limits = boxes.new_tensor([width, height, width, height])
    boxes = torch.minimum(boxes.clamp_min(0), limits)
    sure = scores >= LEAST_SCORE
    boxes, labels, scores = boxes[sure], sure.nonzero()[:, 1], scores[sure]
    kept = batched_nms(boxes, scores, labels, SAME_OBJECT)[:MOST_DETECTIONS]
    return Detections(
        boxes=boxes[kept].cpu().numpy(),
        labels=labels[kept].cpu().numpy(),
        scores=scores[kept].cpu().numpy(),
    )
