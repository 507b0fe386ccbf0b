"""The GPU session's script: a dry run on the CPU, and how failures are reported."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import hardware_tests
import plan
import process
import pytest
import results
import session as gpu_session

from support import hardware_kernels

BENCHMARKS = Path(__file__).parents[3] / "benchmarks" / "gpu"
OPS = ("jigsaw_tiles", "kmeans_assign", "kmeans_update", "KMeans")
MEASURED = (
    "bench:jigsaw_tiles", "kmeans:phases", "kmeans:fits", "kmeans:stream", "peers:256",
)  # fmt: skip

# The script imports the files beside it, as when a user calls it.
RUN_AS_SCRIPT = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}


def run_session(out, *options):
    """Exit status and results of a dry session with the ktfast under test."""
    package = Path(importlib.util.find_spec("ktfast").origin).parents[1]
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "session.py", "--dry-run", "--out", out, *options],
        env=RUN_AS_SCRIPT | {"PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    found = json.loads((out / "gpu_session.json").read_text())
    return done.returncode, found, (out / "gpu_session.md").read_text()


@pytest.fixture
def session(tmp_path):
    """A session that runs commands for a minute at most."""
    limits = {"build": 50, "tests": 50}
    return process.Session(tmp_path, dry_run=True, minutes=1, limits=limits)


def test_a_dry_run_fills_every_table(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("matplotlib")
    status, found, text = run_session(tmp_path, "--seed", "5", "--skip", "train")
    assert status == 0, text
    assert found["facts"]["seed"] == 5
    assert found["facts"]["command"].endswith("--seed 5 --skip train")
    assert [section["name"] for section in found["sections"]] == [
        "everything", "tests", "sanitize",
    ]  # fmt: skip
    rows = [row for section in found["sections"] for row in section["rows"]]
    assert not any("error" in row or row.get("failed") for row in rows)
    assert [row["passed"] > 0 for row in rows if "passed" in row] == [True]
    ends = [row for row in rows if row.get("section") == "end_to_end"]
    assert [row["job"] for row in ends] == ["alexnet-tiny", "K-means of features"]
    assert ends[0]["images_per_s"] > 0
    assert ends[1]["equal"] == 1
    for op in OPS:
        compared = [row for row in rows if row.get("section") == f"compare:{op}"]
        assert compared
        assert all(row["equal"] == 1 and row["same_again"] for row in compared)
        assert f"## compare:{op}\n\n| case |" in text
    for name in MEASURED:
        timed = [row for row in rows if row.get("section") == name]
        assert timed
        assert all(row["ms"] > 0 for row in timed)
        assert f"## {name}\n\n| case |" in text
    assert all(row["of_copy"] > 0 for row in rows if "gb_per_s" in row and "ms" in row)
    assert all(row["of_peak"] > 0 for row in rows if "peak" in row)
    check_findings([row for row in rows if "section" in row])


def check_findings(rows):
    """Brute force agrees with every label, and streaming changes no bit."""
    exact = [row for row in rows if row["section"] == "kmeans:exact"]
    assert {(row["precision"], row["rows"]) for row in exact} == {
        (precision, rows) for precision in ("exact", "float32") for rows in ("sample", "near-ties")
    }
    assert all(row["wrong"] == 0 and row["equal"] == 1 for row in exact)
    assert all(row["equal_distances"] == 1 and row["n_rows"] > 300 for row in exact)
    [streamed] = [row for row in rows if row["section"] == "kmeans:stream"]
    assert streamed["same_again"] is True
    assert streamed["of_link"] > 0


def test_a_session_without_time_names_what_did_not_fit(tmp_path):
    status, found, text = run_session(tmp_path, "--minutes", "0")
    assert status == 1
    assert all(section["failed"] for section in found["sections"])
    assert text.count("not run: the time was up") >= len(found["sections"])


def test_unknown_parts_are_refused(tmp_path):
    command = [sys.executable, BENCHMARKS / "session.py", "--dry-run", "--only", "buidl"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tmp_path, env=RUN_AS_SCRIPT
    )
    assert done.returncode == 1
    assert done.stderr.startswith("there is no part buidl; the parts are build, paths, compare, ")


def test_parts_are_chosen_by_name_or_group():
    assert list(plan.chosen("", "")) == list(plan.PARTS)
    assert list(plan.chosen("build,kmeans", "")) == [
        "build", "kmeans:phases", "kmeans:fits", "kmeans:exact", "kmeans:stream",
    ]  # fmt: skip
    assert list(plan.chosen("kmeans,peers:256", "kmeans:fits,kmeans:exact")) == [
        "kmeans:phases", "kmeans:stream", "peers:256",
    ]  # fmt: skip
    assert "tests" not in plan.chosen("", "tests")


def test_every_part_has_a_limit_and_is_measured_somewhere():
    pytest.importorskip("torch")
    import measure

    groups = {name.partition(":")[0] for name in plan.PARTS}
    assert groups <= set(plan.LIMITS)
    sections = {section for name in plan.PARTS for section in plan.sections_of(name)}
    assert sections <= set(measure.SECTIONS)
    assert set(plan.COMPARISONS) <= sections


def test_no_part_of_five_minutes_starves_a_later_one():
    """Every part keeps its seconds, even if each earlier part takes all the time that it may."""
    session_seconds = 5 * 60 - process.CLOSING
    assert sum(plan.FIRST.values()) <= session_seconds
    assert list(plan.FIRST) == list(plan.PARTS[: len(plan.FIRST)])
    now = 0.0
    for place, (name, seconds) in enumerate(plan.FIRST.items()):
        end = session_seconds - plan.reserved(plan.PARTS[place + 1 :], 5 * 60)
        assert end - now >= seconds
        limit = plan.LIMITS.get(name) or plan.LIMITS[name.partition(":")[0]]
        now = min(now + limit, end)
    assert plan.reserved(["compare"], 1.0) < 1


def test_a_part_leaves_the_reserved_time(session):
    ends = []
    session.section("build", lambda section: ends.append(section.left()), reserved=30)
    assert 20 < ends[0] <= 27
    session.section("build", lambda section: ends.append(section.left()), reserved=58)
    assert session.sections[-1].problem == "not run: the time was up"


def test_each_part_is_one_process_except_in_a_dry_run(session):
    parts = gpu_session.Parts(session, gpu_session.argparse.Namespace(seed=1, images=None))
    names = ["build", "compare", "kmeans:phases", "tests"]
    assert [name for name, _ in gpu_session.planned(parts, names)] == ["everything", "tests"]
    parts.dry_run = False
    planned = gpu_session.planned(parts, names)
    assert [name for name, _ in planned] == names
    assert planned[1][1].keywords["names"] == plan.COMPARISONS


def test_the_commands_of_the_builds_for_other_gpus():
    assert hardware_tests.JIT == {"jit75": "75-virtual", "jit80": "80-virtual"}
    assert set(hardware_tests.JIT) < set(hardware_kernels.PLACES)
    assert hardware_tests.MODULES == hardware_kernels.MODULES
    command = gpu_session.configuration(Path("x"), "75-virtual", "-DKTFAST_INPLACE=OFF")
    assert {"-DCMAKE_CUDA_ARCHITECTURES=75-virtual", "-DKTFAST_INPLACE=OFF"} < set(command)


def test_tests_of_the_gpu_are_found():
    names = {path.stem for path in hardware_tests.files()}
    assert {"test_philox", "test_jigsaw_tiles", "test_kmeans_assign", "test_kmeans_update"} <= names
    assert {"test_hard_inputs", "test_minibatch", "test_progress"} <= names
    assert {"test_kmeans_tensor", "test_emulated"} <= names
    assert not names & {"test_session", "test_report", "test_bench_kmeans"}


COLLECT = """
import sys
import pytest
ABSENT = set(sys.argv[1].split())

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
options = ["--collect-only", "-q", "-p", "no:cacheprovider", "-o", "addopts=", "-W", "default"]
sys.exit(pytest.main([*options, "--import-mode=importlib", *sys.argv[2:]]))
"""


def test_tests_of_kernels_are_collected_without_the_libraries_of_trainings():
    """A machine lent for kernels may lack pydantic, tomli_w, DALI, rich and matplotlib."""
    pytest.importorskip("torch")
    absent = " ".join((*hardware_tests.TRAINING, "nvidia", "rich"))
    files = [path for path in hardware_tests.files() if not hardware_tests.not_run(path, absent)]
    assert len(files) > 15
    done = subprocess.run(
        [sys.executable, "-c", COLLECT, absent, *files],
        cwd=process.ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]


def test_tests_whose_libraries_are_absent_are_named():
    path = process.ROOT / "tests" / "training" / "test_resume.py"
    row = hardware_tests.not_run(path, "pydantic tomli_w\n")
    assert row == {
        "file": "tests/training/test_resume.py",
        "instead": "not run: needs the wheels of pydantic, tomli_w",
    }
    assert hardware_tests.not_run(path, "\n") is None
    assert hardware_tests.not_run(process.ROOT / "tests/ops/test_kmeans_tensor.py", "x") is None
    command = [sys.executable, "-c", hardware_tests.FIND_ABSENT, "json", "no_such_library"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == (
        "no_such_library\n"
    )


def test_the_gpu_decides_what_is_built():
    assert gpu_session.architecture_of({"capability": "9.0"}) == "90-real"
    assert gpu_session.architecture_of({"capability": "12.0"}) == "120-real"
    assert gpu_session.architecture_of({}) == "native"


# --- failures -------------------------------------------------------------------------------------
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


def test_what_a_section_measured_before_it_was_stopped_is_kept(session, monkeypatch):
    """A process that prints a row, then hangs; and one that crashes."""
    line = '{"section": "kmeans:fits", "ms": 1.5}'
    for ending, problem in (
        ("sleep 60", "stopped after 2 s"),
        ("kill -SEGV $$", "exit status -11"),
    ):
        parts = gpu_session.Parts(session, gpu_session.argparse.Namespace(seed=1, images=None))
        script = f"echo '{line}'; {ending}"
        run = session.run
        monkeypatch.setattr(
            session,
            "run",
            lambda name, _, seconds, run=run, s=script: run(name, ["sh", "-c", s], 2),
        )
        session.section("tests", lambda section, p=parts: p.measure(section, ["kmeans:fits"]))
        monkeypatch.undo()
        section = session.sections[-1]
        assert section.problem == problem
        assert section.rows[0]["ms"] == 1.5
        assert line in section.rows[1]["error"]
        assert section.failed()


def test_outcomes_of_a_run_that_was_cut_short():
    output = (
        "tests/test_a.py::test_b[x y] PASSED [ 10%]\ntests/test_a.py::test_c SKIPPED (no) [2%]\n"
    )
    output += "tests/test_a.py::test_d FAILED\ntests/test_a.py::test_e "
    assert hardware_tests.count_outcomes(output) == {"passed": 1, "failed": 1, "skipped": 1}


@pytest.mark.parametrize(
    "row",
    [
        {"error": "x"},
        {"failed": 1},
        {"errors": 2},
        {"wrong": 1},
        {"equal": 0.999},
        {"equal_distances": 0.5},
        {"same_again": False},
        {"found": False},
    ],
)
def test_what_counts_as_failed(row):
    good = {"passed": 3, "failed": 0, "errors": 0, "wrong": 0, "equal": 1.0, "same_again": True}
    assert not results.row_failed(good | {"found": True, "instead": "missing"})
    assert results.row_failed(good | row)


def test_rates_stand_beside_their_ceilings():
    rows = [
        {"section": "ceilings", "engine": "matmul int8", "tflop_per_s": 200.0},
        {"section": "ceilings", "engine": "copy", "gb_per_s": 3000.0},
        {"ms": 1, "tflop_per_s": 50.0, "peak": "matmul int8", "gb_per_s": 1500.0},
        {"ms": 1, "tflop_per_s": 50.0, "peak": "matmul float16"},
    ]
    results.add_shares([results.Section("s", rows=rows)])
    assert (rows[2]["of_peak"], rows[2]["of_copy"]) == (0.25, 0.5)
    assert "of_peak" not in rows[3]
    assert "of_copy" not in rows[1]


def test_cells_show_as_many_digits_as_are_compared():
    assert results.text_of(7103228.512, "inertia") == "7103228.512"
    assert results.text_of(7103228.512, "rows") == "7,103,229"
    assert results.text_of(0.123456, "of_peak") == "0.1235"
    assert results.text_of(None) == ""
    assert results.text_of("a|b\nc") == "a\\|b c"
