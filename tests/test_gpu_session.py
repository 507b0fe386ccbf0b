"""The GPU session's script, dry: the same way on the CPU, and what it makes of failures."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
OPS = ("jigsaw_tiles", "kmeans_assign", "kmeans_update", "KMeans")


def run_session(out, *options):
    """Exit status and results of a dry session with the ktfast under test."""
    package = Path(importlib.util.find_spec("ktfast").origin).parents[1]
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "gpu_session.py", "--dry-run", "--out", out, *options],
        env=os.environ | {"PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    results = json.loads((out / "gpu_session.json").read_text())
    return done.returncode, results, (out / "gpu_session.md").read_text()


@pytest.fixture
def session(monkeypatch, tmp_path):
    """A session of the script, imported."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu_session

    return gpu_session.Session(tmp_path, dry_run=True, minutes=1, seed=1)


def test_dry_run_fills_every_table(tmp_path):
    pytest.importorskip("torch")
    status, results, text = run_session(tmp_path, "--seed", "5")
    assert status == 0, text
    assert results["facts"]["seed"] == 5
    assert results["facts"]["command"].endswith("--seed 5")
    rows = [row for section in results["sections"] for row in section["rows"]]
    assert not any("error" in row or row.get("failed") for row in rows)
    assert rows[0]["passed"] > 0
    for op in OPS:
        compared = [row for row in rows if row.get("section") == f"compare:{op}"]
        assert compared
        assert all(row["equal"] == 1 and row["same_again"] for row in compared)
        timed = [row for row in rows if row.get("section") == f"bench:{op}"]
        assert timed
        assert all(row["ms"] > 0 for row in timed)
        assert f"## compare:{op}\n\n| case |" in text
        assert f"## bench:{op}\n\n| case |" in text
    assert all(row["of_copy"] > 0 for row in rows if "gb_per_s" in row)
    assert all(row["of_bfloat16_matmul"] > 0 for row in rows if "tflop_per_s" in row)


def test_a_session_without_time_ends_at_once_and_says_so(tmp_path):
    status, results, text = run_session(tmp_path, "--minutes", "0")
    assert status == 1
    assert all(section["failed"] for section in results["sections"])
    assert text.count("not run: the time was up") >= len(results["sections"])


def test_a_command_is_stopped_with_its_children(session):
    command = ["sh", "-c", "echo begun; sleep 60 & sleep 60"]
    assert session.run("sleepy", command, 1.0) == ("begun\n", "stopped after 1 s")


def test_a_section_that_raises_leaves_the_others(session, tmp_path):
    def broken(section):
        section.rows.append({"done": 1})
        raise OSError("no such tool")

    session.section("build", broken)
    session.section("tests", lambda section: None)
    found = json.loads((tmp_path / "gpu_session.json").read_text())["sections"]
    assert found[0]["problem"] == "OSError: no such tool"
    assert [section["failed"] for section in found] == [True, False]
    assert found[0]["rows"] == [{"done": 1}]


def test_outcomes_of_a_run_that_was_cut_short(session):
    import gpu_session

    output = (
        "tests/test_a.py::test_b[x y] PASSED [ 10%]\ntests/test_a.py::test_c SKIPPED (no) [2%]\n"
    )
    output += "tests/test_a.py::test_d FAILED\ntests/test_a.py::test_e "
    assert gpu_session.count_outcomes(output) == {"passed": 1, "failed": 1, "skipped": 1}


@pytest.mark.parametrize(
    "row",
    [{"error": "x"}, {"failed": 1}, {"errors": 2}, {"equal": 0.999}, {"same_again": False}],
)
def test_what_counts_as_failed(session, row):
    import gpu_results

    good = {"passed": 3, "failed": 0, "errors": 0, "equal": 1.0, "same_again": True}
    assert not gpu_results.row_failed(good)
    assert gpu_results.row_failed(good | row)
