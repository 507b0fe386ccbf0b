"""A small training on real photographs, in this process or in a child that tests can kill.

As a script, this file reads one folder per line. For each folder it starts a child that trains
there, prints the child's process id, and prints the child's exit code when the child ends. The
children share the imports of their parent, so that each child starts fast.
"""

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from ktfast.config import TrainingConfig
from ktfast.models import AlexNet, initialize
from ktfast.training.classification import ClassificationTask
from ktfast.training.loop import Interrupted, TrainingSummary, train
from support.photographs import MemoryFeed, squares

CLASSES = 5
STEPS = 21


def toy_config(**options: Any) -> TrainingConfig:
    """`STEPS` steps in 3.5 epochs, with warm-up and a falling learning rate."""
    values = {
        "epochs": 3.5,
        "batch_size": 12,
        "learning_rate": 0.01,
        "warmup": 0.1,
        "log_every": 4,
        "precision": "float32",  # on every machine
        "checkpoint_minutes": 60.0,
    }
    return TrainingConfig(**{**values, **options})


def toy_feed(batch_size: int = 12) -> MemoryFeed:
    return MemoryFeed(squares(64, 44), batch_size)


def toy_task(feed: MemoryFeed, width: float = 0.125, dropout: float = 0.5) -> ClassificationTask:
    """Sort photographs into five classes by their brightness."""
    torch.manual_seed(3)
    model = AlexNet(CLASSES, width=width, image_size=40, dropout=dropout)
    initialize(model)
    brightness = feed.images.float().mean((1, 2, 3))
    labels = brightness.argsort().argsort() * CLASSES // feed.n
    return ClassificationTask(model, labels, crop=40, seed=1)


def toy_train(
    folder: Path, config: TrainingConfig | None = None, **options: Any
) -> tuple[TrainingSummary, str]:
    """Train in `folder`; return the summary and the SHA-256 of the weights."""
    feed = toy_feed()
    task = toy_task(feed)
    summary = train(
        task,
        feed,
        config or toy_config(),
        folder,
        name="toy",
        seed=2,
        metrics_path=folder / "metrics.jsonl",
        **options,
    )
    return summary, weights_hash(task.model)


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def lasting(row: dict) -> dict:
    """The values of a row that do not depend on the clock."""
    return {k: v for k, v in row.items() if k not in ("time", "images_per_second", "loader_wait")}


def weights_hash(model: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode() + value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _child(folder: Path) -> int:
    config = toy_config(epochs=6.0, checkpoint_minutes=1e-6)
    try:
        summary, digest = toy_train(folder, config, progress=False)
    except Interrupted as stop:
        return 128 + stop.signal
    assert summary.finished
    (folder / "weights.sha256").write_text(digest)
    return 0


def _serve() -> None:
    torch.set_num_threads(1)
    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os._exit(_child(Path(line.strip())))
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    _serve()
