"""The command `ktfast`: one sub-command per stage, run, demo, report, embed, assign, and others.

An error that the user can correct is printed as one sentence. The exit status is 2 for bad input or
a missing package, 1 if the disk or the memory is full or a file cannot be read or written, 130 for
Ctrl-C, 143 for SIGTERM and 129 for SIGHUP, which comes when the terminal closes.
"""

import argparse
import contextlib
import errno
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ktfast.cli import compare, kmeans, use_model
from ktfast.cli.options import overrides, parse
from ktfast.cli.printing import print_line
from ktfast.cli.processes import joined
from ktfast.errors import InputError, ShownFormatter
from ktfast.pipeline.runner import run
from ktfast.training.signals import Interrupted, is_ignored

if TYPE_CHECKING:
    from ktfast.config import Config
    from ktfast.pipeline.team import Team

_EXPLAINED = {"OutOfMemoryError", "CommunicationError"}
"""RuntimeErrors that are no faults of ktfast."""

_ONE_STEP = {"embed", "assign", "export", "kmeans", "report"}
"""Commands that write their file at the end, and keep nothing if they stop earlier."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    arguments : sequence of str, optional
        The words after `ktfast`. None: those of the process.

    Returns
    -------
    status : int
        Exit status of the process.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(ShownFormatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("ktfast").setLevel(logging.INFO)
    # torch allocates large CPU tensors anew at every step, and each new memory page costs a page
    # fault. This variable makes torch ask for huge pages, which are 512 times as large.
    # torch reads the variable once, when it first allocates.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    with _signals_raise():
        return joined(partial(_command, arguments), arguments)


def _command(arguments: Sequence[str], team: "Team | None" = None) -> int:
    """Run one command in this process; print an error that the user can correct."""
    try:
        options = parse(arguments)
        options.team = team
        return _COMMANDS[options.command](options)
    except (InputError, ModuleNotFoundError, KeyboardInterrupt, OSError) as error:
        message, status = _explain(error, arguments)
    except (MemoryError, RuntimeError) as error:
        name = type(error).__name__
        if not isinstance(error, MemoryError) and name not in _EXPLAINED:
            raise
        lost = name == "CommunicationError"
        message, status = str(error) if lost else _explain_memory(error), 1
    with contextlib.suppress(OSError):  # after SIGHUP the terminal is gone
        print_line(f"ktfast: {message}", sys.stderr)
    return status


def _explain(error: BaseException, arguments: Sequence[str]) -> tuple[str, int]:
    """Choose the message and the exit status for an expected error."""
    if isinstance(error, InputError):
        return str(error), 2
    if isinstance(error, ModuleNotFoundError):
        extras = "train,bench" if arguments[0] == "bench" else "train"
        missing = str(error.name).partition(".")[0]
        return (
            f"{missing} is not installed, and this command needs it: "
            f'pip install "ktfast[{extras}]"',
            2,
        )
    # With --redo, the same command would remove the work that the first call has finished.
    redone = any(argument.startswith("--redo") for argument in arguments)
    again = "the same command without --redo" if redone else "the same command"
    if isinstance(error, KeyboardInterrupt):
        status = 128 + getattr(error, "signal", signal.SIGINT)
        if arguments[0] in _ONE_STEP:
            return f"interrupted; {again} starts anew", status
        return f"interrupted; {again} goes on from what was saved", status
    assert isinstance(error, OSError)
    advice = "free some space and " if error.errno == errno.ENOSPC else ""
    place = f" ({error.filename})" if error.filename else ""
    if arguments[0] in _ONE_STEP:
        return f"{error.strerror or error}{place}; {advice}run {again} again", 1
    return (
        f"{error.strerror or error}{place}; finished work is kept: {advice}run {again} to go on",
        1,
    )


def _explain_memory(error: BaseException) -> str:
    reason = str(error).partition(". ")[0] or "out of memory"
    return (
        f"{reason}; lower the batch_size of this stage, raise its training.accumulate, or lower "
        "data.memory_budget_gb"
    )


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise an exception, so that no file is left half written."""

    def stop(number: int, _: object) -> None:
        raise Interrupted(number)

    if threading.current_thread() is not threading.main_thread():
        yield  # Python allows signal handlers in the main thread only
        return
    numbers = [number for number in (signal.SIGTERM, signal.SIGHUP) if not is_ignored(number)]
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stages(options: argparse.Namespace) -> int:
    from ktfast.cli.trust import names_all_code

    config = _configuration(options)
    report = run(
        config,
        options.run,
        stages=options.stages,
        redo=options.redo,
        trust_source=options.trust_source or names_all_code(config, overrides(options)),
        shared=options.shared,
        team=options.team,
    )
    return _print_report(report)


def _configuration(options: argparse.Namespace) -> "Config":
    from ktfast.config import load_config

    own, given = options.run / "config.toml", overrides(options)
    if not own.is_file():
        return load_config(options.config, given)
    if options.config is None:
        return load_config(own, given)
    from ktfast.cli.replaced_options import replaced

    config = load_config(options.config, given)
    if changes := replaced(own, config, given):
        print_line(
            f"ktfast: --config {options.config} replaces the options of {options.run}: {changes}. "
            "Without --config, the run keeps its own options",
            sys.stderr,
        )
    return config


def _print_report(report: Path | None) -> int:
    if report is not None:
        print_line(report)
    return 0


def _demo(options: argparse.Namespace) -> int:
    from ktfast.cli.demo import demo_config

    if options.run.exists() and not options.run.is_dir():
        raise InputError(f"{options.run} is a file; give a folder for the run")
    return _print_report(run(demo_config(options.run, options.seed), options.run))


def _report(options: argparse.Namespace) -> int:
    from ktfast.report import write_report

    folders = [*options.folders, *([options.run] if options.run else [])]
    if not folders or (options.run and options.folders):
        raise InputError("give run folders, such as `ktfast report runs/mine`, or one as --run")
    if len(folders) > 1:
        return compare.show(folders)
    return _print_report(write_report(folders[0]))


def _sweep(options: argparse.Namespace) -> int:
    return compare.sweep(options, overrides(options))


def _doctor(_: argparse.Namespace) -> int:
    from ktfast.cli.doctor import examine

    findings = examine()
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        print_line(f"{finding.name:<{width}}  {'on ' if finding.on else 'off'}  {finding.detail}")
    return 0 if all(finding.on for finding in findings if finding.required) else 1


def _bench(options: argparse.Namespace) -> int:
    status: int = options.measure(options)
    return status


_COMMANDS = {
    "stages": _stages,
    "demo": _demo,
    "report": _report,
    "doctor": _doctor,
    "bench": _bench,
    "embed": use_model.embed,
    "assign": use_model.assign,
    "export": use_model.export,
    "kmeans": kmeans.kmeans,
    "compare": compare.compare,
    "sweep": _sweep,
}


if __name__ == "__main__":
    sys.exit(main())
