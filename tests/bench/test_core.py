"""Rows of benchmarks in processes of their own, tables, and the description of the machine."""

import json
import os
import subprocess
import sys

import pytest

from ktfast.bench.core.machine import machine
from ktfast.bench.core.row import run_row
from ktfast.bench.core.table import markdown, save, spread

ROWS = """
import os, sys, time

def environment(names):
    print("a library's chatter")
    return {name: os.environ.get(name) for name in names}

def abort():
    print("terminate called", file=sys.stderr)
    os.abort()

def fail():
    raise ValueError("the reason")

def leave():
    sys.exit(3)

def sleep():
    time.sleep(60)

def chat_at_exit():
    import atexit
    atexit.register(print, "bye")
    return {"value": 1}

def lack():
    import sklearnex_that_is_not_here.cluster
"""


@pytest.fixture
def rows(tmp_path, monkeypatch):
    (tmp_path / "some_rows.py").write_text(ROWS)
    monkeypatch.syspath_prepend(tmp_path)
    return lambda name, **arguments: run_row(f"some_rows:{name}", arguments, threads=3)


def test_a_row_starts_without_what_tunes_libraries(rows, monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("MKL_DYNAMIC", "false")
    names = ["OPENBLAS_CORETYPE", "OMP_NUM_THREADS", "MKL_DYNAMIC", "PATH", "OPENBLAS_X"]
    assert rows("environment", names=names) == {
        "OPENBLAS_CORETYPE": None,
        "OMP_NUM_THREADS": "3",
        "MKL_DYNAMIC": None,
        "PATH": os.environ["PATH"],
        "OPENBLAS_X": None,
    }
    given = run_row(
        "some_rows:environment",
        {"names": ["OPENBLAS_CORETYPE"]},
        threads=1,
        environment={"OPENBLAS_CORETYPE": "SkylakeX"},
    )
    assert given == {"OPENBLAS_CORETYPE": "SkylakeX"}


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("abort", "aborted (exit 134): terminate called"),
        ("fail", "failed (exit 1): ValueError: the reason"),
        ("leave", "failed (exit 3)"),
        ("lack", "missing: pip install sklearnex_that_is_not_here"),
    ],
)
def test_what_goes_wrong_is_said(rows, name, problem):
    assert rows(name) == {"problem": problem}


def test_a_row_that_hangs_is_stopped(rows):
    stopped = run_row("some_rows:sleep", {}, threads=1, timeout=1)
    assert stopped == {"problem": "stopped after 1 s"}


def test_what_is_printed_after_the_result_is_no_result(rows):
    assert rows("chat_at_exit") == {"value": 1}


def test_a_table_keeps_its_columns():
    table = markdown(["a", "bb"], [["1", "x|y"], ["222", ""]])
    assert table.splitlines() == [
        "| a   | bb  |",
        "|-----|-----|",
        "| 1   | x/y |",
        "| 222 |     |",
    ]


def test_spread_is_the_median_and_the_range():
    assert spread([3.0, 1.0, 2.0]) == (2.0, 1.0, 3.0)
    assert spread([3.0, 1.0, 2.0]).text(1) == "2.0 (1.0-3.0)"


def test_results_are_saved_into_a_new_folder(tmp_path):
    save(tmp_path / "a" / "b", "name", {"value": 1.5}, "text\n\n")
    assert json.loads((tmp_path / "a" / "b" / "name.json").read_text()) == {"value": 1.5}
    assert (tmp_path / "a" / "b" / "name.md").read_text() == "text\n"


def test_the_machine_is_described():
    facts = machine(("numpy", "a-package-that-is-not-there"))
    assert facts["cores"] == str(len(os.sched_getaffinity(0)))
    assert facts["instructions"].split()[0] in ("scalar", "avx2", "avx512", "amx")
    assert facts["numpy"].count(".") >= 1
    assert "a-package-that-is-not-there" not in facts


def test_a_missing_library_of_the_subject_is_named():
    code = (
        "import sys; sys.path = [p for p in sys.path if p]; sys.modules['matplotlib'] = None;"
        "from ktfast.cli.main import main; sys.exit(main(['bench', 'kmeans']))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 2
    assert "matplotlib is not installed" in done.stderr
    assert '"ktfast[train,bench]"' in done.stderr
