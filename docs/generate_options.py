"""MkDocs hook: fill the page of options from the configuration, so that it is never out of date.

The page `reference/options.md` contains the marker `<!-- options -->`. This hook replaces the
marker by one table for each group of options.
"""

import sys
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

sys.path.insert(0, str(Path(__file__).parents[1]))  # the checkout, unless ktfast is installed

MARKER = "<!-- options -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the marker of a page by the tables of all options (called by MkDocs)."""
    return markdown.replace(MARKER, tables()) if MARKER in markdown else markdown


def tables() -> str:
    """Return one Markdown heading and table for each group of options."""
    from ktfast.config import options

    groups: dict[str, list[str]] = {}
    for name, (kind, default, text) in options().items():
        group, _, _ = name.rpartition(".")
        row = f"| `{name}` | {_kind(kind)} | {_default(default)} | {_cell(text)} |"
        groups.setdefault(group or "general", []).append(row)
    head = "| option | values | default | meaning |\n|---|---|---|---|"
    return "\n\n".join(
        "\n".join([f"## {group}", "", head, *rows]) for group, rows in groups.items()
    )


def _kind(annotation: Any) -> str:
    """Return the values that an option takes, in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is tuple:
        return f"list of {_kind(arguments[0])}"
    if origin is dict:
        return "table"
    if origin in (Union, types.UnionType):
        return " or ".join(_kind(part) for part in arguments if part is not type(None))
    if hasattr(annotation, "__metadata__"):
        return _kind(arguments[0])
    words = {int: "integer", float: "number", str: "text", bool: "`true`, `false`", Path: "path"}
    return words.get(annotation, str(annotation))


def _default(value: Any) -> str:
    """Return a default as the command line takes it."""
    if value is None or value == "":
        return "not set"
    if isinstance(value, tuple):
        return "`[" + ", ".join(_plain(item) for item in value) + "]`"
    return f"`{_plain(value)}`"


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
