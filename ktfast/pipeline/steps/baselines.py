"""Train the baselines that the target network is compared with.

A baseline has the target's architecture and is trained on the pretext task itself (no clustering)
or on the true labels. The stages evaluate and voc share the trained baselines. The third baseline,
random weights, needs no training.
"""

import logging
from functools import partial
from pathlib import Path
from typing import Any

from ktfast.durable import write_bytes
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.stage_result import Outcome, complete_stage, read_begun
from ktfast.pipeline.steps.image_sets import open_set
from ktfast.pipeline.steps.networks import WEIGHTS, target_trunk
from ktfast.pipeline.steps.questions import baseline_question, pretext_question
from ktfast.pipeline.steps.train_networks import (
    Trained,
    TrainedPretext,
    train_classifier,
    train_pretext,
    weights_fingerprint,
)

logger = logging.getLogger(__name__)


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
    if name == "pretext" and has_the_weights_of_pretext(run):
        return _take_weights(run, folder)
    trained: Trained | TrainedPretext
    if name == "pretext":
        trained = train_pretext(
            run,
            folder,
            trunk=partial(target_trunk, run.config.transfer, run.config.pretext.task),
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
        outputs={"weights": WEIGHTS},
        summary={**trained.metrics, "steps": trained.summary.steps},
        throughput=("images/s", trained.summary.images_per_second),
        seconds=trained.summary.seconds,
    )


def has_the_weights_of_pretext(run: RunFolder) -> bool:
    """Say whether the stage pretext has trained the network of the baseline "pretext" already.

    The stage trains the same weights if its trunk has the same architecture as the target network.
    The images, the task, the training and the seed are the same in any case.
    """
    pretext, transfer = run.config.pretext, run.config.transfer
    ours = (pretext.trunk, "caffe", pretext.width, pretext.batch_norm)
    if ours != (transfer.target, transfer.variant, transfer.width, transfer.batch_norm):
        return False
    folder = run.stage("pretext")
    if not (folder / "result.json").is_file() or pretext_question(run).changes(
        read_begun(run, "pretext")
    ):
        return False
    try:
        return weights_fingerprint(folder) == str(run.result("pretext")["fingerprint"])
    except OSError:
        return False


def _take_weights(run: RunFolder, folder: Path) -> Outcome:
    """Copy the weights of the stage pretext."""
    result = run.result("pretext")
    for name in result["outputs"].values():
        write_bytes(folder / name, run.artifact("pretext", name).read_bytes())
    logger.info("baseline_pretext: the weights are those of the stage pretext")
    # A baseline's accuracy is that on test images. The stage pretext may have been run without any.
    measured = result["summary"].get("measured_on") == "test"
    kept = ["steps", "task"]
    if measured:
        kept += [result["summary"].get("measure", "accuracy"), "measure", "chance", "at_chance"]
    return Outcome(
        fingerprint=weights_fingerprint(folder),
        outputs={"weights": WEIGHTS},
        summary={key: value for key, value in result["summary"].items() if key in kept},
    )
