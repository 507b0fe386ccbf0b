"""Do the runs of a grid in run folders below one folder. The runs share their common results."""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ktfast.durable import write_sealed
from ktfast.errors import ConfigError, InputError, shown
from ktfast.models import initialize
from ktfast.pipeline.feasibility import check_networks
from ktfast.pipeline.grid.cells import Cell
from ktfast.pipeline.run_folder import RunFolder, open_run
from ktfast.pipeline.runner import run
from ktfast.pipeline.shared_results import PROBES, SHARED_STAGES, forget
from ktfast.pipeline.stage_result import discard
from ktfast.pipeline.steps.labelled_sets import labelled_sets
from ktfast.pipeline.steps.networks import pretext_preprocessing, pretext_trunk, save_network
from ktfast.report.comparison.networks import ROW
from ktfast.report.formats import with_others

logger = logging.getLogger(__name__)

RUNS, SHARED = "runs", "shared"
"""Folders below the folder of a grid: the run folders, and the results that they share."""


@dataclass
class GridResult:
    """The outcome of the runs of a grid.

    Attributes
    ----------
    folders : list of Path
        Run folders of the finished cells.
    failures : list of str
        One sentence for the cells that could not be run for one reason.
    """

    folders: list[Path] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def run_cells(
    cells: Sequence[Cell], folder: Path, *, trust_source: bool, redo: Collection[str] = ()
) -> GridResult:
    """Run every cell that is not finished yet.

    If the options or inputs of a cell are wrong, the other cells still run.

    Parameters
    ----------
    cells : sequence of Cell
        The runs.
    folder : Path
        Receives the run folders in `runs`, and the results that the runs share in `shared`.
    trust_source : bool
        Whether the functions and classes that `features.source` and `pretext.task` name may be
        imported and called.
    redo : collection of str
        Stages whose results are removed in every run and made again.

    Returns
    -------
    result : GridResult
        The finished runs, and why the other runs failed.

    Raises
    ------
    InputError
        `folder` is a file, the teacher or a network of a cell is impossible, or no run would have a
        score to compare.
    """
    for cell in cells:
        try:
            check_networks(RunFolder(folder / RUNS / cell.name, cell.config, trust_source))
        except InputError as error:
            raise type(error)(f"{cell.name}: {error}") from error
    if not any(labelled_sets(cell.config) or cell.config.voc.protocols() for cell in cells):
        raise ConfigError(
            "the runs could not be compared, because none has labelled test images or a folder of "
            "PASCAL VOC; give data.test"
        )
    _discard(cells, folder, redo)
    result = GridResult()
    failed: dict[str, list[str]] = {}  # names of the cells by the problem
    for number, cell in enumerate(cells, 1):
        place = folder / RUNS / cell.name
        logger.info("run %d of %d: %s", number, len(cells), shown(place))
        try:
            place.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise InputError(f"{shown(folder)} is a file; give a folder for the grid") from error
        if cell.names:
            write_sealed(place / ROW, {"names": cell.names, "control": cell.control})
        try:
            if cell.untrained:
                _make_untrained(cell)
            run(cell.config, place, trust_source=trust_source, shared=folder / SHARED)
        except InputError as error:
            logger.error("%s: %s", cell.name, error)
            failed.setdefault(str(error), []).append(cell.name)
        else:
            result.folders.append(place)
    for problem, names in failed.items():
        result.failures.append(f"{with_others(names)} could not be run: {problem}.")
    return result


def _discard(cells: Sequence[Cell], folder: Path, stages: Collection[str]) -> None:
    """Remove the results of stages from all runs, and from the results that the runs share.

    The runs then make these results as if for the first time, and what they share only once.
    """
    if not stages:
        return
    kinds = set(stages).intersection(SHARED_STAGES)
    if any(stage == "evaluate" or stage.startswith("baseline") for stage in stages):
        kinds.add(PROBES)
    for kind in kinds:
        forget(folder / SHARED / kind)
    for cell in cells:
        place = folder / RUNS / cell.name
        if place.is_dir():
            with open_run(place, cell.config):
                for stage in stages:
                    discard(place / stage)


def _make_untrained(cell: Cell) -> None:
    """Write the weights of an untrained teacher, unless the file exists."""
    path = cell.config.features.weights
    assert path is not None
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cell.config.seed)
        trunk = pretext_trunk(cell.config.pretext)
        initialize(trunk)
    save_network(trunk, path, pretext_preprocessing(cell.config))
