"""Train the target on the teacher's features, for the stage transfer.

The targets of all objectives of `ktfast.objectives` are the teacher's features, centred, projected
on at most `transfer.pca` principal axes, and scaled to length 1. Without centring, features without
negative values, such as HOG, are all alike. The projection bounds the target's outputs, and so its
head and its memory.
"""

import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ktfast.errors import ConfigError, DataError, shown
from ktfast.features.covariance import MOST_FEATURES
from ktfast.features.matching import match_rows
from ktfast.features.store import FeatureStore
from ktfast.features.transform import BLOCK_ROWS, FeatureTransform
from ktfast.images.source import PreparedSet
from ktfast.models import TargetNetwork
from ktfast.objectives.registry import build_objective
from ktfast.pipeline.environment import resolve_device
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.steps.image_sets import open_feed, open_set, set_name
from ktfast.pipeline.steps.networks import (
    WEIGHTS,
    save_network,
    target_network,
    target_preprocessing,
)
from ktfast.pipeline.steps.questions import feature_folders, feature_roles
from ktfast.pipeline.steps.train_networks import (
    HELD_OUT_EPOCH,
    HELD_OUT_IMAGES,
    Trained,
    train_task,
)
from ktfast.pretext.held_out import held_out_measure

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]
TRANSFORM = "transform.npz"
"""Name of the fitted transform of the features in the stage's folder."""


def check_learnt_features(run: RunFolder) -> None:
    """Check, before the long stages, that features from elsewhere belong to the target's images.

    Nothing is done if the run computes the features itself, learns pseudo-labels, or has trained
    the target.

    Raises
    ------
    ConfigError
        `cluster.features` does not exist.
    DataError
        The features lack images, or their order is ambiguous.
    """
    external = run.config.cluster.features is not None
    done = (run.stage("transfer") / "result.json").is_file()
    if external and not done and run.config.transfer.objective != "clusters":
        _features(run, "transfer", open_set(run, "transfer"))


def train_on_features(run: RunFolder, folder: Path) -> Trained:
    """Train the target network from scratch on the teacher's features, and save its weights.

    Parameters
    ----------
    run : RunFolder
        The run. The images are those of the role "transfer".
    folder : Path
        Receives checkpoints and `weights.safetensors`.

    Returns
    -------
    trained : Trained
        The target network. The metrics hold the last row of metrics.jsonl, and under "objective"
        and "held_out" the name of the objective and its measure, also of an untrained network.
    """
    config, seed = run.config.transfer, run.config.seed
    images = open_set(run, "transfer")
    held_out = _held_out_role(run)
    measured = open_set(run, held_out)
    features, unseen = _features(run, "transfer", images), _features(run, held_out, measured)
    transform = _fitted(run, features, folder)
    targets = _targets(run, features, transform, folder)
    model = _student(run, targets.shape[1])
    task = build_objective(model, targets, config, seed=seed)
    size, batch_size = config.image_size, config.training.batch_size
    with open_feed(run, images, size=size, batch_size=batch_size, shuffle=True) as feed:
        summary = train_task(run, task, feed, config.training, folder, name="transfer")
    save_network(model, folder / WEIGHTS, target_preprocessing(run.config))
    truth = _targets(run, unseen, transform, folder)
    with torch.random.fork_rng(devices=[]):
        untrained = _student(run, targets.shape[1])
    values = {
        name: _measure(run, network, measured, truth)
        for name, network in (("trained", model), ("untrained", untrained))
    }
    metrics = {
        **summary.metrics,
        "objective": config.objective,
        "held_out": {
            "measure": task.measure_name,
            **values,
            "images": min(measured.n, HELD_OUT_IMAGES),
            "measured_on": held_out,
            "features": _fingerprint(run, held_out),
        },
    }
    return Trained(model, summary, metrics)


def _student(run: RunFolder, dim: int) -> TargetNetwork:
    """Build the target with `dim` outputs, and weights that follow from the run's seed.

    A classifier starts with nearly equal outputs, that is with small weights in its last layer. The
    objectives see only directions: the first steps would turn such small weights around.
    """
    torch.manual_seed(run.config.seed)
    model = target_network(run.config.transfer, dim)
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    for last in linear[-1:]:
        nn.init.kaiming_normal_(last.weight, nonlinearity="relu")
    return model


def _held_out_role(run: RunFolder) -> str:
    """Name the role of the images on which the target is measured: "test" if it has features."""
    return "test" if "test" in feature_roles(run) else "transfer"


def _fingerprint(run: RunFolder, role: str) -> str:
    """Fingerprint of the run's own features of a role's images; empty for features of the user.

    The report leaves the measure out if these features were made again afterwards.
    """
    if run.config.cluster.features is not None:
        return ""
    return str(run.result(f"features/{set_name(run, role)}")["fingerprint"])


def _features(run: RunFolder, role: str, images: PreparedSet) -> FeatureStore:
    """Open the teacher's features of a role's images: one row per image, in the images' order."""
    if role == "test":
        stage = f"features/{set_name(run, role)}"
        run.result(stage)  # refuses a stage that is not finished
        path = run.stage(stage)
    else:
        path = feature_folders(run)[1]
    store = FeatureStore.open(path, verify=True)
    store = match_rows(store, images, run.config.data.folders()[role])
    for start in range(0, store.n, BLOCK_ROWS):
        finite = np.isfinite(store.read(slice(start, start + BLOCK_ROWS))).all(1)
        if not finite.all():
            first = shown(images.paths[start + int(np.argmin(finite))])
            raise DataError(
                f"the features in {shown(path)} hold numbers that are not finite, first those of "
                f"{first}; correct the teacher, and extract the features again"
            )
    return store


def _fitted(run: RunFolder, features: FeatureStore, folder: Path) -> FeatureTransform:
    """Fit the transform of the features, or load the transform of an interrupted call.

    A resumed training must see the same targets. Another number of threads could change the last
    bits of a transform that is fitted again.
    """
    path = folder / TRANSFORM
    if path.is_file():
        try:
            return FeatureTransform.load(path)
        except DataError as error:
            logger.warning("%s", error)
    if features.dim > MOST_FEATURES:
        raise ConfigError(
            f"the features of {features.dim:,} numbers are too long for the PCA of "
            f"transfer.objective {run.config.transfer.objective}, which takes at most "
            f"{MOST_FEATURES:,}; choose a smaller features.pool or another features.layer"
        )
    dim = max(1, min(run.config.transfer.pca, features.dim, features.n - 1))
    transform = FeatureTransform.fit(features, "pca-l2", dim=dim, seed=run.config.seed)
    transform.save(path)
    return transform


def _targets(
    run: RunFolder, features: FeatureStore, transform: FeatureTransform, folder: Path
) -> Floats:
    """Transform features to the vectors that the target learns, in memory or memory-mapped."""
    budget = int(run.config.data.memory_budget_gb * 1e9)
    return transform.apply_store(features, folder, budget)


def _measure(run: RunFolder, network: nn.Module, images: PreparedSet, targets: Floats) -> float:
    """Mean score of a network on images, at most `HELD_OUT_IMAGES`, in a random order.

    In the order of their paths, the images of a batch would come from few classes.
    """
    config = run.config.transfer
    network.to(resolve_device(run.config.device))
    task = build_objective(network, targets, config, seed=run.config.seed)
    size, batch_size = config.image_size, config.training.batch_size
    with open_feed(run, images, size=size, batch_size=batch_size, shuffle=True) as feed:
        return held_out_measure(task, feed, epoch=HELD_OUT_EPOCH, max_images=HELD_OUT_IMAGES)
