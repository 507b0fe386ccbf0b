"""Stage 7: fine-tune the target network and baselines on PASCAL VOC.

The protocols are classification, detection and segmentation. Each protocol with a configured folder
is a stage of its own, so that one protocol can be repeated without the others.
"""

import logging
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from ktfast.config import result_options
from ktfast.durable import sha256_json, write_sealed
from ktfast.errors import ConfigError
from ktfast.evaluation.results import VocRow, VocSummary
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.stage_result import Outcome, complete_stage, stored_row
from ktfast.pipeline.steps.baselines import train_baseline
from ktfast.pipeline.steps.fine_tune_voc import MEASURES, PROTOCOLS, Sets, open_proposals, open_sets

logger = logging.getLogger(__name__)


def execute(run: RunFolder, *, redo: bool = False) -> dict[str, dict[str, Any]]:
    """Fine-tune every model by every protocol with a folder; return the results by protocol."""
    config = run.config
    if not config.voc.protocols():
        raise ConfigError(
            "no PASCAL VOC folder is set: give voc.classification.folder, voc.detection.folder or "
            "voc.segmentation.folder"
        )
    models: dict[str, str] = {}
    for name in config.voc.models:
        if name == "transfer":
            models[name] = str(run.result("transfer")["fingerprint"])
        elif name != "random":
            models[name] = str(train_baseline(run, name)["fingerprint"])
    results = {}
    for protocol in config.voc.protocols():
        sets = open_sets(config, protocol)
        inputs = {**models, "train": sets.train.fingerprint, "test": sets.test.fingerprint}
        if protocol == "detection":
            proposals = open_proposals(config.voc.detection, sets)
            inputs |= {"train_proposals": proposals[0].fingerprint}
            inputs |= {"test_proposals": proposals[1].fingerprint}
        section = getattr(config.voc, protocol)
        settings = {
            "seed": config.seed,
            "models": list(config.voc.models),
            "data_init": config.voc.data_init,
            "target": config.transfer.model_dump(mode="json", exclude={"training", "balanced"}),
            **result_options(section),
        }
        work = partial(_fine_tune, run, protocol, sets)
        results[protocol] = complete_stage(
            run, f"voc/{protocol}", settings, inputs, work, redo=redo
        )
    return results


def _fine_tune(run: RunFolder, protocol: str, sets: Sets, folder: Path) -> Outcome:
    models: dict[str, VocRow] = {}
    for name in run.config.voc.models:
        # Each row is stored at once, so that an interrupted call loses no finished model.
        path, checkpoints = folder / f"{name}.json", folder / f"training-{name}"
        stored = stored_row(path)
        if stored is None:
            logger.info("voc: %s, %s", protocol, name)
            stored = PROTOCOLS[protocol](run, sets, name, checkpoints).to_json()
            write_sealed(path, stored)
        if checkpoints.exists():
            shutil.rmtree(checkpoints)
        models[name] = VocRow.from_json(stored)
        score = models[name].score
        shown = "not defined" if score is None else f"{100 * score:.1f} %"
        logger.info("voc: %s, %s: %s %s", protocol, name, MEASURES[protocol], shown)
    images = {"train": sets.train.n, "test": sets.test.n}
    summary = VocSummary(MEASURES[protocol], models, images).to_json()
    return Outcome(fingerprint=sha256_json(summary), outputs={"models": "*.json"}, summary=summary)
