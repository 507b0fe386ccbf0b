"""Stage 7: fine-tune the target network and baselines on PASCAL VOC.

The protocols are classification, detection, segmentation, and support vector machines on a frozen
layer. Each protocol with a configured folder is a stage of its own, so that one protocol can be
repeated without the others.
"""

import logging
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from ktfast.config import result_options
from ktfast.durable import sha256_json, write_sealed
from ktfast.errors import ConfigError, shown
from ktfast.evaluation.copies import Copies
from ktfast.evaluation.voc_results import VocRow, VocSummary
from ktfast.images.file_records import FileHashes
from ktfast.pipeline.jobs import spread
from ktfast.pipeline.question import Input, Question
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.stage_result import Outcome, complete_stage, stored_row
from ktfast.pipeline.steps.baselines import train_baseline
from ktfast.pipeline.steps.copied_images import copied_photographs, log
from ktfast.pipeline.steps.fine_tune_voc import (
    MEASURES,
    PROTOCOLS,
    Sets,
    check_protocol,
    open_proposals,
    open_sets,
)
from ktfast.pipeline.steps.inspect_voc import inspect_voc
from ktfast.pipeline.steps.prepared_images import HASHES
from ktfast.pipeline.steps.probed_models import model_input
from ktfast.pipeline.steps.questions import DEFAULTS, made_by
from ktfast.pipeline.steps.svm_voc import check_svm, train_svm

logger = logging.getLogger(__name__)

METHODS = {**PROTOCOLS, "svm": train_svm}
"""What trains and tests a model, by protocol."""
# Options of the stage transfer that change neither the target's architecture nor its images.
_NOT_OF_VOC = ("training", "balanced", "area", "color_jitter")


def execute(run: RunFolder, *, redo: bool = False) -> dict[str, dict[str, Any]]:
    """Fine-tune every model by every protocol with a folder; return the results by protocol."""
    config = run.config
    if not config.voc.protocols():
        raise ConfigError(
            "no PASCAL VOC folder is set: give voc.classification.folder, voc.detection.folder, "
            "voc.segmentation.folder or voc.svm.folder"
        )
    for protocol in config.voc.protocols():
        check_protocol(run, protocol)
        if protocol == "svm":
            check_svm(run)
    hashes = FileHashes(run.folder / HASHES)
    opened = {protocol: open_sets(config, protocol, hashes) for protocol in config.voc.protocols()}
    inspect_voc(run, opened)
    for name in config.voc.models:
        if name == "transfer":
            run.result("transfer")
        elif name in ("pretext", "labels"):
            train_baseline(run, name)
    results = {}
    for protocol, sets in opened.items():
        copies = copied_photographs(protocol, sets, hashes)
        for found in copies:
            log(found)
        work = partial(_fine_tune, run, protocol, sets, copies)
        results[protocol] = complete_stage(
            run, f"voc/{protocol}", _question(run, protocol, sets), work, redo=redo
        )
    return results


def _question(run: RunFolder, protocol: str, sets: Sets) -> Question:
    """Build the question of a protocol."""
    config, section = run.config, getattr(run.config.voc, protocol)
    target = result_options(config.transfer)
    settings = {
        "seed": config.seed,
        "models": list(config.voc.models),
        "data_init": config.voc.data_init,
        "target": {k: v for k, v in target.items() if k not in _NOT_OF_VOC},
        **result_options(section),
    }
    if protocol == "svm":
        del settings["data_init"]
        settings["short_side"] = config.data.short_side
    defaults = {
        "target": DEFAULTS.transfer.model_dump(mode="json"),
        **getattr(DEFAULTS.voc, protocol).model_dump(mode="json"),
    }
    inputs: dict[str, Input] = {}
    for name in config.voc.models:
        if name in config.evaluate.models:
            inputs[f"model {name}"] = model_input(config, name)
        elif name != "random":
            stage = name if name == "transfer" else f"baseline_{name}"
            inputs[name] = made_by(run, stage, f"the weights of {stage}")
    for role, images in (("train", sets.train), ("test", sets.test)):
        text = f"the photographs and annotations of {role} in {shown(images.folder)}"
        earlier = (images.fingerprint_by_size,)
        inputs[role] = Input(images.fingerprint, text, earlier=earlier)
    if protocol == "detection":
        paths = config.voc.detection.train_proposals, config.voc.detection.test_proposals
        proposals = open_proposals(config.voc.detection, sets)
        for role, path, found in zip(("train", "test"), paths, proposals, strict=True):
            text = f"the proposals in {shown(path)}" if path else "windows as proposals"
            inputs[f"{role}_proposals"] = Input(found.fingerprint, text)
    return Question(f"voc.{protocol}", settings, inputs, defaults)


def _fine_tune(
    run: RunFolder, protocol: str, sets: Sets, copies: list[Copies], folder: Path
) -> Outcome:
    names = run.config.voc.models
    rows = spread(run, _stored_row, [(protocol, sets, name, folder) for name in names])
    models: dict[str, VocRow] = dict(zip(names, rows, strict=True))
    for name, row in models.items():
        shown = "not defined" if row.score is None else f"{100 * row.score:.1f} %"
        logger.info("voc: %s, %s: %s %s", protocol, name, MEASURES[protocol], shown)
    images = {"train": sets.train.n, "test": sets.test.n}
    summary = VocSummary(MEASURES[protocol], models, images, copies).to_json()
    return Outcome(fingerprint=sha256_json(summary), outputs={"models": "*.json"}, summary=summary)


def _stored_row(run: RunFolder, protocol: str, sets: Sets, name: str, folder: Path) -> VocRow:
    """Fine-tune and test a model, or read the row that an interrupted call has stored."""
    # Each row is stored at once, so that an interrupted call loses no finished model.
    path, checkpoints = folder / f"{name}.json", folder / f"training-{name}"
    stored = stored_row(path)
    if stored is None:
        logger.info("voc: %s, %s", protocol, name)
        stored = METHODS[protocol](run, sets, name, checkpoints).to_json()
        write_sealed(path, stored)
    if checkpoints.exists():
        shutil.rmtree(checkpoints)
    return VocRow.from_json(stored)
