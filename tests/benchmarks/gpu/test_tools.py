"""What the GPU session reads from NVIDIA's tools, and the bug that memcheck must find."""

import shutil
import subprocess
import sys
import zipfile
from argparse import Namespace
from inspect import signature

import ncu
import process
import pytest
import sanitize
import session as gpu_session

MEMCHECK = """\
{"section": "compare:KMeans", "equal": 1.0}
========= COMPUTE-SANITIZER
========= Invalid __global__ write of size 4 bytes
=========     at %s+0x70 in source.cu:16
=========     by thread (63,0,0) in block (0,0,0)
=========     Address 0x7f0000000100 is out of bounds
========= ERROR SUMMARY: 1 error
"""
CLEAN = "========= COMPUTE-SANITIZER\n========= ERROR SUMMARY: 0 errors\n"
OURS = "ktfast::cuda::<unnamed>::assign_kernel<float>(ktfast::KmeansAssignParams)"


def report(kernel):
    return MEMCHECK.replace("%s", kernel)


def test_the_planted_bug_must_be_found_in_its_kernel():
    output = report(f"<unnamed>::{sanitize.PLANTED_KERNEL}(float *)")
    assert sanitize.planted_row(output, "exit status 9")["found"] is True
    assert sanitize.planted_row(CLEAN, "")["found"] is False
    other = report("another_kernel(float *)")
    assert sanitize.planted_row(other, "exit status 9")["found"] is False
    stopped = sanitize.planted_row("", "stopped after 30 s")
    assert stopped["found"] is False
    assert stopped["summary"] == "no summary; stopped after 30 s"


def test_a_finding_in_our_kernels_is_an_error():
    row = sanitize.kernels_row(4, report(OURS), "exit status 9")
    assert row["errors"] == 1
    assert "assign_kernel" in row["error"]
    clean = sanitize.kernels_row(4, CLEAN, "")
    assert clean["errors"] == 0
    assert "error" not in clean


@pytest.mark.parametrize(
    ("output", "problem"), [("", "stopped after 90 s"), (CLEAN, "exit status 1")]
)
def test_a_run_that_did_not_end_well_is_an_error(output, problem):
    assert sanitize.kernels_row(0, output, problem)["error"] == problem


def test_the_planted_bug_compiles(tmp_path):
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no nvcc on the PATH")
    program = tmp_path / "planted_bug"
    command = [nvcc, "-arch=sm_80", "-Werror", "all-warnings"]
    subprocess.run([*command, "-o", program, sanitize.SOURCE], check=True)
    assert f"{sanitize.PLANTED_KERNEL}(" in sanitize.SOURCE.read_text()


# --- the section, with tools that stand in for NVIDIA's -------------------------------------------
def tools(folder, scripts):
    """A folder of programs, by name and what a shell does for them."""
    folder.mkdir()
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def sanitized(tmp_path, monkeypatch):
    """Run the section with a script in place of compute-sanitizer; return the section."""

    def run(script):
        nvcc = 'while [ "$1" != -o ]; do shift; done; touch "$2"'  # builds an empty file
        folder = tools(tmp_path / "tools", {"nvcc": nvcc, "compute-sanitizer": script})
        monkeypatch.setenv("PATH", str(folder), prepend=":")
        session = process.Session(tmp_path, dry_run=True, minutes=1, limits={"sanitize": 50})
        parts = gpu_session.Parts(session, Namespace(seed=1, images=None))
        session.section("sanitize", parts.sanitize)
        return session.sections[0]

    return run


def script_that(*, finds_planted, finds_ours=False):
    """A stand-in for memcheck that finds the planted bug or not, and a bug of ours or not."""
    planted = report(f"{sanitize.PLANTED_KERNEL}(float *)") if finds_planted else CLEAN
    ours = report(OURS) if finds_ours else CLEAN
    return f"""case "$*" in
*planted_bug) cat <<'END'
{planted}END
exit 9;;
*) cat <<'END'
{ours}END
exit {9 if finds_ours else 0};;
esac"""


def test_clean_kernels_and_a_found_bug_are_good(sanitized):
    section = sanitized(script_that(finds_planted=True))
    assert [row.get("found") for row in section.rows] == [True, None]
    assert not section.failed()


def test_a_tool_that_finds_no_planted_bug_fails_the_session(sanitized):
    section = sanitized(script_that(finds_planted=False))
    assert section.rows[0]["found"] is False
    assert section.failed()


def test_a_bug_in_our_kernels_fails_the_session(sanitized):
    section = sanitized(script_that(finds_planted=True, finds_ours=True))
    assert section.rows[1]["errors"] == 1
    assert section.failed()


def test_without_the_tool_only_a_dry_run_goes_on(tmp_path, monkeypatch):
    session = process.Session(tmp_path, dry_run=True, minutes=1, limits={"sanitize": 50})
    monkeypatch.setattr(session, "which", lambda _: None)
    parts = gpu_session.Parts(session, Namespace(seed=1, images=None))
    session.section("sanitize", parts.sanitize)
    session.section("sanitize", lambda section: vars(parts).update(dry_run=False))
    session.section("sanitize", parts.sanitize)
    assert [section.failed() for section in session.sections] == [False, False, True]


# --- ncu ------------------------------------------------------------------------------------------
def test_a_profile_becomes_a_row_per_kernel():
    heads = '"ID","Kernel Name","Section Name","Metric Name","Metric Unit","Metric Value"\n'
    output = "==PROF== Connected\n" + heads
    for launch, microseconds in ((0, "1,200.5"), (1, "800.5")):
        for metric, unit, value in (
            ("Duration", "us", microseconds),
            ("Compute (SM) Throughput", "%", "71.5"),
            ("Registers Per Thread", "register/thread", "128"),
            ("Something Else", "", "1"),
        ):
            output += f'"{launch}","void {OURS}","SOL","{metric}","{unit}","{value}"\n'
    [row] = ncu.rows(output + "==PROF== Disconnected\n")
    assert row == {
        "kernel": "assign_kernel<float>",
        "launches": 2,
        "duration_us": 1000.5,
        "compute_percent": 71.5,
        "registers": 128,
    }
    assert list(ncu.rows("==ERROR== no permission\n")) == []


def test_a_profile_leaves_the_clocks_of_the_gpu_alone():
    command = ncu.command_of("ncu", ["python", "phases.py"])
    place = command.index("--clock-control")
    assert command[place + 1] == "none"
    assert command[-2:] == ["python", "phases.py"]


@pytest.mark.parametrize("printed", [True, False])
def test_the_profile_section_holds_what_ncu_prints(tmp_path, monkeypatch, printed):
    heads = '"ID","Kernel Name","Section Name","Metric Name","Metric Unit","Metric Value"'
    values = f'"0","void {OURS}","SOL","Duration","us","12.5"'
    script = f"cat <<'END'\n{heads}\n{values}\nEND" if printed else "echo no permission; exit 1"
    folder = tools(tmp_path / "tools", {"ncu": script})
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    session = process.Session(tmp_path, dry_run=True, minutes=1, limits={"profile": 50})
    parts = gpu_session.Parts(session, Namespace(seed=1, images=None))
    session.section("profile", parts.profile)
    [section] = session.sections
    if printed:
        assert [row["kernel"] for row in section.rows] == ["assign_kernel<float>"]
        assert not section.failed()
    else:
        assert section.problem == "exit status 1"
        assert "no permission" in section.rows[0]["error"]


@pytest.mark.parametrize(
    ("declaration", "name"),
    [
        ("void ktfast::cuda::<unnamed>::assign_kernel<float>(ktfast::P)", "assign_kernel<float>"),
        ("ktfast::cuda::(anonymous namespace)::mean_kernel(ktfast::P)", "mean_kernel"),
        (
            "void ktfast::cuda::screen_kernel<ktfast::Int8, (int)2>(P)",
            "screen_kernel<Int8, (int)2>",
        ),
        ("plain", "plain"),
    ],
)
def test_kernels_have_short_names(declaration, name):
    assert ncu.short(declaration) == name


# --- wheels ---------------------------------------------------------------------------------------
def test_wheels_are_there_for_the_session_alone(tmp_path):
    pytest.importorskip("pip")
    (tmp_path / "wheels").mkdir()
    with zipfile.ZipFile(tmp_path / "wheels" / "tiny_peer-1.0-py3-none-any.whl", "w") as wheel:
        about = "tiny_peer-1.0.dist-info"
        wheel.writestr("tiny_peer.py", "value = 7\n")
        wheel.writestr(
            f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny-peer\nVersion: 1.0\n"
        )
        tags = "Root-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr(f"{about}/WHEEL", f"Wheel-Version: 1.0\nGenerator: test\n{tags}")
        wheel.writestr(f"{about}/RECORD", f"tiny_peer.py,,\n{about}/METADATA,,\n{about}/WHEEL,,\n")
    (tmp_path / "wheels" / "broken-1.0-py3-none-any.whl").write_text("no archive")
    session = process.Session(tmp_path, dry_run=True, minutes=1, limits={"wheels": 50})
    parts = gpu_session.Parts(session, Namespace(seed=1, images=None))
    folder, target = tmp_path / "wheels", tmp_path / "target"
    session.section("wheels", lambda section: parts.wheels(section, folder, target))
    [section] = session.sections
    assert [row.get("error") for row in section.rows] == ["exit status 1", None]
    program = [sys.executable, "-c", "import tiny_peer; print(tiny_peer.value)"]
    assert session.run("use", program, 30) == ("7\n", "")


# --- photographs ----------------------------------------------------------------------------------
def test_photographs_are_made_where_none_came(tmp_path):
    pytest.importorskip("torch")
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("skimage")
    import train

    train.write_views(tmp_path, 9)
    files = sorted(tmp_path.glob("*.jpg"))
    assert len(files) == 9
    for path in files:
        with image.open(path) as view:
            assert view.size == (500, 375)
    assert len({path.read_bytes() for path in files}) == 9


def test_every_job_is_trained_on_the_photographs_given(tmp_path, monkeypatch):
    """With a bench that only says how it was called, as that itself is tested elsewhere."""
    pytest.importorskip("torch")
    pytest.importorskip("PIL")
    import device
    import train

    from ktfast.bench.train import command

    def measure(folder, *, jobs, feed, images, **options):
        signature(train_measure).bind(folder, jobs=jobs, feed=feed, images=images, **options)
        return {"rows": [{"job": jobs[0], "side": "ktfast", "folder": str(folder), "feed": feed}]}

    train_measure = command.measure
    monkeypatch.setattr(command, "measure", measure)
    cpu = device.Device("cpu", small=True)
    [(label, run)] = train.training(cpu, tmp_path)
    [row] = run()
    assert label == {"job": "alexnet-tiny"}
    assert (row["folder"], row["feed"]) == (str(tmp_path), "torch")
    assert set(train.JOBS + train.DRY_JOBS) <= set(command.JOBS)


def test_rows_of_a_training_keep_medians_and_name_problems():
    pytest.importorskip("torch")
    import train

    row = train.row_of({"side": "ktfast", "images_per_second": [5.0, 4.0, 6.0], "way": "plain"})
    assert row == {"side": "ktfast", "images_per_second": 5.0, "way": "plain"}
    assert train.row_of({"side": "plain", "problem": "missing"})["instead"] == "missing"
    assert train.row_of({"side": "ktfast", "problem": "x"})["error"] == "x"
