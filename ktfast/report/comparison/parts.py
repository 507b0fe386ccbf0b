"""Separate networks that cannot be compared, and group networks that differ only in the seed.

Accuracies are comparable if the test images, the labelled training images and the options of the
probes agree. Networks that are not comparable go into different parts, each with its own ranks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ktfast.durable import sha256_json
from ktfast.report.comparison.cells import Cell
from ktfast.report.formats import MODEL_NAMES

_SECTIONS = ("features", "pretext", "cluster", "transfer")


@dataclass(frozen=True)
class Group:
    """One row of a comparison: networks that differ only in the seed.

    Attributes
    ----------
    name : str
        Printed name, unique in its part.
    model : str
        "transfer", "random", "pretext", "labels", "teacher" or a name of `evaluate.models`.
    cells : list of Cell
        One network per seed.
    """

    name: str
    model: str
    cells: list[Cell]

    @property
    def stale(self) -> str:
        """Why the accuracies are stale; empty if they are not."""
        return self.cells[0].stale


@dataclass(frozen=True)
class Part:
    """Rows that may be compared with each other.

    Attributes
    ----------
    groups : list of Group
        The rows.
    task : str
        "" for the probes of the stage evaluate, else the protocol of the stage voc.
    first : int
        Number of the first part with this task, from 1.
    reasons : list of str
        Differences between the protocols of this part and of the first part with this task; empty
        for the first.
    images : int or None
        Number of test images.
    """

    groups: list[Group]
    task: str
    first: int
    reasons: list[str]
    images: int | None


def separate(cells: Sequence[Cell], notes: list[str]) -> list[Part]:
    """Sort networks into parts, and the networks of each part into rows.

    Parameters
    ----------
    cells : sequence of Cell
        The networks of all runs.
    notes : list of str
        Receives a sentence for each network that is left out.

    Returns
    -------
    parts : list of Part
        The parts: the probes first, then the protocols of the stage voc, each with the part with
        the most runs first.
    """
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        found.setdefault(sha256_json(cell.protocol), []).append(cell)
    tasks = list(dict.fromkeys(cell.protocol["task"] for cell in cells))
    tasks.sort(key=bool)  # the probes, whose task is empty, first
    ordered = sorted(
        found.values(),
        key=lambda part: (
            tasks.index(part[0].protocol["task"]),
            -len({cell.run.folder for cell in part}),
        ),
    )
    parts: list[Part] = []
    first: dict[str, tuple[int, dict[str, Any]]] = {}
    for number, part in enumerate(ordered, 1):
        protocol = part[0].protocol
        start, other = first.setdefault(protocol["task"], (number, protocol))
        groups = _groups(part, cells, notes)
        reasons = _reasons(other, protocol)
        parts.append(Part(groups, protocol["task"], start, reasons, part[0].images))
    return parts


def _reasons(first: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """List the differences of two protocols, without fingerprints."""
    reasons = []
    for name in dict.fromkeys([*first, *other]):
        before, now = first.get(name), other.get(name)
        if before == now:
            continue
        if name.endswith(("images", "photographs", "proposals")):
            reasons.append(f"the {name} differ")
        else:
            reasons.append(f"{name} is {now!r} instead of {before!r}")
    return reasons


def _groups(cells: Sequence[Cell], everything: Sequence[Cell], notes: list[str]) -> list[Group]:
    rows: dict[str, dict[object, Cell]] = {}
    for cell in cells:
        seeds = rows.setdefault(cell.key, {})
        token = cell.run.folder if cell.seed is None else cell.seed
        if (other := seeds.setdefault(token, cell)) is cell:
            continue
        if cell.model == "transfer" or other.scores != cell.scores:
            task = f" on PASCAL VOC {cell.protocol['task']}" if cell.protocol["task"] else ""
            notes.append(
                f"{_model_name(cell.model)} of {cell.run.folder}{task} is left out: "
                f"{other.run.folder} has the same options and the same seed "
                f"{cell.seed}{_contrast(cell, other)}."
            )
    found = [list(seeds.values()) for seeds in rows.values()]
    return [
        Group(name, row[0].model, sorted(row, key=lambda cell: cell.seed or 0))
        for name, row in zip(_row_names(found, everything), found, strict=True)
    ]


def _contrast(cell: Cell, other: Cell) -> str:
    """Say how the scores of two networks with equal options and seeds differ."""
    if cell.scores == other.scores:
        return ""
    for measure in cell.scores.keys() & other.scores.keys():
        ours, theirs = cell.scores[measure], other.scores[measure]
        if any(ours[layer] != theirs[layer] for layer in ours.keys() & theirs.keys()):
            return ", and other accuracies"
    if cell.scores.keys() != other.scores.keys():
        return ", and other measures"
    return ", and was probed at other layers"


def _row_names(rows: Sequence[list[Cell]], everything: Sequence[Cell]) -> list[str]:
    """Name each row by the options in which networks of the same model differ, over all parts."""
    names = []
    for row in rows:
        same = [cell for cell in everything if cell.model == row[0].model]
        words = _differing(row[0], same)
        if row[0].model != "transfer":
            words.insert(0, _model_name(row[0].model))
        names.append(", ".join(words) or "transfer")
    repeated = {name for name in names if names.count(name) > 1}
    return [
        f"{name} ({row[0].run.folder.name})" if name in repeated else name
        for name, row in zip(names, rows, strict=True)
    ]


def _model_name(model: str) -> str:
    """Name of a model without the objective, in which the networks of a comparison may differ."""
    return MODEL_NAMES.get(model, model).partition(" (")[0]


def _differing(cell: Cell, others: Sequence[Cell]) -> list[str]:
    """Spell the options of a network that are not the same in all networks of its model."""
    named = cell.model in ("transfer", "teacher") and all(other.names for other in others)
    if named:
        # Networks that learnt no clusters have no number of clusters.
        values = {k: {str(o.names[k]) for o in others if k in o.names} for k in cell.names}
        keys = [key for key in cell.names if len(values[key]) > 1] or list(cell.names)[:1]
        return [_spell(key, cell.names[key]) for key in keys]
    if student := _student_of(cell, others):
        return [student]
    # Options that only some networks have, such as those of the puzzle, follow from other options.
    varied = _varied(cell, others, _shared(cell, others))
    alike = [o for o in others if all(str(o.settings[k]) == str(cell.settings[k]) for k in varied)]
    # Networks with one objective share options that the other objectives do not have.
    varied += _varied(cell, alike, _shared(cell, alike)) if varied else []
    varied = varied or _varied(cell, others, list(cell.settings))
    varied.sort(key=_section)
    return [_spell(key.rpartition(".")[2], cell.settings[key]) for key in varied[:4]]


def _student_of(cell: Cell, others: Sequence[Cell]) -> str:
    """Name that a grid gives a baseline's student; empty unless each student has one baseline."""
    keys: dict[str, set[str]] = {}
    for other in others:
        keys.setdefault(str(other.names.get("student", "")), set()).add(other.key)
    found = [key for each in keys.values() for key in each]
    if "" in keys or len(keys) < 2 or len(found) != len(keys) or len(set(found)) != len(found):
        return ""
    return str(cell.names["student"])


def _shared(cell: Cell, others: Sequence[Cell]) -> list[str]:
    """Options that all networks have."""
    return [key for key in cell.settings if all(key in other.settings for other in others)]


def _varied(cell: Cell, others: Sequence[Cell], keys: Sequence[str]) -> list[str]:
    """Options among `keys` whose values differ."""
    return [key for key in keys if len({str(other.settings.get(key)) for other in others}) > 1]


def _section(key: str) -> int:
    section = key.partition(".")[0]
    return _SECTIONS.index(section) if section in _SECTIONS else len(_SECTIONS)


def _spell(name: str, value: object) -> str:
    if name in ("teacher", "student", "source", "objective"):
        return str(value)
    return f"{name}={value}"
