"""The parser of the command line: sub-commands, and one flag per option of the configuration."""

import argparse
import difflib
import importlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from ktfast import __version__
from ktfast.cli import compare, kmeans, use_model
from ktfast.cli.guess import guess, spelled_guess
from ktfast.cli.stage_help import FullHelpAction, HelpAction, section_of
from ktfast.errors import ConfigError
from ktfast.pipeline.stage_names import STAGES
from ktfast.remote import argument_path

# `ktfast bench SUBJECT` calls add_options(parser) and run(options) of ktfast.bench.SUBJECT.command.
BENCHMARKS = {
    "kmeans": "K-means: ktfast and other libraries on the same data and first centres",
    "feed": "images per CPU-second from files, shards and memory: ktfast and other loaders",
    "train": "trainings and feature extraction: ktfast and plain PyTorch scripts that do the same",
}
# argparse stores an option of the configuration under this prefix and the option's name.
_OPTION = "option."


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse a command line.

    Parameters
    ----------
    arguments : sequence of str
        The words after `ktfast`.

    Returns
    -------
    options : argparse.Namespace
        `command` is "stages" for `run` and for each stage, else the name of the command: demo,
        report, compare, sweep, embed, assign, export, kmeans, doctor or bench.

    Raises
    ------
    ConfigError
        An argument is unknown.
    SystemExit
        argparse printed the help, the version, or what is wrong with an argument.
    """
    parser = argparse.ArgumentParser(
        prog="ktfast",
        description="Self-supervised knowledge transfer: a network learns a pretext task, such as "
        "Jigsaw++ puzzles, K-means turns its features into pseudo-labels, and a fresh network "
        "learns these labels.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"ktfast {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_stages(commands, arguments[0] if arguments else "")
    demo = commands.add_parser(
        "demo", help="run every stage on photographs that installed packages contain"
    )
    demo.add_argument(
        "--run",
        type=argument_path,
        default=Path("runs/demo"),
        help="run folder (default: runs/demo)",
    )
    demo.add_argument("--seed", type=int, default=0, help="seed of the run (default: 0)")
    demo.set_defaults(command="demo")
    report = commands.add_parser(
        "report", help="write the HTML report of a run, or compare several runs"
    )
    report.add_argument("folders", nargs="*", type=argument_path, metavar="RUN", help="run folder")
    report.add_argument("--run", type=argument_path, help="run folder, instead of the argument RUN")
    report.set_defaults(command="report")
    compare.add_commands(commands, arguments[0] if arguments else "", _add_configuration_flags)
    use_model.add_commands(commands)
    kmeans.add_command(commands)
    doctor = commands.add_parser("doctor", help="list what works here, and how to install the rest")
    doctor.set_defaults(command="doctor")
    bench = commands.add_parser("bench", help="compare speed with other libraries on this machine")
    bench.set_defaults(command="bench")
    _add_benchmarks(bench, arguments[1] if len(arguments) > 1 else "")
    _check_command(arguments, commands.choices)
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        name = next(word for word in arguments if word in commands.choices)
        raise ConfigError(_unknown(unknown[0], commands.choices[name], name))
    return options


def overrides(options: argparse.Namespace) -> dict[str, str]:
    """Collect the options of the configuration that a command line gave, by dotted name."""
    return {
        key.removeprefix(_OPTION): value
        for key, value in vars(options).items()
        if key.startswith(_OPTION)
    }


def _check_command(arguments: Sequence[str], commands: Collection[str]) -> None:
    """Refuse an unknown command, and guess the command that was meant."""
    name = arguments[0] if arguments else ""
    if not name or name.startswith("-") or name in commands:
        return
    close = difflib.get_close_matches(name, commands, n=1)
    hint = f"; did you mean {close[0]}?" if close else "."
    raise ConfigError(f"there is no command {name!r}{hint} The commands are {', '.join(commands)}")


def _add_stages(commands: Any, chosen: str) -> None:
    """Add one sub-command per stage, and `run` for all of them."""
    for name, text in {"run": "run every stage, then write the report", **STAGES}.items():
        command = commands.add_parser(
            name,
            usage=f"ktfast {name} --run RUN [--config CONFIG] [--redo STAGE] [--OPTION VALUE ...]",
            help=text,
            description=text,
            allow_abbrev=False,
            add_help=False,
        )
        command.set_defaults(command="stages", stages=list(STAGES) if name == "run" else [name])
        # Listing the options imports pydantic, so only the command that is called lists them.
        if name == chosen:
            _add_run_flags(command, name)
            _add_configuration_flags(command, name)


def _add_benchmarks(parser: argparse.ArgumentParser, chosen: str) -> None:
    subjects = parser.add_subparsers(title="subjects", metavar="SUBJECT", required=True)
    for name, text in BENCHMARKS.items():
        subject = subjects.add_parser(name, help=text, description=text, allow_abbrev=False)
        # A subject imports many libraries, so only the subject that is called is imported.
        if name == chosen:
            module = importlib.import_module(f"ktfast.bench.{name}.command")
            module.add_options(subject)
            subject.set_defaults(measure=module.run)


def _add_run_flags(parser: argparse.ArgumentParser, stage: str) -> None:
    for flags, action, text in (
        (("-h", "--help"), HelpAction, "show the options of this stage"),
        (("--help-all",), FullHelpAction, "show every option of every stage"),
    ):
        parser.add_argument(*flags, action=action, nargs=0, const=stage, help=text)
    parser.add_argument(
        "--run", type=argument_path, required=True, help="run folder; created if it does not exist"
    )
    parser.add_argument(
        "--config",
        type=argument_path,
        help="TOML file, or the name of a recipe that ktfast ships, such as tiny_cpu (default: the "
        "config.toml of the run folder if there is one, else the paper's values)",
    )
    compare.add_redo(parser, "remove the results of this stage and run it again")
    parser.add_argument(
        "--shared",
        type=argument_path,
        help="folder of results that several runs share, also at a time: what another run has made "
        "from the same options and inputs is taken from it",
    )
    parser.add_argument(
        "--trust-source",
        action="store_true",
        help="allow features.source and pretext.task of a configuration file to run code of a "
        "Python module; not needed if the command line gives these options",
    )


def _add_configuration_flags(parser: argparse.ArgumentParser, stage: str) -> None:
    """Add one flag per option; a stage's own options also have a flag without the section."""
    from ktfast.config import options

    groups: dict[str, Any] = {}
    for name, (kind, default, text) in options().items():
        section = name.partition(".")[0] if "." in name else "general"
        group = groups.setdefault(section, parser.add_argument_group(section))
        flags = [f"--{name}"]
        if section == stage:
            flags.append(f"--{name.partition('.')[2]}")
        shown = "not set" if default is None or default == "" else _show(default)
        # `--link` alone means `--link true`.
        alone: dict[str, Any] = {"nargs": "?", "const": "true"} if kind is bool else {}
        group.add_argument(
            *flags,
            **alone,
            dest=f"{_OPTION}{name}",
            metavar=_metavar(name, kind),
            default=argparse.SUPPRESS,
            help=argparse.SUPPRESS
            if stage == "sweep"  # its own arguments fit one screen; its help names the rest
            else f"{text} (default: {shown})".replace("%", "%%"),
        )


def _metavar(name: str, kind: Any) -> str:
    """Name the value of a flag: the choices if there are only a few, else the option's name."""
    if get_origin(kind) is Literal:
        return "{" + ",".join(get_args(kind)) + "}"
    return name.rpartition(".")[2].upper()


def _show(default: Any) -> str:
    if isinstance(default, tuple):
        return "[" + ", ".join(_show(item) for item in default) + "]"
    return f"{default:.4g}" if isinstance(default, float) else str(default)


def _unknown(argument: str, chosen: argparse.ArgumentParser, stage: str) -> str:
    """Say that an argument is unknown, and guess the flag that was meant.

    Parameters
    ----------
    argument : str
        The argument.
    chosen : argparse.ArgumentParser
        Parser of the command.
    stage : str
        The command.
    """
    own = "" if stage == "run" else section_of(stage)
    flags = [flag[2:] for flag in chosen._option_string_actions if flag.startswith("--")]
    given = argument.lstrip("-").partition("=")[0]
    from ktfast.config import options

    tables = {name for name, (kind, *_) in options().items() if get_origin(kind) is dict}
    tables |= {name.removeprefix(f"{own}.") for name in tables if name.startswith(f"{own}.")}
    for flag in flags:
        if flag in tables and given.startswith(f"{flag}."):  # such as evaluate.sets.NAME.train
            entry = "..."
            for key in reversed(given[len(flag) + 1 :].split(".")):
                entry = f"{{{key} = {entry}}}"
            return f"unknown argument {argument}: give the whole table, as in --{flag} '{entry}'"
    # A stage's own options have a second flag without the section; the full name is shown.
    full = {flag for flag in flags if "." in flag or f"{own}.{flag}" not in flags}
    names = guess(argument, [flag for flag in flags if flag in full], own)
    return f"unknown argument {argument}{spelled_guess(names) if argument[:1] == '-' else ''}"
