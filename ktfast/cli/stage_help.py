"""The help of `run` and of the stages: a stage's own options on one screen, all options on demand.

`--help` describes the options of the stage's own section, each by the first part of its description
with its choices and its default. Options of trainings and of the image folders are listed by name.
`--help-all` prints the full description of every option.
"""

import argparse
import shutil
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from ktfast.pipeline.stage_names import PARTS, STAGES

_LEFT = 26  # width of the names of options, columns
_WIDEST = 100
_SECTIONS = {"prepare": "data", "run": "data"}  # the section of a stage that has another name
_LONGEST = 60  # largest length of the meaning of a default, characters
_MOST_ITEMS = 10  # of a longer list, only the first and the last item are shown
_UNITS = ("px",)
_KINDS = {int: "N", float: "X", Path: "PATH"}

Options = Mapping[str, tuple[Any, Any, str]]


class HelpAction(argparse.Action):
    """Print the short help and exit. The text is made only when the user asks for help."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print the help of the parser's stage."""
        from ktfast.config import options

        print(short_help(str(self.const), options()), end="")
        parser.exit()


class FullHelpAction(argparse.Action):
    """Print argparse's own help, which lists every option, and exit."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print the help of the parser."""
        parser.print_help()
        parser.exit()


def section_of(stage: str) -> str:
    """Name the section of the configuration that holds a stage's own options."""
    return _SECTIONS.get(stage, stage)


def short_help(stage: str, options: Options) -> str:
    """Describe the arguments of a stage on one screen.

    Parameters
    ----------
    stage : str
        "run" or the name of a stage.
    options : mapping
        What `ktfast.config.options` gave.

    Returns
    -------
    text : str
        The help, at most 80 lines on a terminal of 80 columns.
    """
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    own = section_of(stage)
    named = {name: option for name, option in options.items() if not _in(name, own)}
    lines = [
        f"usage: ktfast {stage} --run RUN [--config FILE] [--redo STAGE] [--NAME VALUE]",
        "",
        STAGES.get(stage, "run every stage, then write the report"),
        "",
        *_arguments(stage, width),
        *_described(own, options, width),
    ]
    if stage == "run":
        sections = dict.fromkeys(name.partition(".")[0] for name in named if "." in name)
        for section in (section for section in sections if section != "voc"):
            short = {
                name: option
                for name, option in named.items()
                if _in(name, section) and ".training." not in name
            }
            lines += ["", *_listed(section, short, width)]
        lines += ["", "Trainings: see ktfast pretext --help. PASCAL VOC: see ktfast voc --help."]
    elif own != "data":
        data = {name: option for name, option in named.items() if _in(name, "data")}
        lines += ["", *_listed("data", data, width)]
    general = {name: option for name, option in options.items() if _in(name, "general")}
    return "\n".join([*lines, "", *_listed("", general, width)]) + "\n"


def _arguments(stage: str, width: int) -> Iterator[str]:
    """Describe the arguments that are no options of the configuration."""
    redoable = [stage] if stage != "run" else [*STAGES, *PARTS]
    if stage == "evaluate":
        redoable += PARTS
    given = {
        "--run RUN": "run folder; created if it does not exist",
        "--config FILE": "TOML file, or a recipe of ktfast such as tiny_cpu (the run folder's "
        "config.toml, else the paper's values)",
        "--redo STAGE": f"remove earlier results and run again: {', '.join(redoable)}",
        "--trust-source": "allow features.source of a file to run a function",
        "--help-all": "describe every option of every stage",
    }
    if stage == "run":
        given["--shared FOLDER"] = "folder of results that several runs share, also at a time"
    for flag, text in given.items():
        yield from _row(flag, text, width)


def _described(section: str, options: Options, width: int) -> Iterator[str]:
    """Describe each option of a section; list the options of its trainings and groups by name."""
    groups: dict[str, dict[str, tuple[Any, Any, str]]] = {}
    yield ""
    yield f"{section}:"
    for name, (kind, default, text) in options.items():
        if not _in(name, section):
            continue
        group, _, leaf = name.removeprefix(f"{section}.").rpartition(".")
        if group:
            groups.setdefault(f"{section}.{group}", {})[name] = (kind, default, text)
            continue
        flag = f"--{leaf if section != 'data' else name} {_value(kind)}"
        yield from _row(flag, f"{_first_clause(text)} ({_default(default, text)})", width)
    for group, members in groups.items():
        yield ""
        yield from _listed(group, members, width)


def _listed(group: str, options: Options, width: int) -> Iterator[str]:
    """List options of a group in a paragraph: names, defaults, choices."""
    yield f"--{group}{'.' if group else ''}NAME VALUE (default/other choices):"
    words = []
    for name, (kind, default, _) in options.items():
        shown = _show(default)
        others = [choice for choice in _choices(kind) if choice not in shown.split(",")]
        shown = "/".join([shown, *others])
        words.append(f"{name.removeprefix(f'{group}.')} ({shown})".replace(" ", "\0"))
    text = textwrap.fill(", ".join(words), width - 2, break_on_hyphens=False)
    yield from textwrap.indent(text.replace("\0", " "), "  ").splitlines()


def _row(flag: str, text: str, width: int) -> Iterator[str]:
    """Set a flag and its text in two columns."""
    wide = len(flag) > _LEFT - 4
    if wide:
        yield f"  {flag}"
    body = textwrap.wrap(text, width - _LEFT, break_on_hyphens=False)
    first = f"{'' if wide else f'  {flag}':<{_LEFT}}{body[0]}"
    yield from (first, *(" " * _LEFT + line for line in body[1:]))


def _in(name: str, section: str) -> bool:
    return (name.partition(".")[0] if "." in name else "general") == section


def _value(kind: Any) -> str:
    """Name the value of an option: its choices, or its type."""
    if choices := _choices(kind):
        return "{" + ",".join(choices) + "}" + ("..." if get_origin(kind) is tuple else "")
    if get_origin(kind) is tuple:
        return "A,B,..."
    kinds = {kind, *get_args(kind)}
    return next((name for known, name in _KINDS.items() if known in kinds), "TEXT")


def _choices(kind: Any) -> list[str]:
    """List the values of an option that has only a few."""
    if kind is bool:
        return ["true", "false"]
    if get_origin(kind) is Literal:
        return [str(choice) for choice in get_args(kind)]
    parts = [_choices(part) for part in get_args(kind) if part is not Ellipsis]
    return [choice for part in parts for choice in part] if all(parts) else []


def _first_clause(text: str) -> str:
    clauses = text.split("; ")
    return "; ".join(clauses[: 2 if clauses[0] in _UNITS else 1])


def _default(default: Any, text: str) -> str:
    """Show the default with its meaning, where the description states a meaning."""
    shown = _show(default)
    for clause in text.split("; "):
        if clause.startswith(f"{shown}: ") and len(clause) <= _LONGEST:
            return clause
    return shown


def _show(default: Any) -> str:
    if default is None or default == "":
        return "not set"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple):
        items = [_show(item) for item in default] or ["empty"]
        return ",".join(items if len(items) <= _MOST_ITEMS else [items[0], "...", items[-1]])
    return f"{default:.4g}" if isinstance(default, float) else str(default)
