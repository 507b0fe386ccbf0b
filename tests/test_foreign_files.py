"""Damaged files of every format end in one error that names the file, and never in a crash."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import ktfast
from support.foreign_files import FORMATS
from support.fuzzing import SLOW
from support.mutate import mutations

ROOT = Path(__file__).parents[1]
SOURCES = Path(ktfast.__file__).parents[1]
MUTATIONS = 2000


@pytest.fixture(scope="module")
def reports() -> dict[str, dict[str, object]]:
    """What a process with bounded memory says about each format; a crash ends the process."""
    done = subprocess.run(
        [sys.executable, "-m", "support.fuzzing", str(MUTATIONS), *FORMATS],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{SOURCES}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"},
        timeout=1000,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"the reader of {lines[-1:]} died:\n{done.stderr[-2000:]}"
    return {line["format"]: line for line in lines}


@pytest.mark.slow
@pytest.mark.timeout(1100)  # half a minute of one core, which other processes may share
@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files_are_refused_by_name(reports, name):
    report = reports[name]
    assert report["escaped"] == {}
    assert report["files"] >= MUTATIONS
    assert report["longest"] < SLOW


def test_the_mutations_are_the_same_for_the_same_seed():
    content = bytes(range(200)) + b"word 17"
    first = list(mutations(content, 300, 1))
    assert first == list(mutations(content, 300, 1))
    assert len(set(first)) > 290
    assert content not in first
    assert len(set(mutations(b"", 50, 1))) > 3


# --- no reader outside the boundary ---------------------------------------------------------------
# Calls that read files of other programs, as they are written in the code.
READERS = {
    "np.load", "np.fromfile", "np.memmap", "np.genfromtxt", "np.loadtxt", "loadmat", "NpzFile",
    "np.lib.format.read_array", "zipfile.ZipFile", "tarfile.open", "json.load", "json.loads",
    "ElementTree.parse", "ElementTree.fromstring", "ElementTree.iterparse", "csv.reader",
    "csv.DictReader", "torch.load", "safetensors.safe_open", "safetensors.torch.load_file",
    "safetensors.torch.load", "safe_open", "load_file", "tomllib.load", "tomllib.loads",
    "pickle.load", "pickle.loads", "Image.open",
}  # fmt: skip
# Files whose readers lie outside `with reading(...)`, and the reason.
EXCEPTIONS = {
    "durable.py": "a line of JSON that is damaged is None, see parse_row",
    "images/opening.py": "damaged images are a DecodeError, which a set of images lists",
    "models/weight_files.py": "the message of torch advises to run code, and must not be shown",
    "config/run.py": "the text of one option on the command line",
    "training/identity.py": "JSON that ktfast itself has just made",
    "pipeline/question.py": "JSON that ktfast itself has just made",
    "features/writer.py": "JSON that ktfast itself has just made",
    "kmeans/distributed/ranks.py": "messages of the other processes of the same fit, not files",
    "pipeline/team.py": "messages of the other processes of the same run, not files",
    "features/transform.py": "a temporary file of ktfast without a name",
    "bench": "files that the benchmark itself has just made",
}


def calls_outside(source: str) -> set[str]:
    """Names of the calls that read files outside every `with reading(...)` of their function."""
    found: set[str] = set()

    def visit(node: ast.AST, inside: bool) -> None:
        if isinstance(node, ast.With):
            # An item of the same `with` is inside if it follows reading(...).
            for item in node.items:
                visit(item.context_expr, inside)
                inside |= ast.unparse(item.context_expr).startswith("reading(")
            for child in node.body:
                visit(child, inside)
            return
        if isinstance(node, ast.Call) and not inside and ast.unparse(node.func) in READERS:
            found.add(ast.unparse(node.func))
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            inside = False
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(ast.parse(source), False)
    return found


def test_every_reader_of_files_lies_within_the_boundary():
    outside = {
        str(path.relative_to(ROOT / "ktfast")): calls
        for path in sorted((ROOT / "ktfast").rglob("*.py"))
        if (calls := calls_outside(path.read_text()))
    }
    excused = {name for name in outside if name in EXCEPTIONS or name.split("/")[0] in EXCEPTIONS}
    wrong = {name: calls for name, calls in outside.items() if name not in excused}
    assert wrong == {}, "read the file within `with reading(path, what, remedy)` of ktfast.errors"
    used = {name if name in EXCEPTIONS else name.split("/")[0] for name in excused}
    assert used == EXCEPTIONS.keys(), "an exception is not needed any more"


def test_calls_outside_the_boundary_are_found():
    source = (
        "with reading(p, 'JSON'), open(p) as file:\n    json.loads(file.read())\n"
        "def f(p):\n    with open(p) as file:\n        return torch.load(file)\n"
        "with np.load(p) as file, reading(p, 'x'):\n    pass\n"
        "with reading(p, 'x'), zipfile.ZipFile(p) as archive:\n    pass\n"
    )
    assert calls_outside(source) == {"torch.load", "np.load"}
