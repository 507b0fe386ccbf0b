"""The run folder: stages are done once, changes are refused, a second process is too."""

import json
import subprocess
import sys

import pytest

import ktfast
from ktfast.config import Config
from ktfast.durable import write_json
from ktfast.errors import ConfigError, DataError, InputError
from ktfast.pipeline.question import Input, Question
from ktfast.pipeline.run_folder import RunFolder, open_run, read_run
from ktfast.pipeline.stage_result import Outcome, complete_stage
from ktfast.pipeline.steps import baselines
from ktfast.pipeline.steps.networks import WEIGHTS


def asking(settings=None, inputs=None, **more):
    """A question whose inputs are given by fingerprints."""
    found = {name: Input(value, f"the file {name}") for name, value in (inputs or {}).items()}
    return Question("cluster", settings or {}, found, **more)


def outcome(folder):
    (folder / "file").write_text("done")
    return Outcome(fingerprint="f", outputs={"file": "file"}, summary={"n": 1})


def test_a_stage_is_done_once(tmp_path):
    calls = []

    def work(folder):
        calls.append(folder)
        return outcome(folder)

    with open_run(tmp_path / "run", Config()) as run:
        first = complete_stage(run, "cluster", asking({"k": 2}, {"x": "1"}), work)
        second = complete_stage(run, "cluster", asking({"k": 2}, {"x": "1"}), work)
    assert first == second
    assert len(calls) == 1
    assert read_run(tmp_path / "run").result("cluster")["summary"] == {"n": 1}


@pytest.mark.parametrize(
    ("settings", "inputs", "difference"),
    [
        ({"k": 3}, {"x": "1"}, r"cluster\.k was 2, is now 3"),
        ({"k": 2}, {"x": "2"}, "the file x changed since"),
    ],
)
def test_another_question_is_refused_until_redo(tmp_path, settings, inputs, difference):
    with open_run(tmp_path, Config()) as run:
        complete_stage(run, "cluster", asking({"k": 2}, {"x": "1"}), outcome)
        with pytest.raises(ConfigError, match=difference):
            complete_stage(run, "cluster", asking(settings, inputs), outcome)
        assert run.result("cluster")["config"]["k"] == 2
        complete_stage(run, "cluster", asking(settings, inputs), outcome, redo=True)


def test_an_interrupted_stage_goes_on(tmp_path):
    def dies(folder):
        (folder / "half").write_text("half")
        raise OSError(28, "No space left on device")

    with open_run(tmp_path, Config()) as run:
        with pytest.raises(OSError, match="No space"):
            complete_stage(run, "cluster", asking(), dies)
        with pytest.raises(DataError, match="ktfast cluster"):
            run.result("cluster")
        complete_stage(run, "cluster", asking(), outcome)
        assert (run.stage("cluster") / "half").exists()


def test_bad_input_that_did_nothing_is_forgotten(tmp_path):
    def refuses(folder):
        raise ConfigError("no such source")

    with open_run(tmp_path, Config()) as run:
        complete_stage(run, "prepare/a", asking(), outcome)
        before = (tmp_path / "config.toml").read_bytes()
    with open_run(tmp_path, Config(seed=1)) as run:
        with pytest.raises(ConfigError, match="no such source"):
            complete_stage(run, "features/a", asking({"source": "sift"}, {}), refuses)
        assert (tmp_path / "config.toml").read_bytes() == before
        complete_stage(run, "features/a", asking({"source": "hog"}, {}), outcome)
    assert read_run(tmp_path).config.seed == 1


def test_a_refused_first_run_leaves_no_options(tmp_path):
    """The corrected command would read the refused options from `config.toml`."""
    run = tmp_path / "run"
    options = {"data.pretext": str(tmp_path / "missing"), "pretext.width": 0.5}
    with pytest.raises(DataError, match="does not exist"):
        ktfast.run(options, run)
    assert not (run / "config.toml").exists()

    def refuses(folder):
        raise ConfigError("no such source")

    with open_run(run, Config(seed=1)) as opened:
        with pytest.raises(ConfigError, match="no such source"):
            complete_stage(opened, "prepare/a", asking(), refuses)
        assert not (run / "config.toml").exists()
        complete_stage(opened, "prepare/a", asking(), outcome)
    assert read_run(run).config.seed == 1


def test_files_that_were_lost_are_made_again(tmp_path, caplog):
    def content(folder):
        return (folder / "file").read_text()[:1].replace("d", "f")

    with open_run(tmp_path, Config()) as run:
        complete_stage(run, "cluster", asking(), outcome, fingerprint=content)
        complete_stage(run, "cluster", asking(), outcome, fingerprint=content)
        assert "is repaired" not in caplog.text
        for damage in (
            lambda: (tmp_path / "cluster/file").unlink(),
            lambda: (tmp_path / "cluster/file").write_text("x"),
            lambda: (tmp_path / "cluster/result.json").write_text("{"),
        ):
            damage()
            caplog.clear()
            complete_stage(run, "cluster", asking(), outcome, fingerprint=content)
            assert "is repaired" in caplog.text
            assert (tmp_path / "cluster/file").read_text() == "done"


def test_a_redo_that_was_killed_leaves_nothing_that_counts(tmp_path, monkeypatch):
    with open_run(tmp_path, Config()) as run:
        complete_stage(run, "cluster", asking({"k": 2}, {}), outcome)
        (tmp_path / "cluster/extra").touch()
        with monkeypatch.context() as patch:
            patch.setattr("ktfast.pipeline.stage_result.shutil.rmtree", lambda _: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                complete_stage(run, "cluster", asking({"k": 3}, {}), outcome, redo=True)
        complete_stage(run, "cluster", asking({"k": 3}, {}), outcome)
        assert not (tmp_path / "cluster/extra").exists()
        complete_stage(run, "cluster", asking({"k": 4}, {}), outcome, redo=True)
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_the_log_says_how_a_run_ended(tmp_path):
    with pytest.raises(ZeroDivisionError), open_run(tmp_path, Config()):
        1 / 0  # noqa: B018
    with pytest.raises(InputError), open_run(tmp_path, Config()):
        raise InputError("k is wrong: ü\udce9")
    log = (tmp_path / "log.txt").read_text()
    assert "Traceback" in log
    assert "ended by ZeroDivisionError" in log
    assert "ended by InputError: k is wrong: ü" in log


HOLDER = """
import sys, time
from ktfast.config import Config
from ktfast.pipeline.run_folder import open_run

with open_run(sys.argv[1], Config()):
    print("opened", flush=True)
    time.sleep(600)
"""


def test_a_second_process_is_refused_until_the_first_dies(tmp_path):
    command = [sys.executable, "-c", HOLDER, tmp_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "opened\n"
        with (
            pytest.raises(InputError, match="another ktfast process is working on"),
            open_run(tmp_path, Config()),
        ):
            pass
        other.kill()
    with open_run(tmp_path, Config()):
        pass


def test_a_file_is_no_run_folder(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(InputError, match="is a file"),
        open_run(tmp_path / "file", Config()),
    ):
        pass
    with pytest.raises(DataError, match="no run folder"):
        read_run(tmp_path)


def test_a_damaged_result_is_named(tmp_path):
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "result.json").write_text('{"stage": ')
    with pytest.raises(DataError, match=r"result\.json is damaged"):
        RunFolder(tmp_path, Config()).result("cluster")


def test_every_file_of_a_stage_is_verified(tmp_path, caplog):
    with open_run(tmp_path, Config()) as run:
        complete_stage(run, "cluster", asking({"k": 2}, {"x": "1"}), outcome)
        path = run.artifact("cluster", "file")
        path.write_text("d0ne")
        with pytest.raises(DataError, match=r"cluster/file is damaged: .*run `ktfast cluster`"):
            run.artifact("cluster", "file")
        complete_stage(run, "cluster", asking({"k": 2}, {"x": "1"}), outcome)
        assert "file has another content" in caplog.text
        assert run.artifact("cluster", "file").read_text() == "done"


def test_begun_json_is_made_again_or_the_stage_is_redone(tmp_path):
    with open_run(tmp_path, Config()) as run:
        complete_stage(run, "cluster", asking({"k": 2}, {}), outcome)
        begun = tmp_path / "cluster/begun.json"
        whole = begun.read_bytes()
        begun.write_bytes(whole.replace(b"2", b"3"))
        complete_stage(run, "cluster", asking({"k": 2}, {}), outcome)
        assert begun.read_bytes() == whole
        (tmp_path / "cluster/result.json").unlink()
        begun.write_bytes(whole.replace(b"2", b"3"))
        with pytest.raises(DataError, match=r"begun\.json is damaged, .*--redo cluster"):
            complete_stage(run, "cluster", asking({"k": 3}, {}), outcome)


def test_a_result_of_an_earlier_version_gets_a_manifest(tmp_path):
    def content(folder):
        return {"done": "f"}.get((folder / "file").read_text(), "?")

    with open_run(tmp_path, Config()) as run:
        whole = complete_stage(run, "cluster", asking({"k": 2}, {}), outcome, fingerprint=content)
        path = tmp_path / "cluster/result.json"
        before = {key: value for key, value in whole.items() if key != "files"}
        write_json(path, before)
        write_json(tmp_path / "cluster/begun.json", {"settings": {"k": 2}, "inputs": {}})
        again = complete_stage(run, "cluster", asking({"k": 2}, {}), outcome, fingerprint=content)
        assert again["files"] == whole["files"]
        assert run.result("cluster") == again


def test_the_next_run_removes_what_a_killed_save_left(tmp_path):
    for stage in ("", "cluster/", "voc/detection/", "pretext/"):
        (tmp_path / stage).mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{stage}.centers.npy.123.tmp").touch()
    with open_run(tmp_path, Config()):
        assert list(tmp_path.rglob(".*.tmp")) == []


def test_temporary_files_of_other_programs_stay(tmp_path):
    own = [tmp_path / "photos/.draft.tmp", tmp_path / ".cache.7.tmp/note.txt"]
    for path in own:
        path.parent.mkdir()
        path.touch()
    with open_run(tmp_path, Config()):
        assert all(path.is_file() for path in own)


def test_results_are_plain_json(tmp_path):
    with open_run(tmp_path, Config()) as run:
        complete_stage(run, "prepare/a", asking({"path": tmp_path}), outcome)
    assert json.loads((tmp_path / "prepare/a/result.json").read_text())["version"]


@pytest.mark.parametrize(("images", "has_accuracy"), [("test", True), ("pretext", False)])
def test_a_baseline_has_no_accuracy_of_training_images(tmp_path, images, has_accuracy):
    def pretext(folder):
        (folder / WEIGHTS).write_bytes(b"numbers")
        figures = {"accuracy": 0.9, "chance": 0.1, "measured_on": images, "steps": 7}
        return Outcome(fingerprint="f", outputs={"weights": WEIGHTS}, summary=figures)

    with open_run(tmp_path, Config()) as run:
        complete_stage(run, "pretext", asking(), pretext)
        (tmp_path / "baseline_pretext").mkdir()
        summary = baselines._take_weights(run, tmp_path / "baseline_pretext").summary
    assert ("accuracy" in summary, summary["steps"]) == (has_accuracy, 7)
