"""Fine-tune one model of a run on PASCAL VOC and test it, by one of three protocols."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ktfast.config import Config, TrainingConfig, VocDetectionConfig, VocSection
from ktfast.config.protocols import OWN_NETWORKS
from ktfast.errors import ConfigError
from ktfast.evaluation.average_precision import AveragePrecisions, classification_precisions
from ktfast.evaluation.results import ProtocolDetails
from ktfast.evaluation.voc_results import VocRow
from ktfast.images.file_records import FileHashes
from ktfast.models import Student, TargetNetwork, Trunk, load_weights
from ktfast.models.data_init import fit_to_data, rescale_to_data
from ktfast.models.trunk import LayerStack
from ktfast.pipeline.environment import resolve_device
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.steps.probed_models import ProbedNetwork, probed_network
from ktfast.pipeline.steps.train_networks import train_task
from ktfast.training.loop import Task, TrainingSummary
from ktfast.voc.classification import MultiLabelTask, image_scores
from ktfast.voc.data import VocSet
from ktfast.voc.detection import DetectionTask, detect, detection_precisions
from ktfast.voc.feed import ViewFeed
from ktfast.voc.heads import FCN, FastRCNN
from ktfast.voc.proposals import Proposals
from ktfast.voc.sbd import VocWithSbd
from ktfast.voc.segmentation import SegmentationTask, segment
from ktfast.voc.student_heads import StudentFCN, StudentRCNN, map_stride
from ktfast.voc.views import AreaCrops, Masked, Rescaled, View

INIT_IMAGES = 160
"""Photographs that new layers are fitted to."""


@dataclass(frozen=True)
class Sets:
    """Training and test photographs of a protocol."""

    train: VocSet
    test: VocSet


def open_sets(config: Config, protocol: str, hashes: FileHashes | None = None) -> Sets:
    """Read a protocol's lists and annotations; raises `DataError` for a missing or damaged file."""
    section: VocSection = getattr(config.voc, protocol)
    assert section.folder is not None
    kind: Literal["Main", "Segmentation"] = "Segmentation" if protocol == "segmentation" else "Main"
    classes, sbd = config.voc.classes, getattr(section, "sbd", None)
    test = VocSet(section.folder, section.test, kind, classes, hashes)
    if sbd is None:
        train = VocSet(section.folder, section.train, kind, classes, hashes)
    else:
        train = VocWithSbd(
            section.folder, section.train, classes, hashes, sbd=sbd, without=test.ids
        )
    train.pixel_limit = test.pixel_limit = config.data.max_pixels
    return Sets(train, test)


def open_proposals(config: VocDetectionConfig, sets: Sets) -> tuple[Proposals, Proposals]:
    """Proposals of the training and of the test photographs."""
    pairs = ((config.train_proposals, sets.train), (config.test_proposals, sets.test))
    train, test = (Proposals.read(p, s) if p else Proposals(s) for p, s in pairs)
    return train, test


def classify(run: RunFolder, sets: Sets, name: str, folder: Path) -> VocRow:
    """Fine-tune a model for classification and test it (after Krähenbühl et al. 2016).

    Parameters
    ----------
    run : RunFolder
        The run.
    sets : Sets
        Photographs.
    name : str
        Name of the model, one of `voc.models`.
    folder : Path
        Folder of the checkpoints. An interrupted training continues from them.

    Returns
    -------
    VocRow
        Average precisions.
    """
    config = run.config.voc.classification
    network = probed_network(run, name)
    model, normalization = _network(run, network, len(sets.train.classes)), network.normalize
    crop, seed = network.crop, run.config.seed
    view = AreaCrops(sets.train, crop=crop, area=config.area, seed=seed, mirror=True)
    task = MultiLabelTask(model, sets.train.presence(), normalization=normalization)
    _initialize(run, task, model.new_layers(), view, name, batch_size=16)
    summary = _train(run, task, view, config.training, folder, f"voc_classification_{name}")
    # Another seed gives other crops, in case training and test photographs are the same.
    view = AreaCrops(sets.test, crop=crop, area=config.area, seed=seed + 1, mirror=True)
    with _feed(run, view, batch_size=64) as feed:
        scores = image_scores(model, feed, crops=config.test_crops, normalization=normalization)
    precisions = classification_precisions(scores, sets.test.presence())
    protocol = {"test_crops": config.test_crops, "area": list(config.area)}
    return _precisions(precisions, sets, summary, protocol)


def detect_objects(run: RunFolder, sets: Sets, name: str, folder: Path) -> VocRow:
    """Fine-tune a model for detection (Fast R-CNN) and test it; parameters as in `classify`."""
    config, seed = run.config.voc.detection, run.config.seed
    n_classes = len(sets.train.classes)
    network = probed_network(run, name)
    model, normalization = _detector(_network(run, network, 1), n_classes), network.normalize
    proposals, test_proposals = open_proposals(config, sets)
    view = Rescaled(
        sets.train, short_sides=config.short_sides, longest=config.longest, seed=seed, mirror=True
    )
    task = DetectionTask(
        model,
        view,
        proposals,
        regions=config.regions,
        foreground=config.foreground,
        normalization=normalization,
    )
    _initialize(run, task, model.hidden, view, name)
    summary = _train(run, task, view, config.training, folder, f"voc_detection_{name}")
    rows = {}
    for test, (short_sides, longest) in config.test_scales.items():
        views = [
            Rescaled(sets.test, short_sides=(side,), longest=longest, seed=seed, mirror=False)
            for side in short_sides
        ]
        with ExitStack() as opened:
            feeds = []
            for view in views:
                feeds.append(_feed(run, view))
                opened.enter_context(feeds[-1])
            found = detect(model, feeds, test_proposals, normalization=normalization)
        precisions = detection_precisions(found, sets.test.objects, n_classes)
        protocol = {
            "short_sides": list(short_sides),
            "proposals": "published" if config.test_proposals else "windows",
        }
        if config.tests != ("training",):
            protocol |= {"test": test, "training_short_sides": list(config.short_sides)}
        rows[test] = _precisions(precisions, sets, summary, protocol)
    first = rows.pop(config.tests[0])
    return replace(first, tests=rows)


def segment_images(run: RunFolder, sets: Sets, name: str, folder: Path) -> VocRow:
    """Fine-tune a model for segmentation (FCN-32s) and test it; parameters as in `classify`."""
    config = run.config.voc.segmentation
    classes = ("background", *sets.train.classes)
    network = probed_network(run, name)
    model, normalization = _segmenter(_network(run, network, 1), len(classes)), network.normalize
    view = Masked(sets.train, seed=run.config.seed, mirror=config.mirror)
    task = SegmentationTask(model, normalization=normalization)
    _initialize(run, task, model.hidden, view, name)
    summary = _train(run, task, view, config.training, folder, f"voc_segmentation_{name}")
    with _feed(run, Masked(sets.test, seed=0, mirror=False)) as feed:
        confusion = segment(model, feed, len(classes), normalization=normalization)
    return VocRow(
        score=defined(confusion.mean()),
        classes=by_class(classes, confusion.intersection_over_union()),
        more={"pixel_accuracy": defined(confusion.pixel_accuracy())},
        steps=summary.steps,
        protocol={"scales": 1},
    )


PROTOCOLS: dict[str, Callable[[RunFolder, Sets, str, Path], VocRow]] = {
    "classification": classify,
    "detection": detect_objects,
    "segmentation": segment_images,
}
MEASURES = {
    "classification": "mean average precision (11 points)",
    "detection": "mean average precision (11 points, overlap 0.5)",
    "segmentation": "mean intersection over union",
    "svm": "mean average precision (11 points)",
}


def check_protocol(run: RunFolder, protocol: str) -> None:
    """Check that the architecture of each network of `voc.models` allows a protocol.

    Parameters
    ----------
    run : RunFolder
        The run.
    protocol : str
        Name of the protocol.

    Raises
    ------
    ConfigError
        A name is unknown, or a network does not allow the protocol. The message says why.
    """
    config = run.config
    for name in config.voc.models:
        if name not in (*OWN_NETWORKS, *config.evaluate.models):
            raise ConfigError(
                f"voc.models: {name!r} is unknown; give {', '.join(OWN_NETWORKS)} or a name of "
                "evaluate.models"
            )
        _check_shape(run, protocol, name)


def _check_shape(run: RunFolder, protocol: str, name: str) -> None:
    """Raise `ConfigError` if the architecture of a network does not allow a protocol."""
    if protocol == "svm":
        return
    shape = probed_network(run, name).shape
    batch_norm = any(isinstance(module, nn.BatchNorm2d) for module in shape.modules())
    if run.config.voc.data_init == "all" and (isinstance(shape, Student) or batch_norm):
        raise ConfigError(
            "voc.data_init is all, which scales the convolutions of alexnet and vgg16 without "
            f"batch-norm, but the network {name!r} of voc.models is another network; give "
            "voc.data_init true or false"
        )
    if protocol == "classification" or not isinstance(shape, Student):
        return
    try:
        map_stride(shape)
    except ConfigError as error:
        raise ConfigError(
            f"voc.{protocol} needs a network that takes whole photographs of any size, but {error};"
            f" leave voc.{protocol}.folder out, or give a convolutional network instead of {name!r}"
        ) from error


def _detector(network: TargetNetwork, n_classes: int) -> FastRCNN | StudentRCNN:
    """Build a detector on the target."""
    if isinstance(network, Student):
        return StudentRCNN(network, n_classes)
    assert isinstance(network, Trunk)
    return FastRCNN(network, n_classes)


def _segmenter(network: TargetNetwork, n_classes: int) -> FCN | StudentFCN:
    """Build a network for segmentation on the target."""
    if isinstance(network, Student):
        return StudentFCN(network, n_classes)
    assert isinstance(network, Trunk)
    return FCN(network, n_classes)


def _network(run: RunFolder, network: ProbedNetwork, n_classes: int) -> TargetNetwork:
    """Build a network with its weights and a random classifier, on the CPU."""
    state = network.build().state_dict()
    torch.manual_seed(run.config.seed)
    model = network.fresh(n_classes)
    load_weights(model, state)
    return model


def _initialize(
    run: RunFolder, task: Task, new: nn.Sequential, view: View, name: str, *, batch_size: int = 1
) -> None:
    """Fit the new hidden layers, or all layers, to some photographs if `voc.data_init` is set."""
    chosen = run.config.voc.data_init
    if not chosen:
        return
    layers = [m for m in new if isinstance(m, nn.Linear | nn.Conv2d)]
    if new and new[-1] is layers[-1]:
        layers.pop()  # the output layer keeps its small initial weights
    convolutions: list[nn.Module] = []
    if chosen == "all":
        features = task.model.get_submodule("features")
        assert isinstance(features, LayerStack)  # `check_protocol` has refused other networks
        convolutions += features.convolutions().values()
    if not layers and not convolutions:
        return
    task.model.to(resolve_device(run.config.device))
    with _feed(run, view, batch_size=batch_size, shuffle=True) as feed:

        def forward() -> None:
            for batch in islice(feed.epoch(0), INIT_IMAGES // batch_size):
                task.step(batch, 0)

        scale = fit_to_data if name == "random" else rescale_to_data
        scale(task.model, convolutions, forward)
        fit_to_data(task.model, layers, forward)


def _train(
    run: RunFolder, task: Task, view: View, training: TrainingConfig, folder: Path, name: str
) -> TrainingSummary:
    with _feed(run, view, batch_size=training.batch_size, shuffle=True) as feed:
        return train_task(run, task, feed, training, folder, name=name)


def _feed(run: RunFolder, view: View, *, batch_size: int = 1, shuffle: bool = False) -> ViewFeed:
    return ViewFeed(
        view,
        batch_size=batch_size,
        shuffle=shuffle,
        seed=run.config.seed,
        device=resolve_device(run.config.device),
        n_threads=run.config.threads or None,
    )


def _precisions(
    precisions: AveragePrecisions, sets: Sets, summary: TrainingSummary, protocol: ProtocolDetails
) -> VocRow:
    return VocRow(
        score=defined(precisions.mean),
        classes=by_class(sets.train.classes, precisions.eleven_points),
        more={"mean_area": defined(precisions.mean_area)},
        steps=summary.steps,
        protocol=protocol,
        areas=by_class(sets.train.classes, precisions.area),
    )


def by_class(names: Sequence[str], values: npt.NDArray[np.float64]) -> dict[str, float | None]:
    """Give the value of each class by the name of the class; None if it is not defined."""
    return {name: defined(value) for name, value in zip(names, values.tolist(), strict=True)}


def defined(value: float) -> float | None:
    """Give a value, or None if it is infinite or not a number."""
    return value if np.isfinite(value) else None
