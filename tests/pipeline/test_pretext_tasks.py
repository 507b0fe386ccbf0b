"""Pretext tasks in a run: resume, report, features, questions, and the code of the user."""

import json
import os
import shutil
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

import ktfast
from ktfast.cli.main import main
from ktfast.config import load_config
from ktfast.errors import ConfigError
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.steps.baselines import has_the_weights_of_pretext, train_baseline
from ktfast.pipeline.steps.questions import (
    baseline_question,
    evaluate_question,
    features_question,
    pretext_question,
)
from support.small_pipeline import write_inputs

TASKS = {
    "jigsaw": ["--pretext.permutations", "4"],
    "rotation": ["--pretext.jitter", "4"],
    "context": [],
}
# Options of the recipe that a task on whole photographs refuses. The first one is for puzzles only.
TILES = ("permutations", "tile_size", "tile_features")
TASK = """
from ktfast.pretext.classifying import ClassifyingPretext
from ktfast.images.augment import draw, normalize_images
open("ran", "w").close()

class Upside(ClassifyingPretext):
    title, lead = "Upside down", "Left: the photograph."
    answers = ("upright", "<upside> down")

    def questions(self, batch, epoch):
        labels = draw(batch.sample_ids, 2, seed=self.seed, epoch=epoch, number=100)
        turned = batch.images.flip(1) * labels[:, None, None, None]
        upright = batch.images * (1 - labels)[:, None, None, None]
        return normalize_images((turned + upright).byte(), "image"), labels
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Photographs, a recipe of tiles and one without tiles, and a run whose images are prepared."""
    folder = tmp_path_factory.mktemp("tasks")
    arguments = write_inputs(folder)
    lines = (folder / "small.toml").read_text().splitlines()
    for name, refused in (("tiles", TILES[:1]), ("whole", TILES)):
        kept = [line for line in lines if not line.startswith(refused)]
        (folder / f"{name}.toml").write_text("\n".join(kept) + "\n")
    assert main(["prepare", "--run", str(folder / "run"), *arguments]) == 0
    return folder


def command_of(place, run, task):
    recipe = "whole.toml" if task == "rotation" or ":" in task else "tiles.toml"
    return [
        *("--run", str(run), "--config", str(place / recipe), "--pretext.task", task),
        *("--data.pretext", str(place / "train"), "--data.test", str(place / "test")),
        *("--pretext.training.epochs", "2", *TASKS.get(task, ())),
    ]


def prepared(place, run):
    shutil.copytree(place / "run/prepare", run / "prepare")
    return run


def stopping(factor):
    """The learning rate of a step; step 2 sends SIGTERM to the process."""

    def rate(config, step, total):
        if step == 2:
            os.kill(os.getpid(), 15)
        return factor(config, step, total)

    return rate


@pytest.mark.parametrize("task", TASKS)
def test_a_task_is_resumed_bit_for_bit_and_shown_in_the_report(task, place, tmp_path, monkeypatch):
    from ktfast.training import loop

    whole, parts = prepared(place, tmp_path / "whole"), prepared(place, tmp_path / "parts")
    assert main(["pretext", *command_of(place, whole, task)]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(loop, "learning_rate_factor", stopping(loop.learning_rate_factor))
        assert main(["pretext", *command_of(place, parts, task)]) == 143
    assert main(["pretext", *command_of(place, parts, task)]) == 0
    ours, theirs = (load_file(run / "pretext/weights.safetensors") for run in (whole, parts))
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    assert (whole / "pretext/permutations.npy").exists() == (task == "jigsaw")
    assert main(["report", str(whole)]) == 0
    page = (whole / "report.html").read_text()
    title = {"jigsaw": "Jigsaw", "rotation": "Rotation", "context": "Context prediction"}[task]
    assert f"<h2>Pretext task: {title}</h2>" in page
    assert f"{title}: accuracy" in page
    alt = {
        "jigsaw": "photograph with the 9 squares that were cut",
        "rotation": "what the network sees; the right answer is 270 degrees",
        "context": "photograph with the 2 squares that were cut",
    }[task]
    assert page.count(f'aria-label="{alt}"') == 6
    summary = json.loads((whole / "pretext/result.json").read_text())["summary"]
    assert summary["chance"] == {"jigsaw": 1 / 4, "rotation": 1 / 4, "context": 1 / 8}[task]
    if task == "rotation":
        check_later_stages(place, whole)


def check_later_stages(place, run):
    """Features come from the trunk with its own stride, and the baseline takes the weights."""
    command = command_of(place, run, "rotation")
    assert main(["features", *command]) == 0
    features = json.loads((run / "features/pretext/result.json").read_text())
    assert features["summary"]["dim"] == 16 * 4**2
    folder = RunFolder(run, load_config(run / "config.toml"))
    assert has_the_weights_of_pretext(folder)
    taken = train_baseline(folder, "pretext")
    assert taken["fingerprint"] == folder.result("pretext")["fingerprint"]
    assert taken["summary"]["task"] == "Rotation"
    vectors = ktfast.load(run, "pretext").embed(sorted((place / "test/dark").iterdir()))
    assert vectors.shape == (6, 16)


def test_a_run_of_a_version_with_one_task_stays_up_to_date(place):
    run = RunFolder(place / "run", load_config(None, {"data.pretext": str(place / "train")}))
    asked = [pretext_question(run), features_question(run, "cluster")]
    asked += [baseline_question(run, "pretext")]
    run = RunFolder(
        place / "run",
        load_config(None, {"data.pretext": str(place / "train"), "data.test": str(place / "test")}),
    )
    for question in (*asked, evaluate_question(run)):
        record = question.record()
        settings = record["settings"]
        assert "jigsaw++" in (settings.get("task"), settings.get("pretext", {}).get("task"))
        settings.pop("task", None)
        settings.get("pretext", {}).pop("task", None)
        assert question.changes(record) == []
    other = load_config(None, {"data.pretext": str(place / "train"), "pretext.task": "rotation"})
    record = asked[0].record()
    del record["settings"]["task"]
    changes = pretext_question(RunFolder(place / "run", other)).changes(record)
    assert changes == ["pretext.task was 'jigsaw++', is now 'rotation'"]


def test_permutations_of_a_file_are_compared_by_content(place, tmp_path, capsys):
    run, file = prepared(place, tmp_path / "run"), tmp_path / "a.npy"
    rows = np.array([np.roll(np.arange(9), shift) for shift in range(3)])
    np.save(file, rows)
    command = ["pretext", *command_of(place, run, "jigsaw++"), "--pretext.permutation_file"]
    assert main([*command, str(file)]) == 0
    np.testing.assert_array_equal(np.load(run / "pretext/permutations.npy"), rows)
    file.rename(tmp_path / "b.npy")
    capsys.readouterr()
    assert main([*command, str(tmp_path / "b.npy")]) == 0
    np.save(file, rows[::-1])
    assert main([*command, str(file)]) == 2
    assert "the permutations in" in capsys.readouterr().err
    assert main([*command, str(file), "--pretext.permutations", "3"]) == 2
    assert "does not use permutations" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "rotation", "tile_size": 32}, "tile_size is 32, but the task rotation does not"),
        ({"task": "jigsaw", "max_occluders": 1}, "max_occluders is 1, but the task jigsaw does"),
        ({"task": "context", "grid": 2}, "grid is 2, but the task context does not use grid"),
        ({"task": "rotation", "jitter": 255}, "jitter 255 px must be smaller than crop 255 px"),
        ({"task": "m:"}, "task 'm:' is unknown"),
    ],
)
def test_an_option_without_effect_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        load_config(None, {"pretext": options})
    assert "tile_size" not in pretext_question_of("rotation")
    assert "max_occluders" in pretext_question_of("jigsaw++")


def pretext_question_of(task):
    from ktfast.config import result_options

    return result_options(load_config(None, {"pretext.task": task}).pretext)


@pytest.fixture
def own(place, tmp_path, monkeypatch):
    """A working directory with the module of a task, and a run folder that names the task."""
    (tmp_path / "my_task.py").write_text(TASK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    prepared(place, tmp_path / "run")
    text = (place / "whole.toml").read_text()
    (tmp_path / "run/config.toml").write_text(
        text.replace("[pretext]", '[pretext]\ntask = "my_task:Upside"').replace(
            "[data]", f'[data]\npretext = "{place / "train"}"\ntest = "{place / "test"}"'
        )
    )
    yield tmp_path
    sys.modules.pop("my_task", None)


def test_a_class_of_the_user_runs_if_the_user_trusts_it(own, place, capsys):
    for stage in ("pretext", "run", "evaluate"):
        assert main([stage, "--run", "run"]) == 2
        message = capsys.readouterr().err
        assert f"would run code of {own / 'my_task.py'}; add --trust-source" in message
    assert not (own / "ran").exists()
    assert main(["pretext", *command_of(place, "run", "my_task:Upside")]) == 0
    assert (own / "ran").exists()
    assert main(["report", "run"]) == 0
    page = (own / "run/report.html").read_text()
    assert "Pretext task: Upside down" in page
    assert "the right answer is &lt;upside&gt; down" in page
    # Other code gives another network.
    (own / "my_task.py").write_text(TASK + "\n# edited\n")
    del sys.modules["my_task"]  # as in another process
    assert main(["pretext", "--run", "run", "--trust-source"]) == 2
    assert f"the code in {own / 'my_task.py'} changed since" in capsys.readouterr().err


def test_a_broken_class_is_refused_before_the_long_stages(own, capsys):
    broken = TASK.replace("labels = draw", "labels = drawn")
    (own / "my_task.py").write_text(broken)
    assert main(["run", "--run", "run", "--trust-source"]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "pretext.task 'my_task:Upside' fails in step (NameError: name 'drawn'" in message
    assert not (own / "run/pretext").exists()
