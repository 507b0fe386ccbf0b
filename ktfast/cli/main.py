"""The command line: one sub-command per stage, and run, demo, report, doctor, bench.

Errors that the user can mend are printed as one sentence; the exit status is 2 for bad input, 1
for a failing machine (full disk or memory), 130 and 143 for Ctrl-C and SIGTERM.
"""

import argparse
import contextlib
import difflib
import errno
import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ktfast import __version__
from ktfast.errors import ConfigError, InputError
from ktfast.pipeline.runner import BASELINES, STAGES, run
from ktfast.training.signals import Interrupted

if TYPE_CHECKING:
    from ktfast.config import Config

# `ktfast bench SUBJECT` calls add_options(parser) and run(options) of ktfast.bench.SUBJECT.command.
BENCHMARKS = {
    "kmeans": "K-means: ktfast and other libraries on the same data and first centres",
    "feed": "images per CPU-second from files, shards and memory, beside other loaders",
    "train": "trainings and feature extraction beside plain scripts that do the same",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    logging.getLogger("ktfast").setLevel(logging.INFO)
    # torch takes large CPU tensors from fresh pages at every step; huge pages cost a 512th of the
    # page faults. Read once, when torch first allocates. Training: +17 % images per CPU-second.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    # With --redo the same command would throw away again what it did so far.
    redone = any(argument.startswith("--redo") for argument in arguments)
    again = "the same command without --redo" if redone else "the same command"
    try:
        with _sigterm_raises():
            options = _parse(arguments)
            status: int = options.command(options)
            return status
    except InputError as error:
        return _fail(str(error), 2)
    except ModuleNotFoundError as error:
        extras = "train,bench" if arguments[0] == "bench" else "train"
        missing = str(error.name).partition(".")[0]
        return _fail(
            f"{missing} is not installed; this command needs more than the core: "
            f'pip install ".[{extras}]" in the checkout of ktfast',
            2,
        )
    except KeyboardInterrupt as stop:
        number = getattr(stop, "signal", signal.SIGINT)
        return _fail(f"interrupted; {again} goes on from what was saved", 128 + number)
    except OSError as error:
        advice = "free some space and " if error.errno == errno.ENOSPC else ""
        place = f" ({error.filename})" if error.filename else ""
        return _fail(
            f"{error.strerror or error}{place}; what was finished is kept: {advice}run {again} "
            "to go on",
            1,
        )
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and type(error).__name__ != "OutOfMemoryError":
            raise
        reason = str(error).partition(". ")[0] or "out of memory"
        return _fail(
            f"{reason}; give a smaller batch_size or more training.accumulate, or a smaller "
            "data.memory_budget_gb",
            1,
        )


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Let SIGTERM unwind the stack as Ctrl-C does, so that no file is left half written."""

    def stop(number: int, _: object) -> None:
        raise Interrupted(number)

    if threading.current_thread() is not threading.main_thread():
        yield  # where Python allows no handlers
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _fail(message: str, status: int) -> int:
    print(f"ktfast: {message}", file=sys.stderr)
    return status


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="ktfast",
        description="Self-supervised knowledge transfer: Jigsaw++ pretext, K-means pseudo-labels, "
        "transfer to a fresh network, evaluation.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"ktfast {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    chosen = arguments[0] if arguments else ""
    everything = {"run": "every stage, then the report", **STAGES}
    for name, text in everything.items():
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        command.set_defaults(command=_stages, stages=list(STAGES) if name == "run" else [name])
        # Reading the options imports pydantic: only the command that is called pays for it.
        if name == chosen:
            _add_options(command, name)
    demo = commands.add_parser("demo", help="the whole pipeline on photographs that come along")
    demo.add_argument("--run", type=Path, default=Path("runs/demo"), help="run folder")
    demo.set_defaults(command=_demo)
    report = commands.add_parser("report", help="write the HTML report of a run")
    places = report.add_mutually_exclusive_group(required=True)
    places.add_argument("folder", nargs="?", type=Path, help="run folder")
    places.add_argument("--run", type=Path, help="the same")
    report.set_defaults(command=_report)
    doctor = commands.add_parser("doctor", help="what is on, what is off, and the remedy")
    doctor.set_defaults(command=_doctor)
    bench = commands.add_parser("bench", help="measure against other libraries, on this machine")
    _add_benchmarks(bench, arguments[1] if chosen == "bench" and len(arguments) > 1 else "")
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        raise ConfigError(_unknown(unknown[0], options.command is _stages))
    return options


def _add_benchmarks(parser: argparse.ArgumentParser, chosen: str) -> None:
    subjects = parser.add_subparsers(title="subjects", metavar="SUBJECT", required=True)
    for name, text in BENCHMARKS.items():
        subject = subjects.add_parser(name, help=text, description=text, allow_abbrev=False)
        # The subjects' libraries are many: only the one that is called is loaded.
        if name == chosen:
            module = importlib.import_module(f"ktfast.bench.{name}.command")
            module.add_options(subject)
            subject.set_defaults(command=module.run)


def _unknown(argument: str, has_options: bool) -> str:
    name = argument.lstrip("-").partition("=")[0]
    close: list[str] = []
    if argument.startswith("--") and has_options:
        from ktfast.config import options

        close = difflib.get_close_matches(name, ["run", "config", "redo", *options()], n=1)
        close = close or [key for key in options() if key.endswith("." + name)][:1]
    return f"unknown argument {argument}" + (f"; did you mean --{close[0]}?" if close else "")


def _add_options(parser: argparse.ArgumentParser, stage: str) -> None:
    """One flag per option of the configuration; a stage's own also without their section."""
    from ktfast.config import options

    parser.add_argument("--run", type=Path, required=True, help="run folder, made if need be")
    parser.add_argument(
        "--config",
        type=Path,
        help="TOML file; without it the run folder's own configuration, else the paper's defaults",
    )
    parser.add_argument(
        "--redo",
        choices=[*STAGES, *BASELINES],
        action="append",
        default=[],
        metavar="STAGE",
        help="throw away what this stage left and do it again: "
        f"{', '.join([*STAGES, *BASELINES])}; may be given several times",
    )
    groups: dict[str, Any] = {}
    for name, (_, default, text) in options().items():
        section = name.partition(".")[0] if "." in name else "general"
        group = groups.setdefault(section, parser.add_argument_group(section))
        flags = [f"--{name}"]
        if section == stage:
            flags.append(f"--{name.partition('.')[2]}")
        shown = "not set" if default is None or default == "" else _show(default)
        group.add_argument(
            *flags,
            dest=f"option.{name}",
            metavar=name.rpartition(".")[2].upper(),
            default=argparse.SUPPRESS,
            help=f"{text} (default: {shown})".replace("%", "%%"),
        )


def _show(default: Any) -> str:
    if isinstance(default, tuple):
        return "[" + ", ".join(_show(item) for item in default) + "]"
    return f"{default:.4g}" if isinstance(default, float) else str(default)


def _configuration(options: argparse.Namespace) -> "Config":
    from ktfast.config import load_config

    overrides = {
        key.removeprefix("option."): value
        for key, value in vars(options).items()
        if key.startswith("option.")
    }
    path = options.config
    if path is None and (options.run / "config.toml").is_file():
        path = options.run / "config.toml"
    return load_config(path, overrides)


def _stages(options: argparse.Namespace) -> int:
    config = _configuration(options)
    if not options.run.exists() and not config.data.folders():
        raise InputError(
            f"there is no run folder {options.run}, and data.pretext is not set: give a run's "
            "folder, or the folder of the training images to begin one"
        )
    return _print_report(run(config, options.run, stages=options.stages, redo=options.redo))


def _print_report(report: Path | None) -> int:
    if report is not None:
        print(report)
    return 0


def _demo(options: argparse.Namespace) -> int:
    from ktfast.cli.demo import demo_config

    if options.run.exists() and not options.run.is_dir():
        raise InputError(f"{options.run} is a file; give a folder for the run")
    return _print_report(run(demo_config(options.run), options.run))


def _report(options: argparse.Namespace) -> int:
    from ktfast.report import write_report

    print(write_report(options.run or options.folder))
    return 0


def _doctor(_: argparse.Namespace) -> int:
    from ktfast.cli.doctor import examine

    findings = examine()
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        print(f"{finding.name:<{width}}  {'on ' if finding.on else 'off'}  {finding.detail}")
    return 0 if all(finding.on for finding in findings if finding.required) else 1


if __name__ == "__main__":
    sys.exit(main())
