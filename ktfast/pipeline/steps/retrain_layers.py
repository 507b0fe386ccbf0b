"""Train the target's upper layers anew above frozen lower layers: the paper's non-linear probes.

The layers up to a given layer come from a model of the run and are frozen. The layers above start
from random weights and learn the true labels, with the options of the stage transfer.
"""

from pathlib import Path

import torch

from ktfast.evaluation.results import RetrainedScores
from ktfast.models import TargetNetwork, load_weights
from ktfast.models.weight_files import read_state
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.steps.image_sets import open_feed, open_set
from ktfast.pipeline.steps.labelled_sets import labels_of
from ktfast.pipeline.steps.networks import WEIGHTS, target_network
from ktfast.pipeline.steps.probed_models import load_model
from ktfast.pipeline.steps.train_networks import train_task
from ktfast.training.classification import ClassificationTask, classification_scores


def retrain_above(run: RunFolder, name: str, layer: str, folder: Path) -> RetrainedScores:
    """Train all layers above `layer` of a model and test the network once, after the last epoch.

    Parameters
    ----------
    run : RunFolder
        The run. Images and labels come from its roles "train" and "test".
    name : str
        Name of the model: "transfer" or a baseline.
    layer : str
        The last frozen layer.
    folder : Path
        Folder of the checkpoints. An interrupted training continues from them.

    Returns
    -------
    RetrainedScores
        Accuracies on the images of the role "test".
    """
    config, images = run.config.transfer, open_set(run, "train")
    epochs = run.config.evaluate.retrain_epochs or config.training.epochs
    training = config.training.model_copy(update={"epochs": epochs})
    trunk, normalization = load_model(run, name)
    if layer not in trunk.layers:
        trunk = _with_hidden_layers(run, name)
    torch.manual_seed(run.config.seed)
    model = frozen_network(trunk, layer, target_network(config, len(images.classes)))
    task = ClassificationTask(
        model,
        torch.from_numpy(labels_of(run, "train")),
        crop=config.crop,
        seed=run.config.seed,
        mirror=config.mirror,
        normalization=normalization,
        area=config.area,
        color_jitter=config.color_jitter,
    )
    size, training_name = config.image_size, f"retrain_{name}_{layer}"
    with open_feed(run, images, size=size, batch_size=training.batch_size, shuffle=True) as feed:
        summary = train_task(run, task, feed, training, folder, name=training_name)
    test = open_set(run, "test")
    with open_feed(run, test, size=size, batch_size=256, shuffle=False) as feed:
        scores = classification_scores(
            model,
            feed,
            torch.from_numpy(labels_of(run, "test")),
            crop=config.crop,
            normalization=normalization,
        )
    return RetrainedScores(
        top1=scores.top1,
        mean_per_class=scores.mean_per_class,
        steps=summary.steps,
        protocol={"epochs": epochs, "epoch_reported": "last", "crops": 1},
    )


def _with_hidden_layers(run: RunFolder, name: str) -> TargetNetwork:
    """Build a model of the run with its own fully connected layers, on the CPU."""
    stage = name if name == "transfer" else f"baseline_{name}"
    state = {} if name == "random" else read_state(run.artifact(stage, WEIGHTS))
    heads = {
        int(key.split(".")[1]): item for key, item in state.items() if key[:10] == "classifier"
    }
    outputs = heads[max(heads)].shape[0] if heads else 2
    torch.manual_seed(run.config.seed)
    network = target_network(run.config.transfer, outputs)
    if state:
        load_weights(network, state)
    return network


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
