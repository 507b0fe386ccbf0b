"""Stage 2, `ktfast pretext`: the deep network learns the pretext task."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ktfast.durable import replacing, write_sealed
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.stage_result import Outcome, complete_stage
from ktfast.pipeline.steps.image_sets import open_feed, open_set
from ktfast.pipeline.steps.networks import pretext_trunk
from ktfast.pipeline.steps.questions import pretext_question
from ktfast.pipeline.steps.train_networks import (
    HELD_OUT_EPOCH,
    train_pretext,
    weights_fingerprint,
)
from ktfast.pretext.pictures import packed
from ktfast.pretext.protocol import Pretext
from ktfast.training.classification import evaluating

EXAMPLES = 12
"""Number of photographs whose examples the report may show."""


def execute(run: RunFolder, *, redo: bool = False) -> dict[str, Any]:
    """Train the network, measure it on held-out images, and save examples for the report."""
    return complete_stage(
        run,
        "pretext",
        pretext_question(run),
        partial(_train, run),
        redo=redo,
        fingerprint=weights_fingerprint,
    )


def _train(run: RunFolder, folder: Path) -> Outcome:
    config = run.config.pretext
    held_out = "test" if "test" in run.config.data.folders() else "pretext"
    trained = train_pretext(
        run,
        folder,
        trunk=partial(pretext_trunk, config),
        name="pretext",
        held_out=open_set(run, held_out),
    )
    _save_examples(run, trained.task, folder)
    return Outcome(
        fingerprint=weights_fingerprint(folder),
        outputs=trained.outputs,
        summary={
            **trained.metrics,
            "measured_on": held_out,
            "loss": trained.summary.metrics.get("loss"),
            **{f"n_{name}": len(array) for name, array in trained.task.arrays().items()},
            "steps": trained.summary.steps,
            **trained.summary.speed(),
        },
        throughput=("images/s", trained.summary.images_per_second),
        seconds=trained.summary.seconds,
    )


def _save_examples(run: RunFolder, task: Pretext, folder: Path) -> None:
    """Save a few examples of what the network sees: `examples.npz` and `examples.json`."""
    size = run.config.pretext.crop
    with open_feed(
        run, open_set(run, "pretext"), size=size, batch_size=EXAMPLES, shuffle=True
    ) as feed:
        batch = next(iter(feed.epoch(0)))
    with torch.inference_mode(), evaluating(task.model):
        arrays, texts = packed(task.pictures(batch, HELD_OUT_EPOCH))
    with replacing(folder / "examples.npz") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    about = {"title": task.title, "lead": task.lead, "legend": dict(task.legend)}
    write_sealed(folder / "examples.json", {**about, "examples": texts})
