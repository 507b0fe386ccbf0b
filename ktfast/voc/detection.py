"""Detection: find the objects of VOC's classes with Fast R-CNN (Girshick 2015).

The file holds the training task, the test of a trained network, and VOC's average precision.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import starmap

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from ktfast.errors import InputError
from ktfast.evaluation.average_precision import AveragePrecisions, curve_area, eleven_points
from ktfast.images.augment import Normalizer, normalize_images, normalize_padded
from ktfast.images.feeds.base import Batch
from ktfast.training.loop import StepOutput
from ktfast.voc.annotations import Objects
from ktfast.voc.boxes import Boxes, corrected, corrections, numbered, overlaps
from ktfast.voc.feed import ViewFeed
from ktfast.voc.heads import FixedNorms
from ktfast.voc.proposals import Proposals
from ktfast.voc.views import Rescaled

FOREGROUND, BACKGROUND = 0.5, 0.1
"""A region that overlaps an object by at least FOREGROUND gets the object's class. A region whose
best overlap lies in [BACKGROUND, FOREGROUND) is background. Other regions are not used."""
REGION_SIDE = 224
"""With several scales, each region is classified at the scale where its area is nearest to
224 x 224 pixels."""
MIN_SCORE = 0.001
"""Detections with a lower score are dropped."""
NMS_OVERLAP = 0.3
"""If two detections of a class overlap by more, only the one with the higher score is kept."""
MAX_DETECTIONS = 100
"""Detections kept per photograph."""
MATCH_OVERLAP = 0.5
"""A detection is right if it overlaps an object by at least this much (intersection over union)."""


@dataclass(frozen=True, eq=False)
class Regions:
    """Regions of one photograph that a training step uses.

    Attributes
    ----------
    boxes : array, float32 [r, 4]
        Edges in pixels of the photograph.
    labels : array, int64 [r]
        0 for background, otherwise 1 + the class of the object.
    objects : array, float32 [r, 4]
        Box of the object that each region shows. For background: the region itself.
    """

    boxes: Boxes
    labels: npt.NDArray[np.int64]
    objects: Boxes


@dataclass(frozen=True, eq=False)
class Detections:
    """Objects found in one photograph.

    Attributes
    ----------
    boxes : array, float32 [m, 4]
        Edges left, top, right, bottom in pixels.
    labels : array, int64 [m]
        Class of each detection.
    scores : array, float32 [m]
        Probability of the class.
    """

    boxes: Boxes
    labels: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]


class DetectionTask:
    """Training task of Fast R-CNN.

    The loss is the cross-entropy of every region's class, plus a smooth L1 distance between
    predicted and true box corrections for regions that show an object.

    Parameters
    ----------
    model : FixedNorms
        Network to train.
    view : Rescaled
        The view that the feed delivers; the task asks it where regions lie in the view.
    proposals : Proposals
        Regions of every photograph. The task adds the true boxes of the objects to them.
    regions : int
        Regions drawn from each photograph.
    foreground : float
        Largest fraction of the drawn regions that show an object.
    normalization : Normalizer
        Normalisation of the images, see `ktfast.images.augment.normalize_images`.
    """

    def __init__(
        self,
        model: FixedNorms,
        view: Rescaled,
        proposals: Proposals,
        *,
        regions: int = 64,
        foreground: float = 0.25,
        normalization: Normalizer = "imagenet",
    ) -> None:
        self.model = model
        self.view = view
        self.proposals = proposals
        self.regions = regions
        self.foreground = foreground
        self.normalization = normalization

    def step(self, batch: Batch, epoch: int) -> StepOutput:
        """Loss of a batch of photographs, and the fraction of regions classified right."""
        rows = batch.rows.tolist()
        drawn = [self.draw(row, epoch) for row in rows]
        views = [self.view.geometry(row, epoch) for row in rows]
        boxes = [view.into_view(r.boxes) for view, r in zip(views, drawn, strict=True)]
        objects = [view.into_view(r.objects) for view, r in zip(views, drawn, strict=True)]
        images = normalize_padded(batch.images, batch.sizes, self.normalization)

        def moved(array: npt.NDArray[np.generic]) -> Tensor:
            return torch.from_numpy(array).to(images.device, non_blocking=True)

        labels = moved(np.concatenate([r.labels for r in drawn]))
        targets = moved(
            np.concatenate(list(starmap(corrections, zip(boxes, objects, strict=True))))
        )
        # Every photograph has the same weight, however many regions were drawn from it.
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
        """Draw the regions of a photograph for one epoch.

        A photograph without objects (difficult ones do not count) gives background only.
        """
        objects = self.view.source.objects[row]
        plain = ~objects.difficult
        truth, classes = objects.boxes[plain], objects.labels[plain]
        boxes = np.concatenate([truth, self.proposals.boxes(row)])
        order = self._order(row, epoch, len(boxes))
        if not len(truth):
            order = order[: self.regions]
            return Regions(boxes[order], np.zeros(len(order), np.int64), boxes[order])
        shared = overlaps(boxes, truth)
        nearest, share = shared.argmax(1), shared.max(1)
        share_of = share[order]
        most = max(1, round(self.foreground * self.regions))
        shown = order[share_of >= FOREGROUND][:most]
        rest = order[(share_of < FOREGROUND) & (share_of >= BACKGROUND)]
        chosen = np.concatenate([shown, rest[: self.regions - len(shown)]])
        labels = np.where(share[chosen] >= FOREGROUND, 1 + classes[nearest[chosen]], 0)
        own = np.where(labels[:, None] > 0, truth[nearest[chosen]], boxes[chosen])
        return Regions(boxes[chosen], labels.astype(np.int64), own)

    def _order(self, row: int, epoch: int, n: int) -> npt.NDArray[np.int64]:
        """A random order of n regions that depends only on (seed, epoch, sample id)."""
        sample = int(self.view.source.sample_ids[row])
        key = np.array([self.view.seed, sample], np.uint64)
        stream = np.random.Philox(key=key, counter=[0, 0, 0, epoch])
        return np.argsort(np.asarray(stream.random_raw(n)), kind="stable").astype(np.int64)


@torch.inference_mode()
def detect(
    model: FixedNorms,
    feeds: Sequence[ViewFeed],
    proposals: Proposals,
    *,
    normalization: Normalizer = "imagenet",
) -> list[Detections]:
    """Detect objects in every photograph of a set.

    Parameters
    ----------
    model : FixedNorms
        Network to test. The function puts it into evaluation mode and leaves it there.
    feeds : sequence of ViewFeed
        One feed per scale. Each delivers `Rescaled` views in order, one photograph per batch, not
        mirrored.
    proposals : Proposals
        Regions of every photograph.
    normalization : Normalizer
        Normalisation of the images; the same as in training.

    Returns
    -------
    list of Detections
        At most 100 detections for each photograph, in descending order of their scores.

    Raises
    ------
    InputError
        A feed delivers other views, several photographs per batch, or several scales.
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
        geometries = [view.geometry(row, 0) for view in scaled]
        area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
        areas = np.stack([area * view.scale_y * view.scale_x for view in geometries])
        level = np.abs(areas - REGION_SIDE**2).argmin(0)
        parts = []
        for i, (batch, view) in enumerate(zip(batches, geometries, strict=True)):
            mine = boxes[level == i]
            if len(mine):
                parts.append((mine, *_answers(model, batch, view.into_view(mine), normalization)))
        height, width = scaled[0].source.shape(row)
        found.append(_kept(parts, height, width))
    return found


def _answers(
    model: FixedNorms, batch: Batch, boxes: Boxes, normalization: Normalizer
) -> tuple[Tensor, Tensor]:
    """Probabilities [R, C + 1] and corrections [R, C + 1, 4] of the regions of a view."""
    device = next(model.parameters()).device
    images = normalize_images(batch.images.to(device), normalization)
    logits, moves = model(images, torch.from_numpy(numbered([boxes])).to(device))
    return logits.float().softmax(1), moves.float().view(len(boxes), -1, 4)


def _kept(parts: Sequence[tuple[Boxes, Tensor, Tensor]], height: int, width: int) -> Detections:
    """Correct the regions of a photograph, then drop low scores and repeated objects."""
    from torchvision.ops import batched_nms  # slow to import

    scores = torch.cat([part[1] for part in parts])[:, 1:]
    moves = torch.cat([part[2] for part in parts])[:, 1:]
    regions = torch.from_numpy(np.concatenate([part[0] for part in parts])).to(scores.device)
    boxes = corrected(regions[:, None], moves)
    limits = boxes.new_tensor([width, height, width, height])
    boxes = torch.minimum(boxes.clamp_min(0), limits)
    sure = scores >= MIN_SCORE
    boxes, labels, scores = boxes[sure], sure.nonzero()[:, 1], scores[sure]
    kept = batched_nms(boxes, scores, labels, NMS_OVERLAP)[:MAX_DETECTIONS]
    return Detections(
        boxes=boxes[kept].cpu().numpy(),
        labels=labels[kept].cpu().numpy(),
        scores=scores[kept].cpu().numpy(),
    )


def detection_precisions(
    found: Sequence[Detections], truth: Sequence[Objects], n_classes: int
) -> AveragePrecisions:
    """Average precision of every class, by VOC's rules (Everingham et al. 2010).

    Of several detections of one object, the detection with the highest score is right and the
    others are wrong. Detections of a difficult object do not count.

    Parameters
    ----------
    found : sequence of Detections
        Detections in each image.
    truth : sequence of Objects
        Annotated objects of each image, in the same order.
    n_classes : int
        Number of classes; labels lie in 0 .. n_classes - 1.

    Returns
    -------
    AveragePrecisions
        One value per class.

    Raises
    ------
    InputError
        `found` and `truth` have different lengths.
    """
    if len(found) != len(truth):
        raise InputError(f"there are detections of {len(found)} images, objects of {len(truth)}")
    eleven, area = np.full((2, n_classes), np.nan)
    for k in range(n_classes):
        n_objects = sum(int(((o.labels == k) & ~o.difficult).sum()) for o in truth)
        if n_objects:
            hits = _hits(found, truth, k)
            eleven[k], area[k] = eleven_points(hits, n_objects), curve_area(hits, n_objects)
    return AveragePrecisions(eleven, area)


def _hits(
    found: Sequence[Detections], truth: Sequence[Objects], label: int
) -> npt.NDArray[np.bool_]:
    """Whether each counted detection of a class is right, in descending order of scores."""
    scores: list[npt.NDArray[np.float32]] = []
    outcomes: list[npt.NDArray[np.int8]] = []
    for detections, objects in zip(found, truth, strict=True):
        mine = detections.labels == label
        own = np.argsort(-detections.scores[mine], kind="stable")
        scores.append(detections.scores[mine][own])
        outcomes.append(_outcomes(detections.boxes[mine][own], objects, label))
    order = np.argsort(-np.concatenate(scores), kind="stable")
    outcome = np.concatenate(outcomes)[order]
    hits: npt.NDArray[np.bool_] = outcome[outcome >= 0] == 1
    return hits


def _outcomes(boxes: Boxes, objects: Objects, label: int) -> npt.NDArray[np.int8]:
    """Outcome of each detection of one image, in descending order of scores, int8 [m].

    1: right. 0: wrong. -1: does not count.
    """
    outcome = np.zeros(len(boxes), np.int8)
    there = np.flatnonzero(objects.labels == label)
    if not len(there):
        return outcome
    shared = overlaps(boxes, objects.boxes[there])
    taken = np.zeros(len(there), np.bool_)
    for i, row in enumerate(shared):
        best = int(row.argmax())
        if row[best] < MATCH_OVERLAP:
            continue
        if objects.difficult[there[best]]:
            outcome[i] = -1
        elif not taken[best]:
            taken[best] = True
            outcome[i] = 1
    return outcome
