"""Train a network's upper layers anew above frozen lower layers: the paper's non-linear probes.

The layers up to a given layer come from a probed network and are frozen. The layers above start
from random weights and learn the true labels, with the options of the stage transfer.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from ktfast.durable import write_sealed
from ktfast.evaluation.results import ByModel, ProtocolDetails, RetrainedScores, Retraining
from ktfast.models import TargetNetwork, Trunk, load_weights
from ktfast.models.trunk import HIDDEN
from ktfast.pipeline.jobs import spread_trainings
from ktfast.pipeline.question import as_json
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.stage_result import stored_row
from ktfast.pipeline.steps.begun_trainings import begun_training
from ktfast.pipeline.steps.image_sets import open_set
from ktfast.pipeline.steps.labelled_sets import LabelledSet
from ktfast.pipeline.steps.learn_labels import learn_labels
from ktfast.pipeline.steps.probed_models import ProbedNetwork, probed_network
from ktfast.pipeline.steps.questions import retrain_question

logger = logging.getLogger(__name__)


def stored_retraining(
    run: RunFolder, folder: Path, names: Sequence[str], images: LabelledSet
) -> Retraining | None:
    """Train the layers above each layer of `evaluate.retrain` anew, in every network that has it.

    Parameters
    ----------
    run : RunFolder
        The run.
    folder : Path
        Folder of the stage evaluate. The scores that an interrupted call has stored are read again.
    names : sequence of str
        Names of the networks.
    images : LabelledSet
        Training and test images.

    Returns
    -------
    retraining : Retraining or None
        Accuracies by network and layer; None if no network has one of the layers.
    """
    mean_per_class: ByModel = {}
    top1: ByModel = {}
    protocol: ProtocolDetails = {}
    networks = {name: probed_network(run, name) for name in names}
    jobs = [
        (folder, name, layer, images)
        for name, network in networks.items()
        for layer in run.config.evaluate.retrain
        if _has(network, layer)
    ]
    found = spread_trainings(run, _stored, jobs)
    for (_, name, layer, _), scores in zip(jobs, found, strict=True):
        mean_per_class.setdefault(name, {})[layer] = scores.mean_per_class
        top1.setdefault(name, {})[layer] = scores.top1
        protocol = protocol or scores.protocol
        accuracy = 100 * scores.mean_per_class
        logger.info("evaluate: %s above %s %.1f %%", images.file_of(name), layer, accuracy)
    return Retraining(mean_per_class, top1, protocol) if mean_per_class else None


def _has(network: ProbedNetwork, layer: str) -> bool:
    """Say whether the layers up to a layer have weights. Other tasks lack the layers fc6, fc7."""
    if layer in network.shape.layers:
        return True
    if layer not in HIDDEN or not isinstance(network.shape, Trunk):
        return False
    state = network.weights()
    return not state or any("classifier." in key for key in state)


def _stored(
    run: RunFolder, folder: Path, name: str, layer: str, images: LabelledSet
) -> RetrainedScores:
    """Retrain one network above one layer, or read the scores that are stored."""
    network = probed_network(run, name)
    title = f"{images.file_of(network.name)}-{layer}"
    path = folder / f"retrained-{title}.json"
    stored, asked = stored_row(path), as_json(retrain_question(run, network.name, images))
    if stored is None or stored.get("asked") != asked:
        logger.info("evaluate: training %s above %s", images.file_of(network.name), layer)
        with begun_training(folder / f"retraining-{title}", asked) as checkpoints:
            scores = retrain_above(run, network, layer, images, checkpoints)
            stored = {**scores.to_json(), "asked": asked}
            write_sealed(path, stored)
    return RetrainedScores.from_json(stored)


def retrain_above(
    run: RunFolder, network: ProbedNetwork, layer: str, images: LabelledSet, folder: Path
) -> RetrainedScores:
    """Train all layers above `layer` of a network and test the network after the last epoch.

    Parameters
    ----------
    run : RunFolder
        The run.
    network : ProbedNetwork
        The network.
    layer : str
        The last frozen layer.
    images : LabelledSet
        Training and test images.
    folder : Path
        Folder of the checkpoints. An interrupted training continues from them.

    Returns
    -------
    RetrainedScores
        Accuracies on the test images.
    """
    epochs = run.config.evaluate.retrain_epochs or run.config.transfer.training.epochs
    training = run.config.transfer.training.model_copy(update={"epochs": epochs})
    trunk = network.build()
    if layer not in trunk.layers:
        trunk = _with_hidden_layers(network, run.config.seed)
    torch.manual_seed(run.config.seed)
    fresh = network.fresh(len(open_set(run, images.train).classes))
    return learn_labels(
        run,
        network,
        frozen_network(trunk, layer, fresh),
        images,
        folder,
        training=training,
        name=f"retrain_{images.file_of(network.name)}_{layer}",
        seed=run.config.seed,
    )


def _with_hidden_layers(network: ProbedNetwork, seed: int) -> TargetNetwork:
    """Build a network with its own fully connected layers, on the CPU."""
    state = network.weights()
    heads = {int(key.split(".")[-2]): state[key] for key in state if "classifier." in key}
    outputs = heads[max(heads)].shape[0] if heads else 2
    torch.manual_seed(seed)
    model = network.fresh(outputs)
    if state:
        load_weights(model, state)
    return model


def frozen_network(trunk: TargetNetwork, layer: str, network: TargetNetwork) -> TargetNetwork:
    """Copy the layers of `trunk` up to `layer` into `network` and freeze them there.

    Parameters
    ----------
    trunk : TargetNetwork
        Source of the weights.
    layer : str
        The last layer to copy and freeze.
    network : TargetNetwork
        Network of the same architecture; changed in place.

    Returns
    -------
    TargetNetwork
        `network`.

    Raises
    ------
    ConfigError
        The network has no such layer.
    """
    load_weights(network, trunk.state_up_to(layer))
    network.freeze(layer)
    return network
