"""ktfast's side of `ktfast bench train`: the trainings and the feature extraction of a run."""

import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ktfast.bench.train.jobs import CLASSES, JOBS, POOL, Assignment, Clock, Job, peak_flops
from ktfast.config import PretextConfig, TrainingConfig, TransferConfig
from ktfast.features.teachers import trunk_teacher
from ktfast.images.feeds.base import Batch, Feed
from ktfast.images.feeds.make import make_feed
from ktfast.images.source import PreparedSet
from ktfast.models import initialize
from ktfast.pipeline.steps.extract_features import write_features
from ktfast.pipeline.steps.networks import (
    pretext_trunk,
    target_network,
)
from ktfast.pretext.registry import build_pretext
from ktfast.training.classification import ClassificationTask
from ktfast.training.loop import Task, train
from ktfast.training.precision import computing_dtype
from ktfast.training.speed import flops_of


def run(**arguments: Any) -> dict[str, Any]:
    """Do and measure an `Assignment` whose images are a folder of prepared shards."""
    assignment = Assignment(**arguments)
    torch.set_num_threads(assignment.threads)
    torch.manual_seed(0)
    job, device = JOBS[assignment.job], torch.device(assignment.device)
    source = PreparedSet.open(Path(assignment.images))
    clock = Clock(assignment)
    kind: Any = assignment.feed
    feed = make_feed(
        source,
        kind=kind,
        size=job.crop if job.work != "classes" else job.short_side,
        short_side=job.short_side,
        batch_size=assignment.batch,
        shuffle=job.work != "features",
        drop_last=True,
        device=device,
        n_threads=assignment.threads,
        memory_budget=0,  # a data set of real size does not fit into memory
    )
    with feed, tempfile.TemporaryDirectory(prefix="ktfast-bench-") as folder:
        work = _extract if job.work == "features" else _train
        images = assignment.batch * (assignment.warm_up + assignment.steps)
        watched = WatchedFeed(feed, clock, min(images, feed.n))
        found = work(job, assignment, watched, device, Path(folder))
    return found | clock.measured()


class WatchedFeed(Feed):
    """A feed that tells a clock when a training has finished a batch.

    A training reads the feed once before it trains, to look at a batch. The clock restarts at the
    second reading.

    Parameters
    ----------
    feed : Feed
        The feed to watch.
    clock : Clock
        The clock to tell.
    images : int
        Images of an epoch.
    """

    def __init__(self, feed: Feed, clock: Clock, images: int) -> None:
        super().__init__(feed.source, dataclasses.replace(feed.plan, n=images))
        self.kind = feed.kind
        self._feed = feed
        self._clock = clock
        self._readings = 0

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches of the watched feed."""
        self._readings += 1
        if self._readings == 2:
            self._clock.restart()
        for batch in self._feed.epoch(epoch, start):
            try:
                yield batch
            finally:  # a training may stop reading after the last batch it needs
                self._clock.step_done()

    def close(self) -> None:
        """Close the watched feed."""
        self._feed.close()


def _train(
    job: Job, assignment: Assignment, feed: Feed, device: torch.device, folder: Path
) -> dict[str, Any]:
    steps = assignment.warm_up + assignment.steps + 1  # the last step also writes a checkpoint
    auto = assignment.way == "auto"
    config = TrainingConfig(
        compile="auto" if auto else "compiled" in assignment.way,
        cuda_graphs="auto" if auto else "graphs" in assignment.way,
        epochs=steps / feed.batches_per_epoch,
        batch_size=assignment.batch,
        log_every=steps,
        checkpoint_minutes=1e6,
    )
    summary = train(
        task_of(job, assignment.threads, feed.source.n),
        feed,
        config,
        folder,
        name=assignment.job,
        seed=0,
        device=device,
        progress=False,
    )
    assert summary.bounds is not None
    return {
        "precision": summary.precision,
        "way": summary.way,
        "feed": f"{feed.kind}, shards",
        "image_flops": summary.bounds.image_gflops * 1e9,
        "peak_flops": peak_flops(device, getattr(torch, summary.precision)),
        "bounds": summary.bounds.text(),
    }


def task_of(job: Job, threads: int, n: int) -> Task:
    """The job's network and loss, with made-up pseudo-labels for n images."""
    if job.work == "puzzle":
        config = _pretext(job)
        task = build_pretext(pretext_trunk(config), config, seed=0, n_threads=threads)
        initialize(task.model)
        return task
    transfer = TransferConfig(
        width=job.width, batch_norm=job.batch_norm, image_size=job.short_side, crop=job.crop
    )
    model = target_network(transfer, CLASSES)
    return ClassificationTask(model, torch.arange(n) % CLASSES, crop=job.crop, seed=0)


def _pretext(job: Job) -> PretextConfig:
    return PretextConfig(
        trunk=job.trunk,
        width=job.width,
        batch_norm=job.batch_norm,
        crop=job.crop,
        tile_size=job.tile,
        permutations=job.permutations,
        tile_features=job.units[0],
        hidden=job.units[1],
    )


def _extract(
    job: Job, assignment: Assignment, feed: Feed, device: torch.device, folder: Path
) -> dict[str, Any]:
    trunk = pretext_trunk(_pretext(job))
    initialize(trunk)
    trunk.to(device).to(memory_format=torch.channels_last)
    plain = trunk_teacher(trunk, trunk.layers[-1], pool=POOL, pooling="max")
    dtype = computing_dtype("auto", device)

    def teacher(images: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            return plain(images)

    image = torch.zeros(1, job.crop, job.crop, 3, dtype=torch.uint8, device=device)
    flops = flops_of(lambda: teacher(image))
    write_features(teacher, feed, folder, device=device, dtype="float16", meta={}, progress=_silent)
    return {
        "precision": str(dtype).removeprefix("torch."),
        "way": "plain",
        "feed": f"{feed.kind}, shards",
        "image_flops": flops,
        "peak_flops": peak_flops(device, dtype),
    }


def _silent(done: int, total: int) -> None:
    """Report no progress."""
