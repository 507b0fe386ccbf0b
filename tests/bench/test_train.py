"""`ktfast bench train`: both sides do the same work, and their results become a table."""

import json

import pytest
import torch
from PIL import Image

from support.photographs import squares

pytest.importorskip("torchvision")
pytest.importorskip("matplotlib")

from ktfast.bench.train import command as train
from ktfast.bench.train.images import SIZE, write_images
from ktfast.bench.train.jobs import JOBS, Assignment, Clock
from ktfast.bench.train.report import COLUMNS, text
from ktfast.bench.train.rows import rows_of
from ktfast.cli.main import main
from ktfast.errors import DataError, InputError

ASSIGNMENT = Assignment("alexnet-tiny", None, "cpu", "torch", "auto", 1, 4, 2, 1)


def write_photographs(folder, n):
    folder.mkdir()
    for i, square in enumerate(squares(n, 140)):
        Image.fromarray(square).save(folder / f"{i}.jpg")
    return folder


def turn(images=8, seconds=2.0, cpu_seconds=4.0, **change):
    found = {
        "images": images,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_bytes": 2e9,
        "image_flops": 1e9,
        "peak_flops": 8e9,
        "precision": "float32",
        "way": "plain",
        "feed": "torch, shards",
    }
    return found | change


def record_of(rows):
    return {
        "date": "",
        "command": "ktfast bench train",
        "machine": {"CPU": "x"},
        "images": 8,
        "generated": False,
        "file_bytes": 1e4,
        "device": "cpu",
        "threads": 1,
        "rounds": 2,
        "rows": rows,
    }


def table(markdown):
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_rows_are_medians_and_ratios_of_the_rounds():
    turns = {
        "plain": [turn(), turn(seconds=4.0)],
        "ktfast": [turn(seconds=1.0, cpu_seconds=2.0, peak_flops=16e9), turn(cpu_seconds=1.0)],
    }
    plain, ours = rows_of(JOBS["alexnet-tiny"], ASSIGNMENT, turns)
    assert plain["images_per_second"] == (3.0, 2.0, 4.0)
    assert plain["ratio"] == plain["cpu_ratio"] == (1.0, 1.0, 1.0)
    assert ours["images_per_second"] == (6.0, 4.0, 8.0)
    assert ours["ratio"] == (2.0, 2.0, 2.0)
    assert ours["images_per_cpu_second"] == (6.0, 4.0, 8.0)
    assert ours["cpu_ratio"] == (3.0, 2.0, 4.0)
    # The peak is the machine's: the best that any process of that precision measured.
    assert plain["share_of_peak"] == pytest.approx(2 / 16)
    assert ours["share_of_peak"] == pytest.approx(6 / 16)
    cells = table(text(record_of([plain, ours])))
    assert cells[0] == list(COLUMNS)
    assert cells[3][4] == "2.00 (2.00-2.00)"
    assert cells[3][7] == "38%"
    assert "at the full peak the ratio of images / CPU-s would be 8.00" in text(
        record_of([plain, ours])
    )


@pytest.mark.parametrize("seconds", [0.3, 1.7, 3.1])
def test_a_side_against_itself_is_one_exactly(seconds):
    same = turn(images=7, seconds=seconds, cpu_seconds=seconds / 3)
    plain, _ = rows_of(JOBS["alexnet-tiny"], ASSIGNMENT, {"plain": [same], "ktfast": [same]})
    assert plain["ratio"] == plain["cpu_ratio"] == (1.0, 1.0, 1.0)


def test_a_gpu_is_measured_by_the_clock():
    turns = {"plain": [turn()], "ktfast": [turn(seconds=1.0, precision="bfloat16")]}
    _, ours = rows_of(JOBS["jigsaw"], ASSIGNMENT._replace(device="cuda"), turns)
    assert ours["share_of_peak"] == pytest.approx(8 / 8)


def test_other_work_is_no_comparison():
    turns = {"plain": [turn()], "ktfast": [turn(image_flops=1.02e9)]}
    with pytest.raises(DataError, match=r"same work, but count 1\.000 and 1\.020 GFLOP"):
        rows_of(JOBS["jigsaw"], ASSIGNMENT, turns)


def test_a_side_that_fails_is_a_row_and_gives_no_ratio():
    turns = {"plain": [{"problem": "missing: pip install torchvision"}], "ktfast": [turn()]}
    plain, ours = rows_of(JOBS["jigsaw"], ASSIGNMENT, turns)
    assert plain["problem"].startswith("missing")
    assert "ratio" not in ours
    assert ours["images_per_second"] == (4.0, 4.0, 4.0)
    cells = table(text(record_of([plain, ours])))
    assert all(len(row) == len(COLUMNS) for row in cells)
    assert cells[2][2] == "missing: pip install torchvision"
    assert cells[3][4] == "-"


def test_the_clock_counts_steps_after_the_warm_up():
    clock = Clock(ASSIGNMENT)
    clock.step_done()
    clock.restart()
    for _ in range(4):
        clock.step_done()
    measured = clock.measured()
    assert measured["images"] == 8
    assert 0 <= measured["seconds"] < 1
    assert measured["peak_bytes"] > 1e6


@pytest.mark.parametrize("name", ["jigsaw-tiny", "alexnet-tiny", "jigsaw", "alexnet"])
def test_both_sides_have_the_same_network(name):
    from ktfast.bench.train import ours as train_ours
    from ktfast.bench.train import plain as train_plain

    job = JOBS[name]
    plain = train_plain.PuzzleNet(job) if job.work == "puzzle" else train_plain.alexnet(job)
    ours = train_ours.task_of(job, 1, 12).model
    shapes = [sorted(tuple(p.shape) for p in net.parameters()) for net in (plain, ours)]
    assert shapes[0] == shapes[1]


def test_the_plain_puzzle_is_one_that_can_be_solved(tmp_path):
    """Put back by the label's permutation, most tiles are those of the image."""
    from ktfast.bench.train.plain import Puzzles

    paths = [str(path) for path in write_photographs(tmp_path / "photographs", 4).iterdir()]
    puzzles = Puzzles(paths, JOBS["jigsaw-tiny"])
    tiles, label = puzzles[0]
    assert tiles.shape == (9, 3, 32, 32)
    assert tiles.dtype == torch.float32
    assert 0 <= label < JOBS["jigsaw-tiny"].permutations
    assert torch.allclose(tiles.mean((1, 2, 3)), torch.zeros(9), atol=1e-4)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """A whole run in processes of its own, on generated files."""
    out = tmp_path_factory.mktemp("out")
    options = ["--jobs", "alexnet-tiny", "--device", "cpu", "--feed", "torch", "--threads", "1"]
    options += ["--rounds", "1", "--batch", "2", "--steps", "1", "--images", "6"]
    assert main(["bench", "train", *options, "--out", str(out)]) == 0
    return out


def test_a_run_measures_both_sides_and_saves_table_and_plot(outcome):
    record = json.loads((outcome / "train.json").read_text())
    assert [row["side"] for row in record["rows"]] == ["plain", "ktfast"]
    for row in record["rows"]:
        assert "problem" not in row, row
        assert row["images_per_second"][0] > 0
        assert row["share_of_peak"] > 0
    assert record["rounds"] == 1
    assert record["rows"][0]["ratio"] == [1, 1, 1]
    assert record["rows"][1]["feed"] == "torch, shards"
    assert record["images"] == 6
    assert "generated" in (outcome / "train.md").read_text()
    assert {path.suffix for path in outcome.iterdir()} == {".json", ".md", ".png", ".svg"}


def test_generated_images_are_the_same_every_time(tmp_path):
    for name in ("a", "b"):
        write_images(tmp_path / name, 66)
    files = sorted((tmp_path / "a").iterdir())
    assert len(files) == 66
    assert all(f.read_bytes() == (tmp_path / "b" / f.name).read_bytes() for f in files)
    assert files[65].read_bytes() == files[1].read_bytes() != files[0].read_bytes()
    assert 30e3 < files[0].stat().st_size < 120e3
    with Image.open(files[0]) as image:
        assert image.size == SIZE


def test_impossible_options_are_refused(tmp_path):
    photographs = write_photographs(tmp_path / "photographs", 3)
    with pytest.raises(InputError, match="jobs: other is unknown; there are jigsaw, alexnet"):
        train.measure(photographs, jobs=["other"])
    with pytest.raises(InputError, match="way: fast is unknown; there are auto, plain"):
        train.measure(photographs, way="fast")
    with pytest.raises(InputError, match="device: tpu is unknown"):
        train.measure(photographs, device="tpu")
    with pytest.raises(InputError, match=r"3 images are too few for batches of 32 \(alexnet\)"):
        train.measure(photographs, jobs=["alexnet"], device="cpu")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="device cuda: torch finds no CUDA device"):
            train.measure(photographs, device="cuda")
