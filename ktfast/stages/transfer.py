"""Stage 5: the target network learns the pseudo-labels from scratch."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ktfast.durable import sha256_file
from ktfast.stages.artifacts import Outcome, Run, run_stage
from ktfast.stages.networks import train_classifier
from ktfast.stages.sets import open_set, set_fingerprint


def run(run: Run, *, redo: bool = False) -> dict[str, Any]:
    """Train the target on the images of the role "transfer" and their pseudo-labels."""
    return run_stage(
        run,
        "transfer",
        {"seed": run.config.seed, **run.config.transfer.model_dump(mode="json")},
        {
            "images": set_fingerprint(run, "transfer"),
            "labels": str(run.result("cluster")["fingerprint"]),
        },
        partial(_train, run),
        redo=redo,
    )


def _train(run: Run, folder: Path) -> Outcome:
    with np.load(run.stage("cluster") / "labels.npz") as file:
        labels = file["labels"].astype(np.int64)
    trained = train_classifier(
        run,
        folder,
        open_set(run, "transfer"),
        labels,
        n_classes=run.config.cluster.n_clusters,
        name="transfer",
    )
    return Outcome(
        fingerprint=sha256_file(folder / "weights.safetensors"),
        outputs={"weights": "weights.safetensors"},
        summary={
            **trained.metrics,
            "steps": trained.summary.steps,
            "feed_wait": trained.summary.loader_wait,
        },
        throughput=("images/s", trained.summary.images_per_second),
        seconds=trained.summary.seconds,
    )
