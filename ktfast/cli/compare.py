"""The command `ktfast compare`, which sets finished runs side by side."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ktfast.cli.printing import print_line

OUT = Path("comparison")
"""Folder of the tables if the command line names none."""


def add_command(commands: Any) -> None:
    """Add the sub-command to the parser of the command line."""
    text = "set finished runs side by side, with spread over seeds and paired differences"
    compare = commands.add_parser("compare", help=text, description=text, allow_abbrev=False)
    compare.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folder")
    _add_options(compare)
    compare.set_defaults(command="compare")


def _add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose what a comparison shows, and where it is written."""
    parser.add_argument(
        "--out", type=Path, help=f"folder of the HTML, CSV and Markdown tables (default: {OUT})"
    )
    parser.add_argument(
        "--layer",
        help="layer whose accuracy is shown (default: for each row, the best layer on held-out "
        "training images)",
    )
    parser.add_argument(
        "--measure",
        choices=("linear", "linear_top1", "knn"),
        default="linear",
        help="accuracy that the terminal shows; the files hold all of them (default: linear)",
    )


def compare(options: argparse.Namespace) -> int:
    """Run `ktfast compare`; return the exit status."""
    return show(options.runs, options.out or OUT, options.layer, options.measure)


def show(
    folders: Sequence[Path], out: Path = OUT, layer: str | None = None, measure: str = "linear"
) -> int:
    """Compare run folders, print the table, and write the files; return the exit status."""
    from ktfast.report.comparison.compare import compare_runs
    from ktfast.report.comparison.files import write_comparison

    comparison = compare_runs(folders, layer=layer)
    paths = write_comparison(comparison, out)
    for line in comparison.lines(measure):
        print_line(line)
    print_line(paths[0])
    return 0
