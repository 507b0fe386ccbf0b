"""Docstrings are numpydoc: every parameter has a type on its line and a description below it."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ktfast"
FILES = sorted(PACKAGE.rglob("*.py"))
SECTIONS = ("Parameters", "Attributes", "Returns", "Yields", "Raises")
ENTRY = re.compile(r"(?P<names>[\w*.`]+(, [\w*.`]+)*) : (?P<type>\S.*)")


def sections_of(docstring):
    """The sections of a docstring: {name: lines}, without the common indentation."""
    lines = docstring.expandtabs().splitlines()
    found, name = {}, None
    for number, line in enumerate(lines):
        following = lines[number + 1].strip() if number + 1 < len(lines) else ""
        is_ruled = bool(following) and set(following) == {"-"}
        if is_ruled and line.strip() in (*SECTIONS, "Notes", "Examples"):
            name = line.strip()
            found[name] = []
        elif name is not None and not (set(line.strip()) == {"-"} and not found[name]):
            found[name].append(line)
    return found


def entries_of(lines):
    """The entries of a section: (first line, whether an indented description follows)."""
    filled = [line for line in lines if line.strip()]
    if not filled:
        return
    left = min(len(line) - len(line.lstrip()) for line in filled)
    for number, line in enumerate(filled):
        if len(line) - len(line.lstrip()) == left:
            following = filled[number + 1] if number + 1 < len(filled) else ""
            yield line.strip(), len(following) - len(following.lstrip()) > left


def faults_of(path):
    """What is wrong with the docstrings of a file, one line each."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        for section, lines in sections_of(ast.get_docstring(node) or "").items():
            if section not in SECTIONS:
                continue
            for entry, described in entries_of(lines):
                named = section in ("Parameters", "Attributes")
                if named and not ENTRY.fullmatch(entry):
                    yield f"{node.name}, {section}: {entry!r} is not `name : type`"
                elif not described:
                    yield f"{node.name}, {section}: {entry!r} has no description below it"
                elif section == "Raises" and not re.fullmatch(r"[\w., ]+", entry):
                    yield f"{node.name}, Raises: {entry!r} is not the name of an exception"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_docstrings_are_numpydoc(path):
    assert list(faults_of(path)) == []


def test_faults_are_seen(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        'def f(a, b):\n    """Do.\n\n    Parameters\n    ----------\n    a : int\n        Number.\n'
        '    b : what it is.\n\n    Returns\n    -------\n    the sum.\n    """\n'
    )
    assert len(list(faults_of(path))) == 2
