"""A small training with lanes or with ddp, as each process of a group runs it."""

import os
import signal
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ktfast.training.assistance import assist
from ktfast.training.loop import Interrupted, StepOutput, train
from support.toy_training import toy_config, toy_feed, toy_task, weights_hash

LANES = 4


def task_of(feed, plain=False):
    """A task with dropout and batch-norm; `plain`: without them, and with an unused parameter."""
    task = toy_task(feed, width=0.03125)
    torch.manual_seed(1)
    stack = nn.Sequential(nn.Conv2d(3, 4, 5, stride=4), nn.BatchNorm2d(4), nn.ReLU())
    if plain:
        stack[1] = nn.Identity()
        stack[1].unused = nn.Parameter(torch.ones(2))
    dropout = nn.Identity() if plain else nn.Dropout(0.5)
    task.model = nn.Sequential(stack, nn.Flatten(), dropout, nn.Linear(324, 5))
    return task


class Signalling:
    """A task that sends SIGTERM to its own process in a step."""

    def __init__(self, task, lanes):
        self.task, self.model, self.left = task, task.model, lanes

    def step(self, batch, epoch) -> StepOutput:
        self.left -= len(batch) > 2  # two images: a trial, not a lane
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return self.task.step(batch, epoch)


def lane_training(ranks, folder, stop_after=None, signalled=None, ddp=None, plain=False):
    """Train; every process writes its weights and their hash. `signalled` is the rank that stops.

    `ddp` None means lanes, True ddp, and False a training on one process.
    """
    feed = toy_feed()
    task = task_of(feed, plain)
    way = {"lanes": LANES} if ddp is None else {"ddp": ddp}
    config = toy_config(epochs=1.5, log_every=2, **way)
    if signalled == ranks.rank:
        task = Signalling(task, 6)
    folder, stopped = Path(folder), None
    folder.mkdir(exist_ok=True)
    given = {"name": "toy", "seed": 2, "device": "cpu", "ranks": ranks}
    if ranks.leads:
        try:
            metrics = folder / "metrics.jsonl"
            options = {"progress": False, "metrics_path": metrics, "stop_after": stop_after}
            summary = train(task, feed, config, folder, **given, **options)
            (folder / "sizes").write_text(str(summary.ddp_processes))
        except Interrupted as stop:
            stopped = stop.signal
    else:
        assist(task, feed, config, **given)
    weights = {name: value.detach().numpy() for name, value in task.model.named_parameters()}
    np.savez(folder / f"parameters-{ranks.rank}.npz", **weights)
    (folder / f"weights-{ranks.rank}").write_text(f"{weights_hash(task.model)} {stopped}")
