"""Train the baselines that the target network is compared with.

A baseline has the target's architecture and is trained on the puzzle itself (no clustering) or on
the true labels. The stages evaluate and voc share the trained baselines. The third baseline, random
weights, needs no training.
"""

from functools import partial
from pathlib import Path
from typing import Any

from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.stage_result import Outcome, complete_stage
from ktfast.pipeline.steps.image_sets import open_set
from ktfast.pipeline.steps.networks import target_trunk
from ktfast.pipeline.steps.questions import baseline_question
from ktfast.pipeline.steps.train_networks import (
    train_classifier,
    train_jigsaw,
    weights_fingerprint,
)


def train_baseline(run: RunFolder, name: str) -> dict[str, Any]:
    """Train the baseline "pretext" or "labels" if it is not trained yet.

    Parameters
    ----------
    run : RunFolder
        The run.
    name : str
        "pretext" or "labels".

    Returns
    -------
    dict
        Content of the baseline's `result.json`.
    """
    return complete_stage(
        run,
        f"baseline_{name}",
        baseline_question(run, name),
        partial(_fit_baseline, run, name),
        fingerprint=weights_fingerprint,
    )


def _fit_baseline(run: RunFolder, name: str, folder: Path) -> Outcome:
    if name == "pretext":
        trained = train_jigsaw(
            run,
            folder,
            trunk=partial(target_trunk, run.config.transfer),
            name="baseline_pretext",
            held_out=open_set(run, "test"),
        )
    else:
        images = open_set(run, "train")
        trained = train_classifier(
            run,
            folder,
            images,
            images.labels,
            n_classes=len(images.classes),
            name="baseline_labels",
        )
    return Outcome(
        fingerprint=weights_fingerprint(folder),
        outputs={"weights": "weights.safetensors"},
        summary={**trained.metrics, "steps": trained.summary.steps},
        throughput=("images/s", trained.summary.images_per_second),
        seconds=trained.summary.seconds,
    )
