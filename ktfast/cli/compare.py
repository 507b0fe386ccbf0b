"""The commands that compare runs: `ktfast compare` and `ktfast sweep`."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ktfast.cli.printing import print_line
from ktfast.errors import ConfigError
from ktfast.pipeline.stage_names import PARTS, STAGES
from ktfast.remote import argument_path

OUT = Path("comparison")
"""Folder for the tables if the command line names no folder."""


def add_commands(
    commands: Any, chosen: str, add_options: Callable[[argparse.ArgumentParser, str], None]
) -> None:
    """Add the sub-commands to the parser of the command line.

    Parameters
    ----------
    commands : argparse sub-parsers
        The sub-parsers of the command line.
    chosen : str
        The command that the user called.
    add_options : callable
        Adds one flag per option of the configuration. It is called only for the chosen command,
        because it imports pydantic.
    """
    text = "set runs side by side, with spread over seeds and paired differences"
    compare = commands.add_parser("compare", help=text, description=text, allow_abbrev=False)
    compare.add_argument(
        "runs", nargs="+", type=argument_path, metavar="RUN",
        help="run folders; or one grid, whose runs are made first: a TOML file, or the name of a "
        "grid that ktfast ships, such as rows_tiny",
    )  # fmt: skip
    _add_table_options(compare, f"{OUT}, or runs/NAME for the grid NAME.toml")
    add_redo(compare, "remove the results of this stage in every run of a grid, and run it again")
    compare.add_argument(
        "--trust-source",
        action="store_true",
        help="allow features.source of a grid to run a function of a Python module",
    )
    compare.set_defaults(command="compare")

    text = "run every combination of some options' values, and compare the runs"
    sweep = commands.add_parser(
        "sweep",
        usage="ktfast sweep --vary NAME=VALUE,... --out FOLDER [--config CONFIG] "
        "[--OPTION VALUE ...]",
        help=text,
        description=f"{text}; what the runs have in common is made once",
        epilog="Every option of the configuration may be given, too, for all runs: see "
        "`ktfast run --help`.",
        allow_abbrev=False,
    )
    sweep.add_argument(
        "--vary", action="append", required=True, metavar="NAME=VALUE,...",
        help="an option and its values, such as cluster.n_clusters=500,1000,2000; repeat the "
        "argument to vary several options",
    )  # fmt: skip
    sweep.add_argument("--config", type=argument_path, help="TOML file, or the name of a recipe")
    sweep.add_argument("--trust-source", action="store_true", help="as for ktfast run")
    add_redo(sweep, "remove the results of this stage in every run, and run it again")
    _add_table_options(sweep, None)
    if chosen == "sweep":
        add_options(sweep, "sweep")
    sweep.set_defaults(command="sweep")


def add_redo(parser: argparse.ArgumentParser, text: str) -> None:
    """Add the flag ``--redo STAGE``, which may be given several times."""
    stages = [*STAGES, *PARTS]
    parser.add_argument(
        "--redo",
        choices=stages,
        action="append",
        default=[],
        metavar="STAGE",
        help=f"{text}; may be given several times; one of {', '.join(stages)}",
    )


def _add_table_options(parser: argparse.ArgumentParser, default: str | None) -> None:
    parser.add_argument(
        "--out",
        type=argument_path,
        required=default is None,
        help="folder of the tables and of new runs" + (f" (default: {default})" if default else ""),
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
    from ktfast.pipeline.grid.cells import read_grid, shipped_grid

    runs = [shipped_grid(path) for path in options.runs]
    grids = [path for path in runs if path.suffix == ".toml"]
    if not grids:
        if options.redo:
            raise ConfigError(
                "--redo is for the runs of a grid; for a run folder: ktfast run --run RUN --redo "
                f"{options.redo[0]}"
            )
        return show(runs, options.out or OUT, options.layer, options.measure)
    if len(runs) > 1:
        raise ConfigError(
            f"{grids[0]} is a grid, which is compared alone; give one grid, or run folders"
        )
    out = options.out or Path("runs") / grids[0].stem
    return _run_and_show(read_grid(grids[0], out), out, options)


def sweep(options: argparse.Namespace, given: Mapping[str, str]) -> int:
    """Run `ktfast sweep`; return the exit status.

    Parameters
    ----------
    options : argparse.Namespace
        The parsed command line.
    given : mapping of str to str
        Options of every run that the command line gave, by dotted name.

    Returns
    -------
    status : int
        The exit status.
    """
    from ktfast.cli.trust import names_all_code
    from ktfast.pipeline.grid.cells import sweep_cells

    varied: dict[str, list[str]] = {}
    for text in options.vary:
        name, sign, values = text.partition("=")
        if not sign or not all(values.split(",")):
            raise ConfigError(f"--vary {text}: expected NAME=VALUE,VALUE,...")
        if name in varied:
            together = ",".join([*varied[name], values])
            raise ConfigError(f"--vary names {name} twice; give --vary {name}={together}")
        if name in given:
            raise ConfigError(
                f"{name} is given as --{name} and as --vary {name}; give one of the two"
            )
        varied[name] = values.split(",")
    cells = sweep_cells(options.config, given, varied)
    named = {*given, *varied}
    options.trust_source |= all(names_all_code(cell.config, named) for cell in cells)
    return _run_and_show(cells, options.out, options)


def _run_and_show(cells: Sequence[Any], out: Path, options: argparse.Namespace) -> int:
    from ktfast.pipeline.grid.run_cells import run_cells

    made = run_cells(cells, out, trust_source=options.trust_source, redo=options.redo)
    if not made.folders:
        raise ConfigError(f"no run could be made. {made.failures[0]}")
    show(made.folders, out, options.layer, options.measure, made.failures)
    return 2 if made.failures else 0


def show(
    folders: Sequence[Path],
    out: Path = OUT,
    layer: str | None = None,
    measure: str = "linear",
    notes: Sequence[str] = (),
) -> int:
    """Compare run folders, print the table, and write the files; return the exit status.

    Parameters
    ----------
    folders : sequence of Path
        Run folders.
    out : Path
        Folder for the tables and the page.
    layer : str, optional
        Layer whose accuracy is shown.
    measure : str
        Measure that the terminal shows.
    notes : sequence of str
        Sentences to show with the table.

    Returns
    -------
    status : int
        The exit status.
    """
    from ktfast.report.comparison.compare import compare_runs
    from ktfast.report.comparison.files import write_comparison

    comparison = compare_runs(folders, layer=layer, notes=notes)
    paths = write_comparison(comparison, out)
    for line in comparison.lines(measure):
        print_line(line)
    print_line(paths[0])
    return 0
