"""Stage 5, `ktfast transfer`: the target network learns from scratch what the teacher knows.

With the objective `clusters`, the target learns the pseudo-labels. With the other objectives, the
target learns the teacher's features (`ktfast.objectives`).
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ktfast.errors import DataError
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.stage_result import Outcome, complete_stage
from ktfast.pipeline.steps.image_sets import open_set
from ktfast.pipeline.steps.learn_features import train_on_features
from ktfast.pipeline.steps.questions import transfer_question
from ktfast.pipeline.steps.train_networks import Trained, train_classifier, weights_fingerprint
from ktfast.readers import read_npz


def execute(run: RunFolder, *, redo: bool = False) -> dict[str, Any]:
    """Train the target on the images of the role "transfer" by the objective of the run."""
    return complete_stage(
        run,
        "transfer",
        transfer_question(run),
        partial(_train, run),
        redo=redo,
        fingerprint=weights_fingerprint,
    )


def _train(run: RunFolder, folder: Path) -> Outcome:
    on_labels = run.config.transfer.objective == "clusters"
    trained = (_train_on_labels if on_labels else train_on_features)(run, folder)
    return Outcome(
        fingerprint=weights_fingerprint(folder),
        outputs={"weights": "weights.safetensors"},
        summary={
            **trained.metrics,
            "steps": trained.summary.steps,
            **trained.summary.speed(),
        },
        throughput=("images/s", trained.summary.images_per_second),
        seconds=trained.summary.seconds,
    )


def _train_on_labels(run: RunFolder, folder: Path) -> Trained:
    images, path = open_set(run, "transfer"), run.artifact("cluster", "labels.npz")
    arrays = read_npz(path, ["labels", "sample_ids"], remedy="redo the stage cluster")
    labels = arrays["labels"].astype(np.int64)
    if not np.array_equal(arrays["sample_ids"], images.sample_ids):
        raise DataError(
            f"{path} labels other images than those of data.transfer; redo the stage cluster "
            "first (`ktfast cluster --redo cluster`)"
        )
    return train_classifier(
        run,
        folder,
        images,
        labels,
        n_classes=run.config.cluster.n_clusters,
        name="transfer",
        balanced=run.config.transfer.balanced,
    )
