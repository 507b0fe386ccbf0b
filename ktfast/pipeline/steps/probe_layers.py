"""Probe the layers of one network on labelled images: linear, nearest neighbours, few labels.

A probe that is known is not computed again. A layer, a share of the labels or a draw that is added
later costs its own probes only.
"""

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ktfast.config import Config
from ktfast.errors import ConfigError
from ktfast.evaluation.knn import knn_accuracy, knn_held_out
from ktfast.evaluation.linear import linear_probe
from ktfast.evaluation.low_label import Share, draw_seed, low_label_probe
from ktfast.evaluation.pooling import conv_features, pooled_size
from ktfast.evaluation.results import LowLabelRow, ProbeRow
from ktfast.images.augment import center_crop
from ktfast.models import TargetNetwork
from ktfast.pipeline.environment import resolve_device
from ktfast.pipeline.jobs import spread
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.steps.image_sets import open_feed, open_set
from ktfast.pipeline.steps.labelled_sets import LabelledSet, labelled_sets, labels_of
from ktfast.pipeline.steps.probed_models import ProbedNetwork, own_models, probed_network
from ktfast.pipeline.team import processes_here

logger = logging.getLogger(__name__)

LEAST_BUDGET = 4 << 30
"""Bytes that probed features may take even if data.memory_budget_gb is smaller."""
DTYPE = "float16"
_BY_LAYER = ("linear", "linear_top1", "knn", "linear_held_out", "knn_held_out")


def check_probe_memory(run: RunFolder, stages: Collection[str] = ()) -> None:
    """Raise `ConfigError` if the features of a single layer do not fit into memory.

    Parameters
    ----------
    run : RunFolder
        The run.
    stages : collection of str
        Stages that will be run before the probes.
    """
    names = (*own_models(run, stages)[:1], *run.config.evaluate.models)
    for images in labelled_sets(run.config):
        for network in (probed_network(run, name) for name in names):
            for layer in network.layers:
                needed = _layer_bytes(run, network, images, layer)
                if needed > probe_budget(run):
                    raise ConfigError(
                        f"the features of layer {layer} that are probed take {needed / 1e9:.1f} "
                        f"GB, more than data.memory_budget_gb "
                        f"{run.config.data.memory_budget_gb:g}; raise it, or give fewer images "
                        f"with {images.option_of(images.train, run.config)}"
                    )


@dataclass(frozen=True)
class ProbedModel:
    """The probes of one network.

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


def shares_of(config: Config) -> list[Share]:
    """List the shares of the labels with which networks are probed too."""
    fractions = [Share(fraction=fraction) for fraction in config.evaluate.label_fractions]
    return fractions + [Share(count=count) for count in config.evaluate.label_counts]


@dataclass(frozen=True)
class _Missing:
    """What is not known yet of a layer: its probes, and draws of shares of the labels."""

    probes: bool
    draws: list[tuple[Share, int]] = field(default_factory=list)


def missing_probes(config: Config, layers: Sequence[str], row: ProbeRow | None) -> dict[str, Any]:
    """Say what is not known yet of the layers of a network.

    Parameters
    ----------
    config : Config
        The options of the run.
    layers : sequence of str
        The layers to probe.
    row : ProbeRow or None
        What is known.

    Returns
    -------
    missing : dict
        What is missing, by layer. A layer of which everything is known is left out.
    """
    missing = {}
    for layer in layers:
        draws = [
            (share, draw)
            for share in shares_of(config)
            for draw in range(_known_draws(row, share, layer), config.evaluate.label_draws)
        ]
        probes = row is None or layer not in row.knn
        if probes or draws:
            missing[layer] = _Missing(probes, draws)
    return missing


def _known_draws(row: ProbeRow | None, share: Share, layer: str) -> int:
    found = None if row is None else row.with_share(share.fraction, share.count)
    return 0 if found is None else len(found.of_draws(layer))


def probe_model(
    run: RunFolder, network: ProbedNetwork, images: LabelledSet, known: ProbedModel | None = None
) -> ProbedModel:
    """Probe the layers of one network.

    Parameters
    ----------
    run : RunFolder
        The run.
    network : ProbedNetwork
        The network.
    images : LabelledSet
        Training and test images, with labels.
    known : ProbedModel, optional
        Probes of the same network on the same images, which are not computed again.

    Returns
    -------
    ProbedModel
        The known and the new probes.
    """
    row = None if known is None else known.row
    missing: dict[str, _Missing] = missing_probes(run.config, network.layers, row)
    found = known or ProbedModel(ProbeRow({}, {}, {}, [], {}), {})
    if not missing:
        return found
    layers, parts = tuple(missing), min(run.team.size, len(missing))
    shares = [layers[part::parts] for part in range(parts)]
    jobs = [(network.name, images, {k: missing[k] for k in share}) for share in shares]
    probed = spread(run, _probe, jobs)
    for number, layer in enumerate(layers):
        found = _with_layer(found, probed[number % parts], layer)
        if missing[layer].probes:
            accuracies = 100 * found.row.linear[layer], 100 * found.row.knn[layer]
            logger.info(
                "evaluate: %s %s linear %.1f %%, k-NN %.1f %%",
                images.file_of(network.name),
                layer,
                *accuracies,
            )
    return found


def _probe(
    run: RunFolder, name: str, images: LabelledSet, missing: dict[str, _Missing]
) -> ProbedModel:
    """Compute the missing probes of some layers of a network."""
    network = probed_network(run, name)
    found = ProbedModel(ProbeRow({}, {}, {}, [], {}), {})
    model = network.load(run)
    n_classes = len(open_set(run, images.train).classes)
    for layers in _passes(run, network, images, tuple(missing)):
        train_features, train_labels = _features(run, images, images.train, network, model, layers)
        test_features, test_labels = _features(run, images, images.test, network, model, layers)
        for layer in layers:
            x, test_x = train_features.pop(layer), test_features.pop(layer)
            data = (x, train_labels, test_x, test_labels)
            common: dict[str, Any] = {
                "n_classes": n_classes,
                "epochs": run.config.evaluate.probe_epochs,
                "device": device_of_probe(run, x.nbytes + test_x.nbytes),
            }
            if missing[layer].probes:
                found = with_probes(run, found, layer, data, common)
            found = _with_draws(run, found, layer, missing[layer].draws, data, common)
    return found


def _with_layer(found: ProbedModel, new: ProbedModel, layer: str) -> ProbedModel:
    """Add what another call has found out about a layer."""
    row, own = found.row, new.row
    by_layer: dict[str, Any] = {}
    for name in _BY_LAYER:
        values = getattr(own, name)
        added = {layer: values[layer]} if layer in values else {}
        by_layer[name] = {**getattr(row, name), **added}
    few = {(each.fraction, each.count): each for each in row.low_label}
    for each in own.low_label:
        key = (each.fraction, each.count)
        known = few.get(key) or replace(each, linear={}, draws={})
        for accuracy in each.of_draws(layer):
            few[key] = known = known.with_draw(layer, accuracy, each.protocol)
    guesses = {
        name: new.predictions[name]
        for name in (f"linear_{layer}", f"knn_{layer}")
        if name in new.predictions
    }
    truth = {"labels": new.predictions["labels"]} if guesses else {}
    return ProbedModel(
        replace(
            row,
            **by_layer,
            low_label=list(few.values()),
            protocol=own.protocol or row.protocol,
            headline=own.headline or row.headline,
        ),
        {**truth, **found.predictions, **guesses},
    )


def with_probes(
    run: RunFolder, found: ProbedModel, layer: str, data: Any, common: dict[str, Any]
) -> ProbedModel:
    """Add the probes of a layer with all labels.

    Parameters
    ----------
    run : RunFolder
        The run.
    found : ProbedModel
        Probes of other layers.
    layer : str
        Name of the layer.
    data : tuple of array
        Training features and labels, test features and labels.
    common : dict
        Number of classes, epochs and device of the linear probe.

    Returns
    -------
    ProbedModel
        The probes with those of the layer.
    """
    config, seed, row = run.config.evaluate, run.config.seed, found.row
    x, train_labels, _, test_labels = data
    linear = linear_probe(*data, seed=seed, **common)
    neighbours = knn_accuracy(*data, k=config.neighbors)
    held_out = knn_held_out(x, train_labels, k=config.neighbors, seed=seed)
    chosen = {} if linear.held_out is None else {layer: linear.held_out}
    measure, _, settled_layer = config.headline.partition(":")
    headline = row.headline
    if layer == settled_layer:
        headline = list((neighbours if measure == "knn" else linear).per_class)
    predicted = {
        f"{kind}_{layer}": guess.predictions.astype(np.int32)
        for kind, guess in (("linear", linear), ("knn", neighbours))
    }
    return ProbedModel(
        replace(
            row,
            linear={**row.linear, layer: linear.mean_per_class},
            linear_top1={**row.linear_top1, layer: linear.top1},
            knn={**row.knn, layer: neighbours.mean_per_class},
            protocol=linear.protocol,
            headline=headline,
            linear_held_out={**row.linear_held_out, **chosen},
            knn_held_out={**row.knn_held_out, layer: held_out},
        ),
        {"labels": test_labels.astype(np.int32), **found.predictions, **predicted},
    )


def _with_draws(
    run: RunFolder,
    found: ProbedModel,
    layer: str,
    draws: Sequence[tuple[Share, int]],
    data: Any,
    common: dict[str, Any],
) -> ProbedModel:
    """Add the probes of a layer with shares of the labels."""
    rows = {(row.fraction, row.count): row for row in found.row.low_label}
    for share, draw in draws:
        probe = low_label_probe(
            *data,
            fraction=share.fraction,
            count=share.count,
            seed=draw_seed(run.config.seed, draw),
            **common,
        )
        key = (share.fraction, share.count)
        row = rows.get(key) or LowLabelRow(
            share.fraction, {}, probe.n_train, probe.protocol, share.count
        )
        rows[key] = row.with_draw(layer, probe.mean_per_class, probe.protocol)
    return replace(found, row=replace(found.row, low_label=list(rows.values())))


def _features(
    run: RunFolder,
    images: LabelledSet,
    role: str,
    network: ProbedNetwork,
    model: TargetNetwork,
    layers: Sequence[str],
) -> tuple[dict[str, npt.NDArray[Any]], npt.NDArray[np.int64]]:
    """Pooled maps of a role's images by layer, and the labels of the images."""
    source, labels = open_set(run, role), labels_of(run, role, images)

    def prepare(batch: Tensor) -> Tensor:
        return network.normalize(center_crop(batch, network.crop))

    with open_feed(run, source, size=network.image_size, batch_size=256, shuffle=False) as feed:
        features = conv_features(
            model, feed, layers, prepare=prepare, dtype=DTYPE, memory_budget=probe_budget(run)
        )
    return features, labels


def _passes(
    run: RunFolder, network: ProbedNetwork, images: LabelledSet, layers: Sequence[str]
) -> Iterator[tuple[str, ...]]:
    """Yield groups of layers whose features fit into memory together."""
    group: tuple[str, ...] = ()
    taken = 0
    for layer in layers:
        needed = _layer_bytes(run, network, images, layer)
        if group and taken + needed > probe_budget(run) // processes_here():
            yield group
            group, taken = (), 0
        group, taken = (*group, layer), taken + needed
    yield group


def _layer_bytes(run: RunFolder, network: ProbedNetwork, images: LabelledSet, layer: str) -> int:
    """Bytes of a layer's features of all training and test images."""
    channels = network.shape.channels[layer]
    side = pooled_size(channels, network.shape.side(network.crop, layer))
    n = sum(open_set(run, role).n for role in (images.train, images.test))
    return n * channels * side**2 * np.dtype(DTYPE).itemsize


def probe_budget(run: RunFolder) -> int:
    """Bytes that probed features may take."""
    return max(LEAST_BUDGET, int(run.config.data.memory_budget_gb * 1e9))


def device_of_probe(run: RunFolder, needed: int) -> str:
    """Device of the probe: the run's GPU if the features and a copy of them fit, else the CPU."""
    device = resolve_device(run.config.device)
    if device.startswith("cuda") and 2 * needed > torch.cuda.mem_get_info(device)[0]:
        return "cpu"
    return device
