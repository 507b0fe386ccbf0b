"""Train the target's upper layers anew over frozen lower ones: the paper's non-linear probes.

Everything up to a layer comes from a model of the run and stays as it is; what lies above begins
at random and learns the true labels as the target learns its pseudo-labels.
"""

from pathlib import Path
from typing import Any

import torch

from ktfast.models import Trunk, load_weights
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.steps.image_sets import open_feed, open_set
from ktfast.pipeline.steps.networks import target_network
from ktfast.pipeline.steps.probe_layers import labels_of, load_model
from ktfast.pipeline.steps.train_networks import train_task
from ktfast.training.classification import ClassificationTask, classification_scores


def retrain_above(run: RunFolder, name: str, layer: str, folder: Path) -> dict[str, Any]:
    """Train all layers above `layer` of a model and test the network once, after the last epoch.

    Parameters
    ----------
    run : the run; images and labels come from its roles "train" and "test".
    name : of the model, as in the evaluation's summary.
    layer : the last layer that is frozen.
    folder : where checkpoints go, from which an interrupted training continues.

    Returns
    -------
    {"top1", "mean_per_class"} in [0, 1], {"steps", "protocol"}.
    """
    config, images = run.config.transfer, open_set(run, "train")
    epochs = run.config.evaluate.retrain_epochs or config.training.epochs
    training = config.training.model_copy(update={"epochs": epochs})
    trunk, normalization = load_model(run, name)
    torch.manual_seed(run.config.seed)
    model = frozen_network(trunk, layer, target_network(config, len(images.classes)))
    task = ClassificationTask(
        model,
        torch.from_numpy(labels_of(run, "train")),
        crop=config.crop,
        seed=run.config.seed,
        normalization=normalization,
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
    return {
        "top1": scores.top1,
        "mean_per_class": scores.mean_per_class,
        "steps": summary.steps,
        "protocol": {"epochs": epochs, "epoch_reported": "last", "crops": 1},
    }


def frozen_network(trunk: Trunk, layer: str, network: Trunk) -> Trunk:
    """Put all of `trunk` up to `layer` into `network`, in place, and freeze it there.

    Raises
    ------
    ConfigError : there is no such layer.
    """
    trunk.truncate(layer)
    load_weights(network, trunk.state_dict())
    network.freeze(layer)
    return network
