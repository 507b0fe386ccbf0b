"""Stage 2, `ktfast pretext`: the deep network learns Jigsaw++."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ktfast.durable import replacing
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.stage_result import Outcome, complete_stage
from ktfast.pipeline.steps.image_sets import open_feed, open_set
from ktfast.pipeline.steps.networks import pretext_trunk, puzzle_options, puzzle_permutations
from ktfast.pipeline.steps.questions import pretext_question
from ktfast.pipeline.steps.train_networks import HELD_OUT_EPOCH, train_jigsaw, weights_fingerprint
from ktfast.pretext.pictures import puzzle_pictures

EXAMPLES = 12  # puzzles in the report


def execute(run: RunFolder, *, redo: bool = False) -> dict[str, Any]:
    """Train the puzzle network, measure its accuracy, and save puzzles for the report."""
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
    trained = train_jigsaw(
        run,
        folder,
        trunk=partial(pretext_trunk, config),
        name="pretext",
        held_out=open_set(run, held_out),
    )
    _save_examples(run, folder)
    return Outcome(
        fingerprint=weights_fingerprint(folder),
        outputs={"weights": "weights.safetensors", "permutations": "permutations.npy"},
        summary={
            **trained.metrics,
            "measured_on": held_out,
            "loss": trained.summary.metrics.get("loss"),
            "n_permutations": config.permutations,
            "steps": trained.summary.steps,
            **trained.summary.speed(),
        },
        throughput=("images/s", trained.summary.images_per_second),
        seconds=trained.summary.seconds,
    )


def _save_examples(run: RunFolder, folder: Path) -> None:
    """Keep a few puzzles as the network sees them, with the random choices behind each."""
    config = run.config.pretext
    with open_feed(
        run, open_set(run, "pretext"), size=config.crop, batch_size=EXAMPLES, shuffle=True
    ) as feed:
        batch = next(iter(feed.epoch(0)))
    arrays = puzzle_pictures(
        batch.images,
        batch.sample_ids,
        puzzle_permutations(config),
        seed=run.config.seed,
        epoch=HELD_OUT_EPOCH,
        **puzzle_options(config),
    )
    with replacing(folder / "examples.npz") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
