"""What a checkpoint records about its training, so that only the same training resumes from it."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import torch

from ktfast.config import TrainingConfig, result_options
from ktfast.images.feeds.base import Feed


def question_of(
    feed: Feed, config: TrainingConfig, name: str, seed: int, identity: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Settings and data that determine a training's result, as JSON values.

    A resumed training must share all of them with the training that wrote the checkpoint.
    """
    plan = dataclasses.asdict(feed.plan)
    for harmless in ("device", "n_threads"):
        plan.pop(harmless)
    for name in ("balance", "window"):
        if (order := plan.pop(name)) is not None:
            plan[name] = order.sha256
    question = {
        "training": result_options(config),
        "name": name,
        "seed": seed,
        "feed": {**plan, "images": feed.source.fingerprint},
        "identity": dict(identity or {}),
    }
    as_read_back: dict[str, Any] = json.loads(json.dumps(question))
    return as_read_back


def circumstances_of(feed: Feed, device: torch.device) -> dict[str, Any]:
    """Facts of machine and software that change the last bits of a result, but not its quality."""
    return {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "feed": feed.kind,
    }
