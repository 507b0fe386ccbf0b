"""Forecast before the first training how long all trainings of a run will take on a CPU.

A short trial of each network gives the seconds per image. On a GPU there is no forecast, because
the progress line of a training shows the remaining time within seconds.
"""

import dataclasses
import logging
from collections.abc import Callable, Collection, Iterator

import numpy as np
import torch

from ktfast.config import Config, TrainingConfig
from ktfast.images.feeds.base import Batch
from ktfast.pipeline.environment import resolve_device
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.steps.image_sets import open_set
from ktfast.pipeline.steps.networks import pretext_trunk, target_network, target_trunk
from ktfast.pipeline.steps.probed_models import own_models
from ktfast.pretext.registry import build_pretext
from ktfast.training.classification import ClassificationTask
from ktfast.training.live_line import LiveLine, spelled_time
from ktfast.training.loop import Task
from ktfast.training.speed import image_seconds
from ktfast.training.state import TrainingState

logger = logging.getLogger(__name__)

FEW_PASSES = 20_000
"""A run whose trainings read fewer images, counted once per epoch, gets no forecast."""
_IMAGES = 16  # images of a trial

SMALL_RECIPE = (
    "For a first run, use the recipe with small networks (--config tiny_cpu) and a new run folder"
)


@dataclasses.dataclass(frozen=True)
class Plan:
    """A training of the run.

    Attributes
    ----------
    name : str
        Name of the training.
    images : int
        Images in all epochs.
    training : TrainingConfig
        Options of the training.
    size : int
        Side of the images in pixels.
    task : callable
        Builds the network and its loss.
    channels : int
        Channels of the images.
    """

    name: str
    images: int
    training: TrainingConfig
    size: int
    task: Callable[[], Task]
    channels: int = 3


def warn_of_the_papers_size(config: Config, stages: Collection[str]) -> None:
    """Warn if networks of the paper's size would be trained on a CPU."""
    puzzle = "pretext" in stages and config.cluster.features is None and config.features.learns
    named = [
        f"{section}.width is {width:g}"
        for section, width, asked in (
            ("pretext", config.pretext.width, puzzle),
            (
                "transfer",
                config.transfer.width,
                "transfer" in stages and ":" not in config.transfer.target,
            ),
        )
        if asked and width >= 1
    ]
    if named and resolve_device(config.device) == "cpu":
        logger.warning(
            "the device is a CPU, and the networks have the size of the paper (%s): a training may "
            "take days or weeks. %s",
            " and ".join(named),
            SMALL_RECIPE,
        )


def log_outlook(run: RunFolder, stages: Collection[str], redo: Collection[str] = ()) -> None:
    """Log how long each training of a run is expected to take, and all of them together.

    Parameters
    ----------
    run : RunFolder
        The run, with prepared images.
    stages : collection of str
        Stages that will be run.
    redo : collection of str
        Stages and baselines that will be run although they are finished.
    """
    plans = list(_plans(run, stages, redo))
    if (
        resolve_device(run.config.device) != "cpu"
        or len(plans) < 2
        or sum(plan.images for plan in plans) < FEW_PASSES
    ):
        return
    seconds = {}
    with LiveLine("trials of the networks", len(plans)) as line:
        line.start(0)
        for plan in plans:
            seconds[plan.name] = _seconds(plan)
            line.advance(len(seconds))
    logger.info(
        "the trainings of this run are expected to take about %s on this CPU, by trials: %s",
        spelled_time(sum(seconds.values())),
        ", ".join(f"{name} {spelled_time(value)}" for name, value in seconds.items()),
    )


def _plans(run: RunFolder, stages: Collection[str], redo: Collection[str]) -> Iterator[Plan]:
    """Yield the trainings that are not finished; the evaluation's retraining is left out."""

    def is_open(name: str) -> bool:
        return name in redo or not (run.stage(name) / "result.json").is_file()

    if "pretext" in stages and is_open("pretext"):
        yield _pretext(run, "pretext")
    if "transfer" in stages and is_open("transfer"):
        yield _labels(run, "transfer", "transfer")
    if "evaluate" in stages:
        baselines = own_models(run, stages)
        if "pretext" in baselines and is_open("baseline_pretext"):
            yield _pretext(run, "baseline_pretext")
        if "labels" in baselines and is_open("baseline_labels"):
            yield _labels(run, "baseline_labels", "train")


def _pretext(run: RunFolder, name: str) -> Plan:
    """Plan a training on the pretext task: the stage pretext, or the baseline of that name."""
    config = run.config
    # The number of permutations costs little, and a large set takes long to compute.
    few = {"permutations": max(2, config.pretext.puzzles_per_image)}
    options = config.pretext.model_copy(update=few)

    def task() -> Task:
        whole = name == "baseline_pretext"
        trunk = target_trunk(config.transfer, options.task) if whole else pretext_trunk(options)
        return build_pretext(trunk, options, seed=0, n_threads=config.threads)

    images = round(open_set(run, "pretext").n * options.training.epochs)
    return Plan(name, images, options.training, options.crop, task)


def _labels(run: RunFolder, name: str, role: str) -> Plan:
    """Plan a training of the target on labels or pseudo-labels of the images of a role."""
    config = run.config.transfer

    def task() -> Task:
        labels = torch.zeros(_IMAGES, dtype=torch.int64)
        return ClassificationTask(
            target_network(config, 2),
            labels,
            crop=config.crop,
            seed=0,
            normalization=config.normalization,
        )

    images = round(open_set(run, role).n * config.training.epochs)
    return Plan(name, images, config.training, config.image_size, task, config.channels or 3)


def _seconds(plan: Plan) -> float:
    """Seconds of a training, by a trial on made-up images; leaves torch's generators unchanged."""
    side = plan.size
    pixels = np.random.default_rng(0).integers(
        0, 256, (_IMAGES, side, side, plan.channels), np.uint8
    )
    numbers = torch.arange(_IMAGES)
    batch = Batch(pool=torch.from_numpy(pixels), sample_ids=numbers, rows=numbers)
    with torch.random.fork_rng(devices=[]):
        state = TrainingState(plan.task(), plan.training, torch.device("cpu"))
        first = batch.part(0, 2)
        state.gradients.add(first, 0)  # the first gradient takes longer
        state.model.zero_grad(set_to_none=True)
        return plan.images * image_seconds(state.gradients, batch, 0, plan.images)
