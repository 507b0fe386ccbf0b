"""Probe the conv layers of one model of a run on its labelled images."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ktfast.errors import ConfigError
from ktfast.evaluation.knn import knn_accuracy
from ktfast.evaluation.linear import linear_probe
from ktfast.evaluation.low_label import low_label_probe
from ktfast.evaluation.pooling import conv_features, pooled_size
from ktfast.images.augment import Normalization, center_crop, normalize_images
from ktfast.models import Trunk
from ktfast.pipeline.environment import resolve_device
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.steps.image_sets import open_feed, open_set
from ktfast.pipeline.steps.networks import WEIGHTS, load_all, target_network

logger = logging.getLogger(__name__)

# Bytes of probed features that are kept in memory even if data.memory_budget_gb is less.
LEAST_BUDGET = 4 << 30
DTYPE = "float16"


def check_probe_memory(run: RunFolder) -> None:
    """Refuse layers whose features do not fit into memory one at a time."""
    with torch.device("meta"):
        model = target_network(run.config.transfer, 0)
    for layer in _layers(run, model):
        needed = _layer_bytes(run, model, layer)
        if needed > _budget(run):
            raise ConfigError(
                f"the features of layer {layer} that are probed take {needed / 1e9:.1f} GB, more "
                f"than data.memory_budget_gb {run.config.data.memory_budget_gb:g}; raise it, or "
                "give fewer images with data.train"
            )


def probe_model(run: RunFolder, name: str) -> dict[str, Any]:
    """Probe every asked layer of one model; accuracies in [0, 1] by layer."""
    config = run.config.evaluate
    model, normalization = load_model(run, name)
    classes = open_set(run, "train").classes
    row: dict[str, Any] = {"linear": {}, "linear_top1": {}, "knn": {}}
    row["low_label"] = [{"fraction": part, "linear": {}} for part in config.label_fractions]
    for layers in _passes(run, model):
        train_features, train_labels = _features(run, "train", model, layers, normalization)
        test_features, test_labels = _features(run, "test", model, layers, normalization)
        for layer in layers:
            x, test_x = train_features.pop(layer), test_features.pop(layer)
            data = (x, train_labels, test_x, test_labels)
            common: dict[str, Any] = {
                "n_classes": len(classes),
                "epochs": config.probe_epochs,
                "seed": run.config.seed,
                "device": _device(run, x.nbytes + test_x.nbytes),
            }
            probe = linear_probe(*data, **common)
            row["linear"][layer] = probe.mean_per_class
            row["linear_top1"][layer] = probe.top1
            row["knn"][layer] = knn_accuracy(*data, k=config.neighbors).mean_per_class
            row["protocol"] = probe.protocol
            for regime in row["low_label"]:
                few = low_label_probe(*data, fraction=regime["fraction"], **common)
                regime["linear"][layer] = few.mean_per_class
                regime["images"], regime["protocol"] = few.n_train, few.protocol
            logger.info(
                "evaluate: %s %s linear %.1f %%, k-NN %.1f %%",
                name,
                layer,
                100 * probe.mean_per_class,
                100 * row["knn"][layer],
            )
    return row


def _features(
    run: RunFolder,
    role: str,
    model: Trunk,
    layers: Sequence[str],
    normalization: Normalization,
) -> tuple[dict[str, npt.NDArray[Any]], npt.NDArray[np.int64]]:
    """Pooled maps of a role's images by layer, and their labels as classes of "train"."""
    images, transfer = open_set(run, role), run.config.transfer

    def prepare(batch: Tensor) -> Tensor:
        return normalize_images(center_crop(batch, transfer.crop), normalization)

    with open_feed(run, images, size=transfer.image_size, batch_size=256, shuffle=False) as feed:
        features = conv_features(
            model, feed, layers, prepare=prepare, dtype=DTYPE, memory_budget=_budget(run)
        )
    return features, labels_of(run, role)


def labels_of(run: RunFolder, role: str) -> npt.NDArray[np.int64]:
    """Labels of a role's images, as classes of "train"."""
    images, classes = open_set(run, role), open_set(run, "train").classes
    translate = np.array([classes.index(key) for key in images.classes])
    translated: npt.NDArray[np.int64] = translate[images.labels]
    return translated


def load_model(run: RunFolder, name: str) -> tuple[Trunk, Normalization]:
    """A model with its weights and no classifier, and how the images it saw were normalised."""
    torch.manual_seed(run.config.seed)
    model = target_network(run.config.transfer, 0)
    if name != "random":
        stage = name if name == "transfer" else f"baseline_{name}"
        load_all(model, run.stage(stage) / WEIGHTS)
    device = resolve_device(run.config.device)
    return model.to(device).eval(), "image" if name == "pretext" else "imagenet"


def _layers(run: RunFolder, model: Trunk) -> tuple[str, ...]:
    """The layers to probe: those asked for, or every conv layer."""
    conv = tuple(key for key in model.layers if key.startswith("conv"))
    return run.config.evaluate.layers or conv


def _passes(run: RunFolder, model: Trunk) -> Iterator[tuple[str, ...]]:
    """The layers in groups whose features fit into memory together."""
    group: tuple[str, ...] = ()
    taken = 0
    for layer in _layers(run, model):
        needed = _layer_bytes(run, model, layer)
        if group and taken + needed > _budget(run):
            yield group
            group, taken = (), 0
        group, taken = (*group, layer), taken + needed
    yield group


def _layer_bytes(run: RunFolder, model: Trunk, layer: str) -> int:
    """Bytes that the features of a layer take, of all images that are probed."""
    channels = model.channels[layer]
    side = pooled_size(channels, model.features.side(run.config.transfer.crop, layer))
    n = sum(open_set(run, role).n for role in ("train", "test"))
    return n * channels * side**2 * np.dtype(DTYPE).itemsize


def _budget(run: RunFolder) -> int:
    return max(LEAST_BUDGET, int(run.config.data.memory_budget_gb * 1e9))


def _device(run: RunFolder, needed: int) -> str:
    """Where to fit the probe: the run's GPU if the features fit beside a working copy."""
    device = resolve_device(run.config.device)
    if device.startswith("cuda") and 2 * needed > torch.cuda.mem_get_info(device)[0]:
        return "cpu"
    return device
