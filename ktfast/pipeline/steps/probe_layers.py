"""Probe the layers of one model of a run on the run's labelled images."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ktfast.config import Config
from ktfast.errors import ConfigError, DataError
from ktfast.evaluation.knn import knn_accuracy, knn_held_out
from ktfast.evaluation.linear import LinearProbeResult, linear_probe
from ktfast.evaluation.low_label import low_label_probe
from ktfast.evaluation.pooling import conv_features, pooled_size
from ktfast.evaluation.results import Layers, LowLabelRow, ProbeRow
from ktfast.images.augment import Normalization, center_crop, normalize_images
from ktfast.models import TargetNetwork
from ktfast.pipeline.environment import resolve_device
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.steps.image_sets import open_feed, open_set
from ktfast.pipeline.steps.networks import WEIGHTS, load_all, target_network

logger = logging.getLogger(__name__)

LEAST_BUDGET = 4 << 30
"""Bytes that probed features may take even if data.memory_budget_gb is smaller."""
DTYPE = "float16"


def check_probe_memory(run: RunFolder) -> None:
    """Raise `ConfigError` if the features of a single layer do not fit into memory."""
    with torch.device("meta"):
        model = target_network(run.config.transfer, 0)
    for layer in probed_layers(run.config, model):
        needed = _layer_bytes(run, model, layer)
        if needed > _budget(run):
            raise ConfigError(
                f"the features of layer {layer} that are probed take {needed / 1e9:.1f} GB, more "
                f"than data.memory_budget_gb {run.config.data.memory_budget_gb:g}; raise it, or "
                "give fewer images with data.train"
            )


@dataclass(frozen=True)
class ProbedModel:
    """The probes of one model.

    Attributes
    ----------
    row : ProbeRow
        Accuracies by layer.
    predictions : dict of str to array, int32 [n]
        The true class of each test image under the name "labels", and the predicted classes under
        the names "linear_LAYER" and "knn_LAYER".
    """

    row: ProbeRow
    predictions: dict[str, npt.NDArray[np.int32]]


def probe_model(run: RunFolder, name: str) -> ProbedModel:
    """Probe the configured layers of one model: linear, nearest neighbours, few labels.

    Parameters
    ----------
    run : RunFolder
        The run. Images and labels come from its roles "train" and "test".
    name : str
        Name of the model: "transfer" or a baseline.

    Returns
    -------
    ProbedModel
        Accuracies by layer, and the predicted class of each test image.
    """
    config = run.config.evaluate
    model, normalization = load_model(run, name)
    predictions: dict[str, npt.NDArray[np.int32]] = {}
    n_classes = len(open_set(run, "train").classes)
    linear: dict[str, LinearProbeResult] = {}
    knn: Layers = {}
    headline: list[float] = []
    measure, _, settled_layer = config.headline.partition(":")
    held_out: Layers = {}
    few: list[tuple[float, dict[str, LinearProbeResult]]]
    few = [(fraction, {}) for fraction in config.label_fractions]
    for layers in _passes(run, model):
        train_features, train_labels = _features(run, "train", model, layers, normalization)
        test_features, test_labels = _features(run, "test", model, layers, normalization)
        for layer in layers:
            x, test_x = train_features.pop(layer), test_features.pop(layer)
            data = (x, train_labels, test_x, test_labels)
            common: dict[str, Any] = {
                "n_classes": n_classes,
                "epochs": config.probe_epochs,
                "seed": run.config.seed,
                "device": _device(run, x.nbytes + test_x.nbytes),
            }
            linear[layer] = linear_probe(*data, **common)
            neighbours = knn_accuracy(*data, k=config.neighbors)
            knn[layer] = neighbours.mean_per_class
            for kind, found in (("linear", linear[layer]), ("knn", neighbours)):
                predictions[f"{kind}_{layer}"] = found.predictions.astype(np.int32)
            held_out[layer] = knn_held_out(
                x, train_labels, k=config.neighbors, seed=run.config.seed
            )
            if layer == settled_layer:
                chosen = neighbours if measure == "knn" else linear[layer]
                headline = list(chosen.per_class)
            for fraction, probes in few:
                probes[layer] = low_label_probe(*data, fraction=fraction, **common)
            accuracies = 100 * linear[layer].mean_per_class, 100 * knn[layer]
            logger.info("evaluate: %s %s linear %.1f %%, k-NN %.1f %%", name, layer, *accuracies)
    row = ProbeRow(
        linear={layer: probe.mean_per_class for layer, probe in linear.items()},
        linear_top1={layer: probe.top1 for layer, probe in linear.items()},
        knn=knn,
        low_label=[_low_label_row(fraction, probes) for fraction, probes in few],
        protocol=_last(linear).protocol,
        headline=headline,
        linear_held_out={
            layer: probe.held_out for layer, probe in linear.items() if probe.held_out is not None
        },
        knn_held_out=held_out,
    )
    return ProbedModel(row, {"labels": test_labels.astype(np.int32), **predictions})


def _low_label_row(fraction: float, probes: dict[str, LinearProbeResult]) -> LowLabelRow:
    last = _last(probes)
    linear = {layer: probe.mean_per_class for layer, probe in probes.items()}
    return LowLabelRow(fraction, linear, last.n_train, last.protocol)


def _last(probes: dict[str, LinearProbeResult]) -> LinearProbeResult:
    """The probe of the last layer; the probes of all layers have the same protocol."""
    return list(probes.values())[-1]


def _features(
    run: RunFolder,
    role: str,
    model: TargetNetwork,
    layers: Sequence[str],
    normalization: Normalization,
) -> tuple[dict[str, npt.NDArray[Any]], npt.NDArray[np.int64]]:
    """Pooled maps of a role's images by layer, and the labels of the images."""
    images, labels, transfer = open_set(run, role), labels_of(run, role), run.config.transfer

    def prepare(batch: Tensor) -> Tensor:
        return normalize_images(center_crop(batch, transfer.crop), normalization)

    with open_feed(run, images, size=transfer.image_size, batch_size=256, shuffle=False) as feed:
        features = conv_features(
            model, feed, layers, prepare=prepare, dtype=DTYPE, memory_budget=_budget(run)
        )
    return features, labels


def labels_of(run: RunFolder, role: str) -> npt.NDArray[np.int64]:
    """Labels of a role's images, as indices into the classes of the role "train".

    An image without a class raises `DataError`, which names the image.
    """
    images, classes = open_set(run, role), open_set(run, "train").classes
    loose = np.flatnonzero(images.labels < 0)
    if len(loose):
        raise DataError(
            f"data.{role}: {len(loose)} images lie in no class's folder, the first is "
            f"{images.paths[loose[0]]}; move every image into a class's folder"
        )
    translate = np.array([classes.index(key) for key in images.classes])
    translated: npt.NDArray[np.int64] = translate[images.labels]
    return translated


def load_model(run: RunFolder, name: str) -> tuple[TargetNetwork, Normalization]:
    """Load a model without its classifier; also return the normalisation of its images."""
    torch.manual_seed(run.config.seed)
    model = target_network(run.config.transfer, 0)
    if name != "random":
        stage = name if name == "transfer" else f"baseline_{name}"
        load_all(model, run.artifact(stage, WEIGHTS))
    device = resolve_device(run.config.device)
    return model.to(device).eval(), "image" if name == "pretext" else "imagenet"


def probed_layers(config: Config, model: TargetNetwork) -> tuple[str, ...]:
    """The layers to probe: `evaluate.layers`, or the stages of the network."""
    return config.evaluate.layers or model.stages


def _passes(run: RunFolder, model: TargetNetwork) -> Iterator[tuple[str, ...]]:
    """Yield groups of layers whose features fit into memory together."""
    group: tuple[str, ...] = ()
    taken = 0
    for layer in probed_layers(run.config, model):
        needed = _layer_bytes(run, model, layer)
        if group and taken + needed > _budget(run):
            yield group
            group, taken = (), 0
        group, taken = (*group, layer), taken + needed
    yield group


def _layer_bytes(run: RunFolder, model: TargetNetwork, layer: str) -> int:
    """Bytes of a layer's features of all training and test images."""
    channels = model.channels[layer]
    side = pooled_size(channels, model.side(run.config.transfer.crop, layer))
    n = sum(open_set(run, role).n for role in ("train", "test"))
    return n * channels * side**2 * np.dtype(DTYPE).itemsize


def _budget(run: RunFolder) -> int:
    return max(LEAST_BUDGET, int(run.config.data.memory_budget_gb * 1e9))


def _device(run: RunFolder, needed: int) -> str:
    """Device of the probe: the run's GPU if the features and a copy of them fit, else the CPU."""
    device = resolve_device(run.config.device)
    if device.startswith("cuda") and 2 * needed > torch.cuda.mem_get_info(device)[0]:
        return "cpu"
    return device
