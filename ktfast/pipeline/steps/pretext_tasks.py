"""The pretext task of a run: whether its code may run, and a trial before the long stages."""

import numpy as np
import torch

from ktfast.config import Config
from ktfast.errors import ConfigError, shown
from ktfast.features.foreign import file_of
from ktfast.images.feeds.base import Batch
from ktfast.models import initialize
from ktfast.pipeline.environment import resolve_device
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.steps.image_sets import open_set
from ktfast.pipeline.steps.networks import pretext_trunk
from ktfast.pipeline.steps.questions import clusters_untrained_features, needs_clusters
from ktfast.pretext.registry import PRETEXTS, build_pretext
from ktfast.training.classification import evaluating

TRIED = 4
"""Number of images of the trial."""


def learns_task(config: Config) -> bool:
    """Say whether the run trains the network whose features are clustered."""
    return config.features.learns and config.cluster.features is None


def runs_task(config: Config, stage: str) -> bool:
    """Say whether a stage trains a network on the pretext task, or builds an untrained one."""
    if stage == "evaluate":
        untrained = needs_clusters(config) and clusters_untrained_features(config)
        return "pretext" in config.evaluate.baselines or untrained
    if stage == "voc":
        return "pretext" in config.voc.models
    return stage == "pretext"


def may_load_task(run: RunFolder) -> bool:
    """Say whether the pretext task is one of ktfast, or a class of the user that the run trusts."""
    return run.config.pretext.task in PRETEXTS or run.trust_source


def check_task_trust(run: RunFolder) -> None:
    """Refuse to run the class that a configuration file names, unless the user trusts the file.

    Raises
    ------
    ConfigError
        `pretext.task` names a class of the user and the run does not trust the name.
    """
    if not may_load_task(run):
        task = run.config.pretext.task
        file = shown(file_of(task)) or "no file that Python finds"
        raise ConfigError(
            f"the configuration file names pretext.task {task!r}, which would run code of "
            f"{file}; add --trust-source (trust_source=True in Python) if you trust this code"
        )


def try_task(run: RunFolder) -> None:
    """Call every method of a pretext task of the user once, on a few images.

    Tasks of ktfast are not called. Nothing is done if the task is learnt already.

    Raises
    ------
    ConfigError
        A method fails, or returns something else than the protocol asks for.
    """
    config = run.config
    if config.pretext.task in PRETEXTS or not (learns_task(config) and may_load_task(run)):
        return
    if (run.stage("pretext") / "result.json").is_file():
        return
    images, side = open_set(run, "pretext"), config.pretext.crop
    rows = np.arange(min(images.n, TRIED))
    squares = [
        images.square(int(row), short_side=config.data.short_side, size=side) for row in rows
    ]
    device = torch.device(resolve_device(config.device))
    batch = Batch(
        pool=torch.from_numpy(np.stack(squares)),
        sample_ids=torch.from_numpy(images.sample_ids[rows]),
        rows=torch.from_numpy(rows),
    ).to(device)
    with torch.random.fork_rng(devices=[]):  # building a network draws from torch's generator
        task = build_pretext(
            pretext_trunk(config.pretext), config.pretext, seed=config.seed,
            n_threads=config.threads,
        )  # fmt: skip
        initialize(task.model)
        task.model.to(device)
        torch.autograd.backward(task.step(batch, 0).loss)
        with torch.inference_mode(), evaluating(task.model):
            task.measure(batch, 0)
            task.pictures(batch, 0)
    del task
    if device.type == "cuda":
        torch.cuda.empty_cache()  # a feed decides by the free memory of the GPU
