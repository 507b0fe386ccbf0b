"""Support vector machines on a frozen layer, trained on the classes of PASCAL VOC."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ktfast.config import Config
from ktfast.errors import ConfigError
from ktfast.evaluation.pooling import conv_features
from ktfast.evaluation.voc_results import VocRow
from ktfast.images.augment import center_crop
from ktfast.models import TargetNetwork
from ktfast.pipeline.environment import resolve_device
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.steps.fine_tune_voc import Sets, by_class, defined
from ktfast.pipeline.steps.probed_models import probed_network
from ktfast.voc.data import VocSet
from ktfast.voc.feed import ViewFeed
from ktfast.voc.views import CenterSquares

BATCH = 64


def svm_layer(config: Config, network: TargetNetwork) -> str:
    """Name the layer whose map the machines see.

    Raises
    ------
    ConfigError
        The network has no layer of this name.
    """
    layer = config.voc.svm.layer or network.stages[-1]
    if layer not in network.layers:
        raise ConfigError(
            f"voc.svm.layer {layer!r} is unknown; the network has {', '.join(network.layers)}"
        )
    return layer


def check_svm(run: RunFolder) -> None:
    """Check the layer of the machines before anything is computed."""
    for name in run.config.voc.models:
        svm_layer(run.config, probed_network(run, name).shape)


def train_svm(run: RunFolder, sets: Sets, name: str, folder: Path) -> VocRow:
    """Train machines on a frozen layer of a model, and test them.

    Parameters
    ----------
    run : RunFolder
        The run.
    sets : Sets
        Photographs.
    name : str
        Name of the model, one of `voc.models`.
    folder : Path
        Not used: machines have no checkpoints.

    Returns
    -------
    VocRow
        Average precisions with all photographs, and with few photographs of each class.
    """
    from ktfast.evaluation.svm import low_shot_svm, svm_precisions  # slow to import

    config, (train, test) = run.config.voc.svm, (sets.train, sets.test)
    network = probed_network(run, name)
    model = network.load(run)
    layer = svm_layer(run.config, model)

    def prepare(batch: Tensor) -> Tensor:
        return network.normalize(center_crop(batch, network.crop))

    size = network.image_size
    x, test_x = (_features(run, images, size, model, layer, prepare) for images in (train, test))
    data, seed = (x, train.presence(), test_x, test.presence()), run.config.seed
    found = svm_precisions(*data, costs=config.costs, seed=seed)
    few = low_shot_svm(
        *data, shots=config.shots, samples=config.samples, costs=config.costs, seed=seed
    )
    return VocRow(
        score=defined(found.mean),
        classes=by_class(train.classes, found.eleven_points),
        more={"mean_area": defined(found.mean_area)},
        steps=None,
        protocol={"layer": layer, "crops": 1, "values": x.shape[1], "costs": len(config.costs)},
        areas=by_class(train.classes, found.area),
        shots={str(result.shots): list(result.samples) for result in few},
    )


def _features(
    run: RunFolder,
    images: VocSet,
    size: int,
    model: TargetNetwork,
    layer: str,
    prepare: Callable[[Tensor], Tensor],
) -> npt.NDArray[np.float32]:
    """Pooled maps of a layer for all photographs."""
    config = run.config
    view = CenterSquares(images, short_side=config.data.short_side, size=size)
    feed = ViewFeed(
        view,
        batch_size=BATCH,
        shuffle=False,
        device=resolve_device(config.device),
        n_threads=config.threads or None,
    )
    with feed:
        features = conv_features(model, feed, (layer,), prepare=prepare)
    return features[layer]
