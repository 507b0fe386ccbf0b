"""Repeated measurements, their table in Markdown, and the files that a benchmark leaves."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ktfast import durable


class Spread(NamedTuple):
    """Median and range of a measurement that was repeated."""

    median: float
    least: float
    most: float

    def text(self, digits: int = 3) -> str:
        """The median with its range, such as "0.352 (0.350-0.361)"."""
        return f"{self.median:.{digits}f} ({self.least:.{digits}f}-{self.most:.{digits}f})"


def spread(values: Sequence[float]) -> Spread:
    """Median, least and most of the repeats."""
    return Spread(statistics.median(values), min(values), max(values))


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in GitHub's Markdown, padded so that the source is readable too."""
    cells = [[str(cell).replace("|", "/") for cell in row] for row in (columns, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])


def facts_line(facts: Mapping[str, Any]) -> str:
    """Facts in one sentence, such as "cores 2; load 0.1."."""
    return "; ".join(f"{key} {value}" for key, value in facts.items()) + "."


def publish(
    folder: Path,
    name: str,
    record: Mapping[str, Any],
    text: str,
    draw: Callable[[Path], None],
) -> None:
    """Save a measurement as JSON, Markdown and plots, and print the Markdown.

    Parameters
    ----------
    folder : Path
        Receives the files; made if necessary.
    name : str
        Name of the files without their suffix.
    record : mapping
        The measurement, JSON values.
    text : str
        The report in Markdown.
    draw : callable
        Draws the plots. Takes the path of the files without their suffix.

    Raises
    ------
    OSError
        The folder cannot be made or written.
    """
    save(folder, name, record, text)
    print(text)
    draw(folder / name)
    files = sorted(path.name for path in folder.glob(f"{name}[.-]*"))
    print(f"\nsaved in {folder}: {', '.join(files)}")


def save(folder: Path, name: str, record: Mapping[str, Any], text: str) -> None:
    """Write `record` as ``<name>.json`` and `text` as ``<name>.md`` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    durable.write_json(folder / f"{name}.json", record)
    durable.write_bytes(folder / f"{name}.md", (text.rstrip("\n") + "\n").encode())
