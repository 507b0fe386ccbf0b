"""Probes that the stage evaluate has stored: read them again, and compute only what is missing.

The file of a network's probes holds the question that they answer: the weights, the images, and the
options that change every probe. Layers, shares of the labels and draws are no part of the question,
because the file may hold the probes of any number of them.
"""

import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from ktfast.durable import describe_file, is_whole, part, replacing, write_sealed
from ktfast.errors import DataError, shown
from ktfast.evaluation.results import ProbeRow
from ktfast.pipeline.question import as_json
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.shared_results import PROBES, SharedEntry, shared_entry
from ktfast.pipeline.stage_result import stored_row
from ktfast.pipeline.steps.labelled_sets import LabelledSet
from ktfast.pipeline.steps.probe_layers import ProbedModel, missing_probes, probe_model, shares_of
from ktfast.pipeline.steps.probe_teacher import TEACHER, probe_teacher
from ktfast.pipeline.steps.probed_models import probed_network
from ktfast.pipeline.steps.questions import probe_question, probes_teacher, teacher_probe_question
from ktfast.readers import read_npz

logger = logging.getLogger(__name__)


def stored_probes(run: RunFolder, folder: Path, name: str, images: LabelledSet) -> ProbeRow:
    """Give the probes of a network that the options ask for.

    Parameters
    ----------
    run : RunFolder
        The run.
    folder : Path
        Folder of the stage evaluate.
    name : str
        Name of the network.
    images : LabelledSet
        Training and test images.

    Returns
    -------
    row : ProbeRow
        Accuracies of the layers and shares of the labels that are asked for.
    """
    config, network = run.config, probed_network(run, name)
    asked: dict[str, Any] = as_json(probe_question(run, name, images))
    known = _read(folder, images.file_of(name), asked)
    shares = [(share.fraction, share.count) for share in shares_of(config)]
    draws = config.evaluate.label_draws
    if missing_probes(config, network.layers, None if known is None else known.row):
        parts = as_json([asked, network.layers, shares, draws])
        # The student of a run is its own. Baselines and files are the same in several runs.
        alone = name == "transfer" or known is not None
        anew = not run.redone.isdisjoint({"evaluate", f"baseline_{name}"})
        shared = shared_entry(run, PROBES, parts, anew=anew)
        with nullcontext() if alone else shared as entry:
            probed = _take(folder, images.file_of(name), asked, entry)
            if probed is None:
                logger.info("evaluate: probing %s", images.file_of(name))
                probed = probe_model(run, network, images, known)
                _write(folder, images.file_of(name), asked, probed, entry)
            known = probed
    assert known is not None
    return known.row.of(network.layers, shares, draws)


def stored_teacher(run: RunFolder, folder: Path) -> ProbeRow | None:
    """Give the probe of the teacher's own features.

    Parameters
    ----------
    run : RunFolder
        The run.
    folder : Path
        Folder of the stage evaluate.

    Returns
    -------
    row : ProbeRow or None
        Accuracies of the teacher's features; None if the options do not ask for them, or if the
        features do not fit into memory.
    """
    if not probes_teacher(run.config):
        return None
    asked: dict[str, Any] = as_json(teacher_probe_question(run))
    known = _read(folder, TEACHER, asked)
    if known is None:
        anew = "evaluate" in run.redone
        with shared_entry(run, PROBES, as_json([TEACHER, asked]), anew=anew) as entry:
            known = _take(folder, TEACHER, asked, entry)
            if known is None and (known := probe_teacher(run)) is not None:
                _write(folder, TEACHER, asked, known, entry)
    return None if known is None else known.row


def _places(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"probe-{name}.json", folder / f"predictions-{name}.npz"


def _read(folder: Path, name: str, asked: dict[str, Any]) -> ProbedModel | None:
    """Read stored probes; None if there are none, or if they answer another question.

    Probes that an earlier version of ktfast stored hold no question, and are made again.
    """
    path, predictions = _places(folder, name)
    stored = stored_row(path)
    if stored is None or stored.get("asked") != asked:
        return None
    if not is_whole(folder, stored["predictions"], hashed=True):
        logger.warning("%s is damaged or missing, and is made again", shown(predictions))
        return None
    try:
        arrays = read_npz(predictions, remedy="it is made again")
    except DataError as error:
        logger.warning("%s", error)
        return None
    return ProbedModel(ProbeRow.from_json(stored), arrays)


def _take(
    folder: Path, name: str, asked: dict[str, Any], entry: SharedEntry | None
) -> ProbedModel | None:
    """Take the probes that another run has stored; None if there are none."""
    if entry is None or entry.take(folder) is None:
        return None
    logger.info("evaluate: the probes of %s are taken from %s", name, shown(entry.place))
    return _read(folder, name, asked)


def _write(
    folder: Path,
    name: str,
    asked: dict[str, Any],
    probed: ProbedModel,
    entry: SharedEntry | None,
) -> None:
    path, predictions = _places(folder, name)
    with replacing(predictions) as file:
        np.savez_compressed(file, **probed.predictions)  # type: ignore[arg-type]
    stored = {**probed.row.to_json(), "predictions": part(predictions), "asked": asked}
    write_sealed(path, stored)
    if entry is not None:
        files = {found.name: describe_file(found) for found in (path, predictions)}
        entry.keep(folder, {"files": files})
