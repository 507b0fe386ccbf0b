"""Options that several benchmarks declare alike."""

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

from ktfast.remote import argument_path


def add_numbers(
    parser: argparse.ArgumentParser,
    numbers: Iterable[tuple[str, int | None, str]],
    kind: Callable[[str], int],
) -> None:
    """Declare options that take an integer.

    Parameters
    ----------
    parser : ArgumentParser
        Receives the options.
    numbers : iterable of (str, int or None, str)
        Name, default and help of each option.
    kind : callable
        `positive` or `natural`.
    """
    for name, default, text in numbers:
        told = text if default is None else f"{text} (default: %(default)s)"
        parser.add_argument(f"--{name}", type=kind, default=default, help=told)


def add_out(parser: argparse.ArgumentParser, folder: str) -> None:
    """Declare ``--out``, the folder that receives the results."""
    parser.add_argument(
        "--out",
        type=argument_path,
        default=Path(folder),
        help="folder that receives the results (default: %(default)s)",
    )


def add_timeout(parser: argparse.ArgumentParser, seconds: float, what: str) -> None:
    """Declare ``--timeout``, the seconds after which a process is ended."""
    parser.add_argument(
        "--timeout",
        type=float,
        default=seconds,
        metavar="SECONDS",
        help=f"stop {what} after this time (default: %(default)s)",
    )


def positive(text: str) -> int:
    """An integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def natural(text: str) -> int:
    """An integer of at least 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must not be negative, got {value}")
    return value
