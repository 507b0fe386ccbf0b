"""Compare finished runs: read the run folders, and make one table per group of comparable rows."""

import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ktfast.errors import DataError, InputError, shown
from ktfast.report.comparison import text
from ktfast.report.comparison.cells import MEASURES, PROBES, Cell, read_cells
from ktfast.report.comparison.parts import Part, separate
from ktfast.report.comparison.table import Table, table_of
from ktfast.report.formats import with_others
from ktfast.report.reading import RunReader
from ktfast.report.voc import PROTOCOLS


@dataclass(frozen=True)
class Compared:
    """The tables of one part of a comparison.

    Attributes
    ----------
    part : Part
        The rows.
    tables : list of Table
        One table per measure that the runs have; the linear probe first.
    """

    part: Part
    tables: list[Table]


@dataclass(frozen=True)
class Comparison:
    """A comparison of runs.

    Attributes
    ----------
    parts : list of Compared
        Parts of the comparison. Rows of different parts are not comparable.
    notes : list of str
        What was left out or could not be read.
    """

    parts: list[Compared]
    notes: list[str] = field(default_factory=list)

    def lines(self, measure: str = "linear") -> list[str]:
        """Lines for a terminal of 80 columns.

        Parameters
        ----------
        measure : str
            The measure of the probes: "linear", "linear_top1" or "knn".

        Returns
        -------
        lines : list of str
            The tables and the notes.
        """
        lines: list[str] = []
        for number, compared in enumerate(self.parts, 1):
            lines += _wrapped(text.heading(compared.part, number, len(self.parts)))
            for table in compared.tables:
                if table.measure == measure or table.measure not in PROBES:
                    lines += [*text.terminal(table), ""]
                    lines += _wrapped(text.conclusion(table))
                    lines += [line for note in text.remarks(table) for line in _wrapped(note)]
            lines.append("")
        return lines + [line for note in self.notes for line in _wrapped(f"Note: {note}")]


def compare_runs(
    folders: Sequence[str | os.PathLike[str]],
    *,
    layer: str | None = None,
    notes: Sequence[str] = (),
) -> Comparison:
    """Compare finished runs.

    Runs that differ only in the seed form one row. Baselines of the runs form rows of their own. If
    the test images, the labelled training images or the options of the probes differ, the rows go
    into separate parts. Every protocol of PASCAL VOC is a part of its own.

    Parameters
    ----------
    folders : sequence of path
        Run folders with a finished stage evaluate or voc. A folder that lacks both stages, or is no
        run folder, is left out, with a note.
    layer : str, optional
        Layer whose accuracy is shown. None: for each row the layer with the highest accuracy on
        held-out training images.
    notes : sequence of str
        Sentences that the comparison shows before its own notes.

    Returns
    -------
    comparison : Comparison
        The tables.

    Raises
    ------
    InputError
        No folder holds a finished stage evaluate or voc, a folder does not exist, or no network was
        probed at the layer.
    """
    found: list[str] = list(notes)
    cells: list[Cell] = []
    readers: list[RunReader] = []
    for folder in dict.fromkeys(map(_absolute, folders)):
        if not Path(folder).is_dir():
            raise DataError(f"there is no run folder {shown(folder)}; give the folder of a run")
        try:
            readers.append(RunReader(Path(folder)))
            cells += read_cells(readers[-1])
        except DataError as error:
            found.append(f"{error}.")
    if not cells:
        raise InputError(
            "no run can be compared: " + " ".join(found)
            if found
            else "give at least one run folder to compare"
        )
    known = dict.fromkeys(
        name for cell in cells for measure in PROBES for name in cell.scores.get(measure, {})
    )
    if layer is not None and layer not in known:
        raise InputError(f"no run has probed layer {layer!r}; there are {', '.join(known)}")
    parts = [
        Compared(part, [t for measure in MEASURES if (t := table_of(part, measure, layer))])
        for part in separate(cells, found)
    ]
    found += _stale_notes(cells)
    found += _copies_notes(readers)
    found += _machine_note(readers)
    found += [f"{shown(reader.folder)}: {note}" for reader in readers for note in reader.notes]
    return Comparison(parts, found)


def _absolute(folder: str | os.PathLike[str]) -> str:
    return os.path.abspath(folder)


def _stale_notes(cells: Sequence[Cell]) -> list[str]:
    stale = {(cell.run.folder, cell.stage): cell.stale for cell in cells if cell.stale}
    notes = []
    for (folder, stage), reason in stale.items():
        command = stage.partition("/")[0]
        notes.append(
            f"{stage} of {folder} is stale, because {reason}; its rows have no rank. Run "
            f"`ktfast {command} --redo {command}` on it."
        )
    return notes


def _copies_notes(readers: Sequence[RunReader]) -> list[str]:
    """Name the runs that were tested on copies of images that they learnt from."""
    notes: dict[str, list[str]] = {}
    for reader in readers:
        summaries = (reader.evaluation(), *map(reader.voc, PROTOCOLS))
        for copies in [c for summary in summaries if summary is not None for c in summary.copies]:
            if copies.labelled:
                notes.setdefault(copies.sentence(), []).append(shown(reader.folder))
    return [f"{with_others(folders)}: {note}" for note, folders in notes.items()]


def _machine_note(readers: Sequence[RunReader]) -> list[str]:
    known = [reader.environment() or {} for reader in readers]
    machines = {
        (str(e.get("processor")), str(e.get("device")), str(e.get("threads"))) for e in known
    }
    if len(machines) < 2:
        return []
    return ["The runs come from different machines or devices, so their times differ for that too."]


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(line, text.WIDTH, break_on_hyphens=False) or [""]
