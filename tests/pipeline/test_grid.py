"""Grids of runs: the controls come along, results are shared, and a new row runs alone."""

import csv
import json
import logging
import os
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from ktfast.cli.main import main
from ktfast.config import Config, load_config
from ktfast.durable import describe_file
from ktfast.errors import ConfigError
from ktfast.pipeline import runner
from ktfast.pipeline.feasibility import check_networks
from ktfast.pipeline.grid.cells import GRIDS, read_grid, shipped_grid, sweep_cells
from ktfast.pipeline.grid.run_cells import run_cells
from ktfast.pipeline.question import Question
from ktfast.pipeline.run_folder import RunFolder, open_run
from ktfast.pipeline.shared_results import shared_entry
from ktfast.pipeline.stage_result import Outcome, complete_stage
from ktfast.pipeline.stages import evaluate
from support.photographs import squares
from support.small_pipeline import write_inputs

GRID = """
config = "{folder}/small.toml"
seeds = {seeds}
n_clusters = [3]

[options.data]
pretext = "{folder}/train"
test = "{folder}/test"

[teachers.puzzle]
{more}
"""


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    write_inputs(folder)
    return folder


def grid_file(folder, photographs, seeds=(0,), more=""):
    path = folder / "grid.toml"
    path.write_text(GRID.format(folder=photographs, seeds=list(seeds), more=more))
    return path


# --- the options of the runs ----------------------------------------------------------------------
def test_controls_come_along_without_asking(tmp_path, photographs):
    cells = read_grid(grid_file(tmp_path, photographs, (0, 1)), tmp_path / "out")
    assert [cell.name for cell in cells[:3]] == [
        f"{teacher}-student-k3-seed0" for teacher in ("puzzle", "hog", "untrained")
    ]
    assert len(cells) == 6
    assert {cell.config.evaluate.teacher for cell in cells} == {True}
    assert {cell.config.evaluate.baselines for cell in cells} == {("random", "labels")}
    hog = cells[1]
    assert (hog.config.features.source, hog.control) == ("hog", True)
    untrained = cells[2].config.features.weights, cells[5].config.features.weights
    assert untrained[0] != untrained[1]
    path = grid_file(tmp_path, photographs)
    path.write_text("controls = false\n" + path.read_text())
    assert len(read_grid(path, tmp_path / "out")) == 1


def test_an_objective_without_clusters_has_one_run_for_all_numbers_of_clusters(tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text(
        'controls = false\nn_clusters = [3, 5]\nobjectives = ["clusters", "similarity"]\n'
        "[options.transfer]\ntemperature = 0.2\n[students.wide]\ntransfer.width = 2\n"
    )
    cells = read_grid(path, tmp_path)
    names = ["teacher-wide-k3-seed0", "teacher-wide-k5-seed0", "teacher-wide-similarity-seed0"]
    assert [cell.name for cell in cells] == names
    assert [cell.config.transfer.temperature for cell in cells] == [0.1, 0.1, 0.2]
    assert cells[0].names["objective"] == "clusters"
    assert cells[2].names == {"teacher": "teacher", "student": "wide", "objective": "similarity"}


def test_a_recipe_for_the_puzzle_serves_hog_too(tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text('config = "tiny_cpu"\n')  # names features.layer, which HOG refuses
    cells = {cell.names["teacher"]: cell.config for cell in read_grid(path, tmp_path)}
    assert cells["hog"].features.layer == ""
    assert cells["untrained"].features.layer == cells["teacher"].features.layer == "conv4_3"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("seed = 3", "'seed' is no key of a grid; the keys are config, options"),
        ("seeds = 3", "seeds must be a list, got 3"),
        ("seeds = [1.5]", "seeds must be a list of integers"),
        ("seeds = [1, 1]", "two runs have the same name"),
        ("objectives = [3]", r"objectives must be a list of values of transfer\.objective"),
        ('objectives = ["distil"]', r"grid\.toml: options: .*transfer\.objective"),
        ("teachers.a = 3", "teachers.a must be a table of options"),
        ("[teachers.a]\nfeatures.sauce = 1", "the run a-student-.*unknown option features.sauce"),
        ("seeds = [", "grid.toml"),
    ],
)
def test_a_wrong_grid_is_refused_before_anything_runs(line, message, tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text(line)
    with pytest.raises((ConfigError, ValueError), match=message):
        read_grid(path, tmp_path)


SHIPPED = sorted(path.stem for path in GRIDS.glob("*.toml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_grid_loads_by_its_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = read_grid(shipped_grid(Path(name)), tmp_path)
    assert f"ktfast compare {name} --out" in (GRIDS / f"{name}.toml").read_text()
    for cell in cells[:5]:  # one seed
        check_networks(RunFolder(tmp_path, cell.config))
    seeds = {cell.config.seed for cell in cells}
    assert seeds == ({0} if name.startswith("scales") else {0, 1, 2})


def test_the_shipped_grids_hold_every_row_of_the_papers_tables(tmp_path):
    """Tiny grids have the rows of the grids at full size, so that they can be tried first."""

    def rows(name):
        return {(c.names["teacher"], c.names["student"]) for c in read_grid(GRIDS / name, tmp_path)}

    def configs(name):
        cells = read_grid(GRIDS / f"{name}.toml", tmp_path)
        return {cell.names["teacher"]: cell.config for cell in cells}

    for size in ("tiny", "paper"):
        table = configs(f"rows_{size}")
        assert set(table) == {"vgg-jigsaw++", "jigsaw++", "jigsaw", "hog", "untrained"}
        tasks = {name: (c.pretext.task, c.pretext.trunk) for name, c in table.items()}
        assert tasks["vgg-jigsaw++"] == ("jigsaw++", "vgg16")
        assert tasks["jigsaw++"] == ("jigsaw++", "alexnet")
        assert tasks["jigsaw"] == ("jigsaw", "alexnet")
        assert table["hog"].features.source == "hog"
        for name in ("jigsaw", "jigsaw++"):  # the row without clusters
            assert "pretext" in table[name].evaluate.baselines
            target = table[name].transfer
            assert (target.width, target.batch_norm) == (
                table[name].pretext.width,
                table[name].pretext.batch_norm,
            )
        assert len(table["hog"].evaluate.sets) == 1  # Places
        counts = {
            c.config.cluster.n_clusters for c in read_grid(GRIDS / f"k_{size}.toml", tmp_path)
        }
        assert len(counts) == 5
        cross = {
            (folders["cluster"], folders["transfer"])
            for folders in (c.data.folders() for c in configs(f"cross_{size}").values())
        }
        assert len(cross) == 3
        assert rows(f"scales_{size}.toml") == {("vgg-jigsaw++", "SS"), ("vgg-jigsaw++", "MS")}


def test_an_unknown_name_lists_the_shipped_grids(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "row_tiny"]) == 2
    assert "the name of a grid of ktfast: cross_paper, cross_tiny" in capsys.readouterr().err
    (tmp_path / "rows_tiny").mkdir()
    assert shipped_grid(Path("rows_tiny")) == Path("rows_tiny")


def test_a_sweep_makes_every_combination():
    cells = sweep_cells(None, {}, {"cluster.n_clusters": ["5", "9"], "seed": ["0", "1"]})
    assert [cell.name for cell in cells] == [
        "n_clusters-5-seed-0", "n_clusters-5-seed-1", "n_clusters-9-seed-0", "n_clusters-9-seed-1"
    ]  # fmt: skip
    assert [cell.config.cluster.n_clusters for cell in cells] == [5, 5, 9, 9]
    with pytest.raises(ConfigError, match=r"did you mean cluster\.n_clusters"):
        sweep_cells(None, {}, {"cluster.n_cluster": ["5"]})


# --- shared results -------------------------------------------------------------------------------
def runs_sharing(folder):
    return SimpleNamespace(shared=folder, config=load_config(None))


def test_a_second_run_waits_and_takes_what_the_first_one_makes(tmp_path):
    run, made, taken = runs_sharing(tmp_path / "shared"), [], []
    started = threading.Barrier(2)

    def work(name):
        folder = tmp_path / name
        folder.mkdir()
        started.wait()
        with shared_entry(run, "cluster", {"k": 3}) as entry:
            if (found := entry.take(folder)) is not None:
                taken.append(found["name"])
                return
            made.append(name)
            (folder / "labels").write_text(name)
            files = {"labels": describe_file(folder / "labels")}
            entry.keep(folder, {"name": name, "files": files})

    threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert taken == made
    assert (tmp_path / "a/labels").read_text() == (tmp_path / "b/labels").read_text() == made[0]


def test_a_damaged_entry_is_not_taken(tmp_path, caplog):
    run, folder = runs_sharing(tmp_path / "shared"), tmp_path / "run"
    folder.mkdir()
    (folder / "labels").write_text("whole")
    with shared_entry(run, "cluster", 1) as entry:
        assert entry.take(folder) is None
        entry.keep(folder, {"files": {"labels": describe_file(folder / "labels")}})
        (entry.place / "labels").unlink()
        (entry.place / "labels").write_text("other")
        with caplog.at_level(logging.WARNING):
            assert entry.take(folder) is None
    assert (folder / "labels").read_text() == "whole"
    assert "has another content than when it was written" in caplog.text
    with shared_entry(run, "cluster", 2) as entry:
        assert entry.take(folder) is None  # another question


def test_folders_of_equal_names_and_sizes_are_not_taken_for_each_other(tmp_path, photographs):
    pictures = iter(squares(6, 96))
    for path in [
        tmp_path / folder / name for folder in "ab" for name in ("x.bmp", "y.bmp", "z.bmp")
    ]:
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(next(pictures)).save(path)
        os.utime(path, ns=(10**18, 10**18))

    def prepare(run, images, *more):
        command = ["prepare", "--run", str(tmp_path / run), "--shared", str(tmp_path / "shared")]
        command += ["--config", str(photographs / "small.toml"), "--data.pretext"]
        assert main([*command, str(tmp_path / images), *more]) == 0
        shard = next((tmp_path / run / "prepare/pretext").glob("shard-*.tar"))
        return shard.read_bytes(), shard.stat().st_ino

    first, second, again = prepare("run1", "a"), prepare("run2", "b"), prepare("run3", "a")
    assert first[0] != second[0]
    assert again == first  # a link to the same file
    redone = prepare("run1", "a", "--redo", "prepare")
    assert (redone[0], redone[1] != first[1]) == (first[0], True)
    assert prepare("run4", "a") == redone
    log = (tmp_path / "run3/log.txt").read_text()
    assert "prepare/pretext: taken from" in log


def test_a_redone_part_is_computed_and_curves_come_with_a_network(tmp_path):
    question = Question("transfer", {"k": 2}, {})

    def run(name, loss, redo=()):
        """Take or make a baseline; return the losses in metrics.jsonl, and whether it was made."""
        made = []

        def work(folder):
            made.append(loss)
            (folder / "weights").write_text(str(loss))
            rows = [{"stage": "baseline_labels", "step": 1, "loss": loss}]
            folder.with_name("metrics.jsonl").write_text(
                "".join(json.dumps(row) + "\n" for row in [{"stage": "transfer"}, *rows])
            )
            return Outcome(fingerprint=str(loss), outputs={"weights": "weights"}, summary={})

        with open_run(tmp_path / name, Config(), shared=tmp_path / "shared") as folder:
            folder.redone.update(redo)
            result = complete_stage(folder, "baseline_labels", question, work)
        rows = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
        losses = [row["loss"] for row in rows if row["stage"] == "baseline_labels"]
        assert result["fingerprint"] == str(losses[-1])
        return losses, bool(made)

    assert run("first", 3.0) == ([3.0], True)
    assert run("second", 4.0) == ([3.0], False)
    assert run("third", 5.0, redo=["baseline_labels"]) == ([5.0], True)
    assert run("fourth", 6.0) == ([5.0], False)


def test_a_redone_part_is_named_to_the_stages(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "execute", lambda run, *, redo: None)
    folder = RunFolder(tmp_path, Config())
    runner._execute(folder, "evaluate", ["baseline_labels"])
    assert folder.redone == {"baseline_labels"}


# --- a real grid ----------------------------------------------------------------------------------
def started(out):
    """The stages that were computed, not taken from another run, in all logs of a grid."""
    lines = [line for path in out.glob("runs/*/log.txt") for line in path.read_text().splitlines()]
    return sorted(line.rpartition(": ")[0].rpartition(": ")[2] for line in lines
                  if line.endswith(": started"))  # fmt: skip


def sweep_of(numbers, photographs, out):
    """A sweep over numbers of clusters of HOG features."""
    command = ["sweep", "--vary", f"cluster.n_clusters={numbers}", "--out", str(out)]
    command += ["--config", str(photographs / "small.toml"), "--features.source", "hog"]
    return [*command, "--data.pretext", str(photographs / "train")]


def labelled(photographs):
    """Options of labelled test images, and of random weights as the only baseline."""
    return ["--data.test", str(photographs / "test"), "--evaluate.baselines", "random"]


def contents(out):
    return {p: p.stat().st_mtime_ns for p in out.glob("runs/*/*/*") if p.suffix != ".csv"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_grid_shares_resumes_and_adds_a_row(tmp_path, photographs, capsys):
    out = tmp_path / "out"
    assert main(["compare", str(grid_file(tmp_path, photographs)), "--out", str(out)]) == 0
    # One puzzle network, and one network of true labels, for three teachers.
    once = ["baseline_labels", "prepare/pretext", "prepare/test", "pretext"]
    thrice = ["cluster", "evaluate", "features/pretext", "features/test", "transfer"]
    assert started(out) == sorted(once + 3 * thrice)
    table = capsys.readouterr().out
    assert all(name in table for name in ("puzzle", "hog (control)", "untrained (control)"))
    rows = list(csv.DictReader((out / "compare.csv").read_text().splitlines()))
    assert {(r["row"], r["role"]) for r in rows} == {
        ("puzzle", "student"), ("hog", "control"), ("untrained", "control"),
        ("random weights", "control"), ("true labels", "trained on the true labels"),
        ("teacher, puzzle", "ceiling"), ("teacher, hog", "ceiling"),
        ("teacher, untrained", "ceiling"),
    }  # fmt: skip
    assert {r["paired"] for r in rows} <= {"", "12 images"}
    assert {r["rank"] for r in rows if r["role"] == "ceiling"} == {""}
    shards = {p.stat().st_ino for p in out.glob("runs/*/prepare/test/shard-*.tar")}
    assert len(shards) == 1

    before = contents(out)
    more = "[students.student]\n[students.narrow]\ntransfer.dropout = 0.0\n"
    grid = grid_file(tmp_path, photographs, more=more)
    grid.write_text("controls = false\n" + grid.read_text())
    options = 'random_clusters = false\nteacher = true\nbaselines = ["random", "labels"]\n'
    grid.write_text(
        grid.read_text().replace("[options.data]", f"[options.evaluate]\n{options}[options.data]")
    )
    assert main(["compare", str(grid), "--out", str(out)]) == 0
    assert {p: t for p, t in contents(out).items() if p in before} == before
    new = ["baseline_labels", "evaluate", "transfer"]  # the student's own stages
    assert started(out) == sorted(once + 3 * thrice + new)
    summaries = [
        json.loads(p.read_text())["summary"]["linear"]
        for p in sorted(out.glob("runs/*-student-k3-seed0/evaluate/result.json"))
    ]
    assert len({json.dumps(s["random"]) for s in summaries}) == 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_sweep_prepares_and_extracts_once(tmp_path, photographs):
    out = tmp_path / "out"
    command = sweep_of("2,3,4", photographs, out)
    command += labelled(photographs)
    assert main(command) == 0
    computed = started(out)
    assert [computed.count(s) for s in ("prepare/test", "features/pretext")] == [1, 1]
    assert [computed.count(s) for s in ("cluster", "transfer", "evaluate")] == [3, 3, 3]
    rows = list(csv.DictReader((out / "compare.csv").read_text().splitlines()))
    assert {r["row"] for r in rows} == {
        "n_clusters=2", "n_clusters=3", "n_clusters=4", "random weights"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ('features.source = "hogg"', r"features\.source 'hogg' is unknown"),
        (
            'pretext.trunk = "alexnet"\npretext.tile_size = 24',
            "tile_size 24 is too small for",
        ),
        ('evaluate.layers = ["conv9"]', r"evaluate\.layers: 'conv9' is unknown"),
        ('features.layer = "conv9"', r"features\.layer 'conv9' is unknown"),
        (
            'features.pool = 1\ncluster.normalize = "pca-l2"\ncluster.pca = 999',
            r"cluster\.pca 999 is more than the",
        ),
    ],
)
def test_an_impossible_run_is_refused_before_the_first_run(tmp_path, options, problem):
    path = tmp_path / "grid.toml"
    path.write_text(f"controls = false\n[teachers.a]\n[teachers.b]\n{options}\n")
    with pytest.raises(ConfigError, match=f"^b-student-.*: {problem}"):
        run_cells(read_grid(path, tmp_path / "out"), tmp_path / "out", trust_source=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_cell_that_cannot_run_does_not_stop_the_others(tmp_path, photographs, capsys):
    command = sweep_of("500,3", photographs, tmp_path / "out")
    command += labelled(photographs)
    assert main(command) == 2
    shown = " ".join(capsys.readouterr().out.split())
    assert "n_clusters-500 could not be run" in shown
    assert "random weights" in shown


def test_runs_that_could_not_be_compared_are_refused_before_the_first_run(tmp_path, photographs):
    command = sweep_of("2,3", photographs, tmp_path / "out")
    assert main(command) == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--vary", "seed=0,1", "--vary", "seed=2"], "give --vary seed=0,1,2"),
        (["--vary", "seed=0,1", "--seed", "2"], "seed is given as --seed and as --vary seed"),
    ],
)
def test_an_option_that_a_sweep_is_given_twice_is_refused(words, message, tmp_path, capsys):
    assert main(["sweep", *words, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_sweep_redoes_a_stage_in_every_run(tmp_path, photographs, capsys):
    out = tmp_path / "out"
    command = sweep_of("2,3", photographs, tmp_path / "out")
    command += labelled(photographs)
    assert main(command) == 0
    command += ["--cluster.max_iter", "1"]
    assert main(command) == 2
    assert "(--redo cluster on the command line)" in capsys.readouterr().err
    assert main([*command, "--redo", "cluster", "--redo", "transfer", "--redo", "evaluate"]) == 0
    recorded = [json.loads(p.read_text()) for p in out.glob("runs/*/cluster/result.json")]
    assert [result["config"]["max_iter"] for result in recorded] == [1, 1]
    assert main([*command, *(f"--redo={s}" for s in ("features", "cluster", "evaluate"))]) == 0
    assert started(out).count("features/pretext") == 2  # once for both runs, and once again
    assert main(["compare", str(out / "runs/n_clusters-2"), "--redo", "cluster"]) == 2
