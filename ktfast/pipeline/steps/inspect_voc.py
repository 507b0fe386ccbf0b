"""Inspect all files of PASCAL VOC before a training, so that a fault is not found hours later.

Every photograph and mask is decoded once. `voc/inspected.json` in the run folder remembers which
splits have no fault.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ktfast.durable import read_sealed, sha256_json, write_sealed
from ktfast.errors import DataError
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.steps.fine_tune_voc import Sets
from ktfast.voc.inspection import faults_of, refuse

logger = logging.getLogger(__name__)

USES: dict[str, Literal["classes", "boxes", "masks"]] = {
    "classification": "classes",
    "detection": "boxes",
    "segmentation": "masks",
    "svm": "classes",
}
"""What each protocol uses of the annotations."""


def inspect_voc(run: RunFolder, protocols: Mapping[str, Sets]) -> None:
    """Inspect the training and test halves of protocols.

    Parameters
    ----------
    run : RunFolder
        The run.
    protocols : mapping of str to Sets
        The photographs of each protocol.

    Raises
    ------
    DataError
        Files have faults. The message names the first 10 faults of all halves.
    """
    path = run.folder / "voc" / "inspected.json"
    whole, faults = _remembered(path), list[str]()
    for protocol, sets in protocols.items():
        for half in (sets.train, sets.test):
            key = sha256_json([half.fingerprint, USES[protocol], half.pixel_limit])
            if key in whole:
                continue
            logger.info("voc: inspecting %d photographs for %s", half.n, protocol)
            found = faults_of(half, uses=USES[protocol], n_threads=run.config.threads or None)
            faults += [fault for fault in found if fault not in faults]
            if not found:
                whole[key] = {"protocol": protocol, "photographs": half.n}
    if whole:
        path.parent.mkdir(exist_ok=True)
        write_sealed(path, whole)
    refuse(faults)


def _remembered(path: Path) -> dict[str, Any]:
    """The splits without a fault; none if the file is missing or damaged."""
    try:
        return read_sealed(path, "the photographs are inspected again")
    except DataError:
        return {}
