"""Write a comparison as HTML, CSV and Markdown."""

from pathlib import Path

from ktfast.durable import write_bytes
from ktfast.errors import InputError, shown
from ktfast.report.comparison import text
from ktfast.report.comparison.compare import Comparison
from ktfast.report.comparison.page import page_of
from ktfast.tables import write_csv


def write_comparison(comparison: Comparison, folder: Path) -> list[Path]:
    """Write a comparison as HTML, CSV and Markdown.

    Parameters
    ----------
    comparison : Comparison
        The tables.
    folder : Path
        Receives `compare.html`, `compare.csv`, `differences.csv` and `compare.md`. The folder is
        created if it does not exist.

    Returns
    -------
    paths : list of Path
        The files.

    Raises
    ------
    InputError
        `folder` is a file.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{shown(folder)} is a file; give a folder for the tables") from error
    paths = [folder / name for name in ("compare.html", "compare.csv", "differences.csv")]
    paths.append(folder / "compare.md")
    write_bytes(paths[0], shown(page_of(comparison)).encode())
    write_csv(paths[1], _CSV, _csv_rows(comparison))
    write_csv(
        paths[2],
        ("part", "measure", "first", "second", "difference", "low", "high", "paired", "pairs"),
        (
            (number, table.measure, a, b, found.difference, found.low, found.high, found.basis,
             found.n)
            for number, compared in enumerate(comparison.parts, 1)
            for table in compared.tables
            for a, b, found in table.differences
        ),
    )  # fmt: skip
    write_bytes(paths[3], shown("\n".join(_markdown(comparison))).encode())
    return paths


_CSV = (
    "part", "measure", "split", "row", "role", "layer", "layer_chosen_on", "rank", "tied", "seeds",
    "mean", "standard_deviation", "difference_to_first", "low", "high", "paired", "seconds",
    "parameters", "stale", "runs",
)  # fmt: skip


def _csv_rows(comparison: Comparison) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for number, compared in enumerate(comparison.parts, 1):
        for table in compared.tables:
            for row in table.rows:
                gap = row.behind
                interval = (
                    (gap.difference, gap.low, gap.high, text.basis(gap)) if gap else ("",) * 4
                )
                runs = " ".join(cell.run.folder.name for cell in row.group.cells)
                rows.append(
                    (number, table.measure, "test", row.group.name, row.role, row.layer,
                     table.layers, row.rank or "", int(row.tied), len(row.values), row.mean,
                     "" if row.spread is None else row.spread, *interval,
                     "" if row.seconds is None else row.seconds, row.parameters or "",
                     row.group.stale, runs)
                )  # fmt: skip
    return rows


def _markdown(comparison: Comparison) -> list[str]:
    lines = ["# Comparison", ""]
    for number, compared in enumerate(comparison.parts, 1):
        lines += [text.heading(compared.part, number, len(comparison.parts)), ""]
        for table in compared.tables:
            lines += [f"## {table.title[0].upper()}{table.title[1:]}", ""]
            lines += [text.conclusion(table), "", *text.markdown(table), ""]
            lines += [f"- {note}" for note in text.remarks(table)] + [""]
    return lines + [f"- Note: {note}" for note in comparison.notes] + [""]
