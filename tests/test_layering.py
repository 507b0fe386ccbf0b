"""Imports and includes point down only, and importing ktfast stays cheap."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ktfast

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ktfast"
CSRC = ROOT / "csrc"

# The eight levels of the package, from the bottom up. A unit is a folder or a file directly in
# ktfast/. A unit imports itself and units of the levels below its own.
LEVELS = [
    {
        "errors",
        "durable",
        "manifest",
        "optional",
        "readers",
        "remote",
        "tables",
        "reference",
        "sample_ids",
    },
    {"native"},
    {"ops"},
    {"kmeans", "images", "models", "config"},
    {"features", "training", "evaluation"},
    {"objectives", "pretext", "voc"},
    {"pipeline", "report"},
    {"cli", "bench"},
]
LEVEL_OF = {unit: number for number, level in enumerate(LEVELS, 1) for unit in level}
# Imports between units of one level; every one needs a reason.
SIBLINGS = {
    ("durable", "errors"),  # a damaged file is a DataError
    ("optional", "errors"),  # messages spell names that are not UTF-8
    ("readers", "errors"),  # a file that cannot be read is a DataError
    ("sample_ids", "errors"),  # two paths with one sample id are a DataError
    ("tables", "durable"),  # a table is complete or absent, as every file
    ("manifest", "errors"),  # so is a file that differs from its manifest
    ("manifest", "durable"),  # which hashes files
    ("remote", "errors"),  # a stored file that cannot be read is a DataError
    ("remote", "durable"),  # which hashes files
    ("pipeline", "report"),  # the runner ends with the report
}
# Files that only give another name to what lies deeper.
ALIASES = {"faiss_compat": "kmeans", "__main__": "cli"}
STAGES = {"prepare", "pretext", "features", "cluster", "transfer", "evaluate", "voc"}
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


def unit_of(dotted):
    name = dotted.removeprefix("ktfast.").split(".")[0]
    return ALIASES.get(name, name)


def dotted_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path):
    """Every module a file imports, at its top or inside a function, absolute."""
    package = dotted_name(path) if path.name == "__init__.py" else dotted_name(path.parent)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def inside(names):
    """The imports that lead into the package, without what it merely re-exports."""
    modules = {dotted_name(p) for p in MODULES} | {"ktfast.native._cpu", "ktfast.native._cuda"}
    return {name for name in names if name in modules}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: dotted_name(p))
def test_imports_point_down(path):
    dotted = dotted_name(path)
    unit = unit_of(dotted)
    imported = {unit_of(name) for name in inside(imports_of(path))} - {unit}
    assert unit in LEVEL_OF, f"{unit} has no level yet: put it into LEVELS"
    wrong = {
        other
        for other in imported
        if LEVEL_OF[other] >= LEVEL_OF[unit] and (unit, other) not in SIBLINGS
    }
    assert wrong == set(), f"{dotted} on level {LEVEL_OF[unit]} may not import {wrong}"
    if unit != "native":
        compiled = {"ktfast.native._cpu", "ktfast.native._cuda"}
        assert not inside(imports_of(path)) & compiled, "only ktfast.native imports them"


def test_no_module_imports_itself_in_a_circle():
    # A package's __init__ only names what lies in its modules.
    files = [path for path in MODULES if path.name != "__init__.py"]
    graph = {dotted_name(path): inside(imports_of(path)) for path in files}
    while leaves := {name for name, found in graph.items() if not found & graph.keys()}:
        for name in leaves:
            del graph[name]
    assert graph.keys() == set()


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_no_stage_imports_another(stage):
    path = PACKAGE / "pipeline" / "stages" / f"{stage}.py"
    others = {f"ktfast.pipeline.stages.{name}" for name in STAGES - {stage}}
    assert inside(imports_of(path)) & others == set()


def test_a_step_imports_no_stage():
    for path in (PACKAGE / "pipeline" / "steps").glob("*.py"):
        imported = inside(imports_of(path))
        assert not any(name.startswith("ktfast.pipeline.stages") for name in imported), path.name


def test_the_specification_is_independent():
    for path in (PACKAGE / "reference").glob("*.py"):
        roots = {name.split(".")[0] for name in imports_of(path)}
        assert roots <= {"ktfast", "numpy", "math", "typing", "dataclasses"}, path.name


def test_imports_of_every_form_are_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / "ktfast" / "data" / "module.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "import ktfast.cli.main\n"
        "def f():\n    from ktfast.native import _cpu\n    from ..ops import x\n"
    )
    assert set(imports_of(path)) == {
        "ktfast.cli.main", "ktfast.native", "ktfast.native._cpu", "ktfast.ops", "ktfast.ops.x"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("import ktfast.ops; ktfast.KMeans", "torch cupy pydantic PIL sklearn.metrics"),
        # Everything that a finished run needs before its report is written.
        (
            "import ktfast.pipeline.chain, ktfast.pipeline.feasibility, ktfast.pipeline.runner",
            "sklearn scipy.stats torchvision torch._dynamo matplotlib pandas",
        ),
    ],
    ids=["ktfast", "pipeline"],
)
def test_importing_ktfast_is_light(tmp_path, code, heavy):
    code += f"; import sys; print([m for m in {heavy.split()} if m in sys.modules])"
    folder = Path(ktfast.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,  # where no ktfast lies, so that the tested one is imported
        env={"PYTHONPATH": str(folder)},
    )
    assert done.stdout.strip() == "[]"


# --- C++ ------------------------------------------------------------------------------------------
OPS = sorted(p.name for p in CSRC.iterdir() if p.is_dir() and p.name not in ("common", "bindings"))
SOURCES = sorted(p for p in CSRC.rglob("*") if p.suffix in {".h", ".cuh", ".cpp", ".cu"})
# Folders whose files are built with the flags of an instruction set that not every processor has.
ISA_FOLDERS = {"avx2", "avx512", "avx512vnni", "avx512bf16", "amx", "neon", "neondot"}


def includes_of(path):
    return re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', path.read_text(), re.MULTILINE)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(CSRC)))
def test_includes_point_down(path):
    folder = path.relative_to(CSRC).parts[0]
    own = {name.split("/")[0] for name in includes_of(path) if "/" in name} & {
        "bindings", "common", *OPS
    }  # fmt: skip
    allowed = {"common": {"common"}, "bindings": {"bindings", "common", *OPS}}
    assert own <= allowed.get(folder, {folder, "common"})
    if folder != "bindings":
        assert not any("pybind11" in name or "dlpack" in name for name in includes_of(path))


@pytest.mark.parametrize("op", OPS)
def test_an_op_starts_with_its_contract(op):
    """Both entry points include their contract first, and the contract needs no CUDA header."""
    contract = f"{op}/{op}.h"
    assert (CSRC / contract).exists()
    assert not any("cuda" in name for name in includes_of(CSRC / contract))
    for backend in {p.name for p in (CSRC / op).iterdir() if p.is_dir()}:
        sources = [p for p in (CSRC / op / backend).rglob("*") if p.suffix in {".cpp", ".cu"}]
        users = [p for p in sources if contract in includes_of(p)]
        assert users != [], f"no file of {op}/{backend} includes {contract}"
        for path in users:
            assert includes_of(path)[0] == contract, str(path)


@pytest.mark.parametrize("op", OPS)
def test_a_backend_includes_nothing_of_the_other(op):
    for path in (p for p in SOURCES if p.is_relative_to(CSRC / op)):
        backend = path.relative_to(CSRC / op).parts[0]
        others = {"cpu": "cuda", "cuda": "cpu"}.get(backend)
        assert others is None or not any(f"/{others}/" in name for name in includes_of(path))


@pytest.mark.parametrize(
    "path",
    [p for p in SOURCES if p.parent.name in ISA_FOLDERS],
    ids=lambda p: str(p.relative_to(CSRC)),
)
def test_isa_files_instantiate_no_shared_templates(path):
    """Library templates compiled with ISA flags could be the copy the linker keeps for everyone."""
    heavy = {"algorithm", "vector", "string", "memory", "functional", "map", "numeric", "limits"}
    assert heavy & set(includes_of(path)) == set()
