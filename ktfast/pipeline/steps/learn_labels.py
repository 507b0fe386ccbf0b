"""Train a probed network on the labels of a labelled set, and test the network.

The retrained layers (`retrain_layers`) and the fine-tuned networks (`fine_tune_shares`) differ only
in the network that they begin with, and in the images that the network learns from.
"""

from pathlib import Path

import torch

from ktfast.config import TrainingConfig
from ktfast.evaluation.results import ProtocolDetails, RetrainedScores
from ktfast.images.balance import Subset
from ktfast.models import TargetNetwork
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.steps.image_sets import open_feed, open_set
from ktfast.pipeline.steps.labelled_sets import LabelledSet, labels_of
from ktfast.pipeline.steps.probed_models import ProbedNetwork
from ktfast.pipeline.steps.train_networks import train_task
from ktfast.training.classification import ClassificationTask, classification_scores


def learn_labels(
    run: RunFolder,
    network: ProbedNetwork,
    model: TargetNetwork,
    images: LabelledSet,
    folder: Path,
    *,
    training: TrainingConfig,
    name: str,
    seed: int,
    subset: Subset | None = None,
) -> RetrainedScores:
    """Train a network on the labels, and test the network once, after the last epoch.

    Parameters
    ----------
    run : RunFolder
        The run. Crops and colours change as in the stage transfer.
    network : ProbedNetwork
        The preprocessing of the images.
    model : TargetNetwork
        The network with a classifier. Frozen layers stay as they are.
    images : LabelledSet
        Training and test images.
    folder : Path
        Folder of the checkpoints. An interrupted training continues from them.
    training : TrainingConfig
        Optimiser, schedule and precision.
    name : str
        Name of the training in metrics and on the live line.
    seed : int
        Seed of the crops and mirrors.
    subset : Subset, optional
        The training images that are used. None: all of them.

    Returns
    -------
    RetrainedScores
        Accuracies on the test images.
    """
    options, normalize = run.config.transfer, network.normalize
    task = ClassificationTask(
        model,
        torch.from_numpy(labels_of(run, images.train, images)),
        crop=network.crop,
        seed=seed,
        mirror=options.mirror,
        normalization=normalize,
        area=options.area,
        color_jitter=options.color_jitter,
    )
    source, size = open_set(run, images.train), network.image_size
    with open_feed(
        run, source, size=size, batch_size=training.batch_size, shuffle=True, balance=subset
    ) as feed:
        summary = train_task(run, task, feed, training, folder, name=name)
    test, truth = open_set(run, images.test), labels_of(run, images.test, images)
    with open_feed(run, test, size=size, batch_size=256, shuffle=False) as feed:
        scores = classification_scores(
            model, feed, torch.from_numpy(truth), crop=network.crop, normalization=normalize
        )
    protocol: ProtocolDetails = {
        "epochs": training.epochs,
        "epoch_reported": "last",
        "crops": 1,
    }
    return RetrainedScores(scores.top1, scores.mean_per_class, summary.steps, protocol)
