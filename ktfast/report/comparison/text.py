"""Spell a comparison as text: tables for a terminal of 80 columns, Markdown tables, sentences."""

import textwrap
from collections.abc import Sequence

from ktfast.evaluation.paired import Interval
from ktfast.report.comparison.cells import PROBES
from ktfast.report.comparison.parts import Part
from ktfast.report.comparison.table import Row, Table, short_count, short_time
from ktfast.report.formats import duration

WIDTH = 80
# Widths of the columns rank, row, layer, score, difference, time and size. The first _LEFT columns
# are aligned to the left.
_WIDTHS = (4, 23, 9, 11, 19, 4, 4)
_LEFT = 3


def heading(part: Part, number: int, total: int) -> str:
    """Name a part of a comparison, and say why it is separate.

    Parameters
    ----------
    part : Part
        The part.
    number, total : int
        Position of the part, from 1, and number of parts.

    Returns
    -------
    heading : str
        One sentence.
    """
    images = "an unknown number of" if part.images is None else f"{part.images:,}"
    text = f"Part {number} of {total}: " if total > 1 else ""
    text += f"PASCAL VOC {part.task}: " if part.task else ""
    rows = "1 row" if len(part.groups) == 1 else f"{len(part.groups)} rows"
    text += f"{rows}, measured on {images} test images."
    if part.reasons:
        text += f" Not comparable with part {part.first}, because {'; '.join(part.reasons)}."
    return text


def accuracy(row: Row) -> str:
    """Spell mean and spread in percent, and the number of seeds, as 48.3±0.4 n3."""
    spread = "" if row.spread is None else f"±{100 * row.spread:.1f}"
    return f"{100 * row.mean:.1f}{spread} n{len(row.values)}"


def interval(found: Interval | None) -> str:
    """Spell difference and interval in percentage points, as -1.2 [-2.0,-0.4]; empty if unknown."""
    if found is None:
        return ""
    return f"{100 * found.difference:+.1f} [{100 * found.low:+.1f},{100 * found.high:+.1f}]"


def basis(found: Interval | None) -> str:
    """Say how many seeds or images an interval pairs, such as "3 seeds" or "2,845 images"."""
    return "not paired" if found is None else f"{found.n:,} {found.basis}"


def rank(row: Row) -> str:
    """Rank of a row, with = if other rows share the rank."""
    if row.rank is None:
        return "old" if row.group.stale else "–"
    return f"{row.rank}{'=' if row.tied else ''}"


def difference(row: Row) -> str:
    """Spell the difference of a row to the first row, or say why there is none."""
    if row.behind is not None:
        return interval(row.behind)
    if row.group.stale:
        return "stale"
    return "first" if row.leads else "–"


def conclusion(table: Table) -> str:
    """Say in one or two sentences what the table shows."""
    ranked = [row for row in table.rows if row.rank is not None]
    if not ranked:
        return "No row has a rank."
    first, others = ranked[0], [row for row in ranked[1:] if row.rank == 1]
    text = f"{first.group.name} has the highest {table.unit}, {100 * first.mean:.1f} %"
    if len(ranked) == 1:
        return f"{text}. There is nothing to compare it with."
    if not others:
        return f"{text}, and the difference to every other row is more than noise."
    names = [row.group.name for row in others]
    more = len(names) - 4
    shown = "; ".join(names[:4]) + (f"; and {more} other{'s' * (more > 1)}" if more > 0 else "")
    return f"{text}. These rows cannot be told apart from it: {shown}."


def remarks(table: Table) -> list[str]:
    """Say how the figures of a table were made."""
    found = {row.behind.basis for row in table.rows if row.behind is not None}
    lines = [
        f"Measure: {table.title}." + (f" Layer: {table.layers}." if table.layers else ""),
        "±: standard deviation over n seeds.",
    ]
    if table.left_out:
        names = "; ".join(table.left_out)
        lines.append(f"Left out, because a run lacks the measure or the layer: {names}.")
    if "seeds" in found:
        lines.append("Intervals of 95 % pair the accuracies of equal seeds (Student's t).")
    if "images" in found:
        lines.append(
            "Intervals of 95 % pair the test images of one seed where fewer than two seeds are "
            "common. They leave out the noise of the training."
        )
    if not found and table.measure not in PROBES:
        lines.append(
            "Rows with fewer than two common seeds cannot be paired and share a rank. Add seeds."
        )
    elif not found:
        lines.append(
            "No row can be paired with the first row: the rows have fewer than two common seeds, "
            "and the runs do not hold the predictions for each test image. Rows without an "
            "interval share a rank. `ktfast evaluate --redo evaluate` stores the predictions."
        )
    lines.append(
        "A row shares a rank (=) if the interval of its difference to the first row of that rank "
        "contains zero. The intervals are not corrected for the number of rows."
    )
    lines.append(
        "Time: the stages that made the network from prepared images. Size: weights without the "
        "classifier."
    )
    return lines


def terminal(table: Table) -> list[str]:
    """Lines of the table, none longer than 80 columns."""
    unit = "acc." if table.unit == "accuracy" else table.unit
    names = ["rank", "row", "layer", f"{unit} %", "vs first, 95 %", "time", "size"]
    lines = [_line(names), "-" * WIDTH]
    for row in table.rows:
        cells = [rank(row), "", _short_name(row.layer, 9), accuracy(row), difference(row)]
        cells += [short_time(row.seconds), short_count(row.parameters)]
        name = row.group.name + (" (control)" if row.role == "control" else "")
        first, *rest = textwrap.wrap(name, _WIDTHS[1]) or [""]
        cells[1] = first
        lines.append(_line(cells))
        lines += [" " * (_WIDTHS[0] + 1) + more for more in rest]
    return lines


def _short_name(layer: str, length: int) -> str:
    """The end of a long name, which tells the layers of a network apart."""
    return layer if len(layer) <= length else "…" + layer[1 - length :]


def _line(cells: Sequence[str]) -> str:
    parts = [
        f"{cell:<{width}}" if number < _LEFT else f"{cell:>{width}}"
        for number, (cell, width) in enumerate(zip(cells, _WIDTHS, strict=True))
    ]
    return " ".join(parts).rstrip()


def markdown(table: Table) -> list[str]:
    """Lines of the table in Markdown."""
    lines = [
        f"| rank | row | layer | {table.unit} (%) | seeds | difference to the first row, 95 % "
        "(points) | pairs | time | weights |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in table.rows:
        spread = "" if row.spread is None else f" ± {100 * row.spread:.1f}"
        role = "" if row.role == "student" else f" ({row.role})"
        name = row.group.name.replace("|", "\\|") + role
        cells = [
            rank(row),
            name,
            row.layer,
            f"{100 * row.mean:.1f}{spread}",
            str(len(row.values)),
            difference(row),
            "" if row.behind is None else basis(row.behind),
            duration(row.seconds),
            "–" if row.parameters is None else f"{row.parameters:,}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines
