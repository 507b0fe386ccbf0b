"""The stages end to end, on real photographs, through the command line's own entry point."""

import json
import os
import re
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load_file
from safetensors.torch import save_file

import ktfast
from ktfast.cli.demo import PHOTOGRAPHS, write_views
from ktfast.cli.main import main
from ktfast.config import load_config
from ktfast.durable import describe_file, sha256_file, write_sealed
from ktfast.errors import ConfigError, DataError
from ktfast.evaluation.clustering import normalized_mutual_information
from ktfast.evaluation.results import RetrainedScores
from ktfast.images.source import PreparedSet
from support.tiny_recipe import TINY


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    write_views(folder, {"train": 8, "test": 3}, PHOTOGRAPHS[:14])
    return folder


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="module")
def finished(photographs, recipe, tmp_path_factory):
    """A run of every stage."""
    folder = tmp_path_factory.mktemp("run") / "all"
    assert main(["run", *arguments(folder, recipe, photographs)]) == 0
    return folder


def arguments(folder, recipe, photographs):
    return [
        *("--run", str(folder), "--config", str(recipe)),
        *("--data.pretext", str(photographs / "train"), "--data.test", str(photographs / "test")),
    ]


def result(folder, stage):
    return json.loads((folder / stage / "result.json").read_text())


def test_every_stage_leaves_its_artifacts(finished):
    assert result(finished, "prepare/pretext")["summary"]["images"] == 14 * 8
    assert result(finished, "pretext")["summary"]["chance"] == pytest.approx(1 / 12)
    assert result(finished, "features/pretext")["summary"]["rows"] == 14 * 8
    with np.load(finished / "cluster/labels.npz") as labels:
        assert len(labels["labels"]) == len(set(labels["sample_ids"])) == 14 * 8
    weights = load_file(finished / "transfer/weights.safetensors")
    assert weights["classifier.6.weight"].shape[0] == 10
    summary = result(finished, "evaluate")["summary"]
    assert summary["models"] == ["transfer", "random", "pretext", "labels"]
    assert set(summary["linear"]["transfer"]) == {"conv1", "conv2", "conv3", "conv4", "conv5"}
    assert 0 <= summary["random_clusters"]["nmi"] <= 1
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert {row["stage"] for row in rows} == {
        *("pretext", "transfer", "baseline_pretext", "baseline_labels")
    }
    judged = [row["neighbours"] for row in rows if "neighbours" in row]
    assert len(judged) == 2 * 5  # of two puzzle networks
    assert result(finished, "pretext")["summary"]["neighbours"] == {
        "untrained": judged[0],
        "trained": judged[4],
    }
    page = (finished / "report.html").read_text()
    assert "Nearest neighbours of the features" in page
    assert "<img" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_a_run_that_reaches_its_end_leaves_its_own_options(finished, recipe, photographs):
    path = finished / "config.toml"
    options = path.read_text()
    path.write_text(options.replace('objective = "clusters"', 'objective = "regression"'))
    assert main(["run", *arguments(finished, recipe, photographs)]) == 0
    assert path.read_text() == options


def test_the_same_command_does_nothing_twice(finished, recipe, photographs):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*.safetensors")}
    assert main(["run", *arguments(finished, recipe, photographs)]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*.safetensors")}


def test_the_python_entry_goes_on_with_the_folder_of_the_command_line(finished):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*.safetensors")}
    assert ktfast.run(finished / "config.toml", finished) == finished / "report.html"
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*.safetensors")}


def remove_images(run):
    next((run / "prepare/pretext").glob("shard-*.tar")).unlink()
    return "prepare/pretext"


def cut_features(run):
    path = next((run / "features/pretext").glob("features-*.npy"))
    path.write_bytes(path.read_bytes()[:-1])
    return "features/pretext"


def remove_labels(run):
    (run / "cluster/labels.npz").unlink()
    return "cluster"


def remove_weights(run):
    (run / "transfer/weights.safetensors").unlink()
    return "transfer"


@pytest.mark.parametrize(
    "damage", [remove_images, cut_features, remove_labels, remove_weights], ids=lambda f: f.__name__
)
def test_artifacts_that_were_lost_are_made_again(
    damage, finished, recipe, photographs, tmp_path, caplog
):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    stage = damage(folder)
    caplog.clear()
    assert main([stage.partition("/")[0], *arguments(folder, recipe, photographs)]) == 0
    assert "is repaired" in caplog.text
    assert result(folder, stage)["fingerprint"] == result(finished, stage)["fingerprint"]


def test_a_missing_shard_names_the_command_that_mends_it(
    finished, recipe, photographs, tmp_path, capsys
):
    folder = tmp_path / "run"
    shutil.copytree(finished / "prepare", folder / "prepare")
    remove_images(folder)
    assert main(["pretext", *arguments(folder, recipe, photographs)]) == 2
    assert "run ktfast prepare again" in capsys.readouterr().err


def test_labels_of_other_images_are_refused(finished, recipe, photographs, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder, ignore=shutil.ignore_patterns("transfer", "evaluate"))
    path = folder / "cluster/labels.npz"
    with np.load(path) as file:
        labels, ids = file["labels"], file["sample_ids"]
    np.savez(path, labels=labels, sample_ids=ids[::-1])
    record = result(folder, "cluster") | {"fingerprint": sha256_file(path)}
    del record["sha256"]
    record["files"]["labels.npz"] = describe_file(path)
    write_sealed(folder / "cluster/result.json", record)
    assert main(["transfer", *arguments(folder, recipe, photographs)]) == 2
    assert "labels other images" in capsys.readouterr().err


def test_balanced_transfer(finished, recipe, photographs, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    command = ["transfer", *arguments(folder, recipe, photographs), "--transfer.balanced", "true"]
    assert main(command) != 0
    assert "transfer.balanced was False, is now True" in capsys.readouterr().err
    assert main([*command, "--redo", "transfer"]) == 0
    ours, plain = (result(place, "transfer") for place in (folder, finished))
    assert ours["summary"]["steps"] == plain["summary"]["steps"]
    assert ours["fingerprint"] != plain["fingerprint"]


def test_redo_of_a_baseline_or_the_probes_keeps_the_other(finished, recipe, photographs, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    weights = folder / "baseline_labels/weights.safetensors"
    before = weights.stat().st_mtime_ns
    command = ["evaluate", *arguments(folder, recipe, photographs), "--evaluate.layers", "conv1"]
    assert main([*command, "--evaluate.random_clusters", "false", "--redo", "evaluate"]) == 0
    assert weights.stat().st_mtime_ns == before
    assert set(result(folder, "evaluate")["summary"]["linear"]["labels"]) == {"conv1"}


def test_clusters_made_again_make_the_later_stages_stale(
    finished, recipe, photographs, tmp_path, capsys
):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    command = arguments(folder, recipe, photographs)
    # A stage alone compares its inputs with what is asked, as a run does.
    assert main(["transfer", *command, "--cluster.n_clusters", "8"]) == 2
    assert "cluster.n_clusters was 10, is now 8" in capsys.readouterr().err
    config = (folder / "config.toml").read_bytes()
    assert main(["evaluate", *command, "--features.pool", "2", "--redo", "evaluate"]) == 2
    assert "features.pool was 4, is now 2" in capsys.readouterr().err
    assert (folder / "config.toml").read_bytes() == config
    assert (folder / "evaluate/result.json").is_file()
    assert main(["cluster", *command, "--n_clusters", "8", "--redo", "cluster"]) == 0
    for stage in ("transfer", "evaluate"):
        assert main([stage, "--run", str(folder)]) == 2
        message = capsys.readouterr().err.splitlines()[-1]
        assert f"{folder}/transfer was begun with other" in message
        assert "the pseudo-labels of the stage cluster changed since" in message
        assert not re.search("[0-9a-f]{64}", message)
    assert main(["report", str(folder)]) == 0
    page = (folder / "report.html").read_text()
    assert "stale: cluster was done again after it" in page
    assert "A linear probe on the frozen layers" not in page


def test_options_without_effect_on_results_may_change_in_mid_training(
    finished, recipe, photographs, tmp_path, monkeypatch
):
    from ktfast.training import loop

    folder = tmp_path / "run"
    shutil.copytree(finished / "prepare", folder / "prepare")
    command = ["pretext", *arguments(folder, recipe, photographs)]
    with monkeypatch.context() as patch:
        patch.setattr(loop, "learning_rate_factor", stopping(loop.learning_rate_factor))
        assert main(command) == 143
    names = ("log_every", "checkpoint_minutes")
    changed = [word for name in names for word in (f"--pretext.training.{name}", "3")]
    assert main([*command, *changed]) == 0
    assert result(folder, "pretext")["fingerprint"] == result(finished, "pretext")["fingerprint"]
    # A finished training does not mind either.
    changed[-1] = "7"
    assert main([*command, *changed]) == 0


def stopping(factor):
    """The learning rate of a step; step 3 sends SIGTERM to the process."""

    def rate(config, step, total):
        if step == 3:
            os.kill(os.getpid(), 15)
        return factor(config, step, total)

    return rate


def test_the_puzzle_is_learned_once_if_trunk_and_target_agree(
    recipe, photographs, finished, tmp_path
):
    folder = tmp_path / "run"
    shutil.copytree(finished / "prepare", folder / "prepare")
    command = arguments(folder, recipe, photographs)
    command += ["--pretext.trunk", "alexnet", "--pretext.crop", "90", "--pretext.tile_size", "26"]
    command += ["--pretext.dropout", "0", "--evaluate.baselines", "pretext"]
    command += ["--evaluate.random_clusters", "false", "--evaluate.layers", "conv1"]
    assert main(["run", *command]) == 0
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {row["stage"] for row in rows} == {"pretext", "transfer"}
    taken = result(folder, "baseline_pretext")
    assert taken["fingerprint"] == result(folder, "pretext")["fingerprint"]
    # Trained on its own, it has the same weights. The headers of the files differ.
    file = folder / "baseline_pretext/weights.safetensors"
    weights = load_file(file)
    shutil.rmtree(folder / "baseline_pretext")
    (folder / "pretext").rename(folder / "away")
    command += ["--features.source", "hog", "--redo", "features"]
    assert main(["features", *command]) == 0
    command = command[:-2]
    assert main(["cluster", *command, "--redo", "cluster"]) == 0
    assert main(["transfer", *command, "--redo", "transfer"]) == 0
    assert main(["evaluate", *command, "--redo", "evaluate"]) == 0
    alone = load_file(file)
    assert alone.keys() == weights.keys()
    assert all(np.array_equal(alone[name], weights[name]) for name in weights)


def test_the_images_may_move(finished, recipe, photographs, tmp_path):
    folder, moved = tmp_path / "run", tmp_path / "moved"
    shutil.copytree(finished, folder)
    shutil.copytree(photographs, moved)
    assert main(["run", *arguments(folder, recipe, moved)]) == 0
    # Without a recipe the run goes on with its own configuration.
    assert main(["transfer", "--run", str(folder)]) == 0


def test_another_option_is_refused_with_the_difference(finished, recipe, photographs, capsys):
    status = main(["pretext", *arguments(finished, recipe, photographs), "--width", "0.25"])
    assert status == 2
    assert "pretext.width was 0.125, is now 0.25" in capsys.readouterr().err


def test_a_stage_without_its_input_says_which_command_makes_it(
    recipe, photographs, tmp_path, capsys
):
    assert main(["prepare", *arguments(tmp_path, recipe, photographs)]) == 0
    assert main(["transfer", *arguments(tmp_path, recipe, photographs)]) == 2
    assert "ktfast cluster" in capsys.readouterr().err


def run_command(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "ktfast", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        env=os.environ | ({"PYTHONPATH": os.getcwd()} if os.environ.get("PYTHONPATH") else {}),
    )


@pytest.mark.parametrize(("name", "status"), [("TERM", 143), ("INT", 130), ("HUP", 129)])
def test_signals_outside_of_a_training_end_in_one_sentence(name, status, recipe, tmp_path):
    import signal as signals

    # Reading the pipe as a recipe blocks until the test writes it: no race, and no training.
    pipe = tmp_path / "recipe.toml"
    os.mkfifo(pipe)
    process = run_command("prepare", "--run", str(tmp_path / "run"), "--config", str(pipe))
    writer = None
    while writer is None and process.poll() is None:
        try:
            writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads yet
            time.sleep(0.01)
    process.send_signal(getattr(signals, f"SIG{name}"))
    _, error = process.communicate(timeout=60)
    assert writer is not None, error
    os.close(writer)
    assert process.returncode == status
    assert error.strip().splitlines() == [
        "ktfast: interrupted; the same command goes on from what was saved"
    ]


@pytest.mark.parametrize("stage", ["prepare", "features", "cluster", "evaluate"])
def test_a_stage_that_sigterm_ends_goes_on(
    stage, finished, recipe, photographs, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    for path in (folder / stage).rglob("result.json"):
        path.unlink()
    inner = {
        "prepare": "ktfast.pipeline.stages.prepare.prepare",
        "features": "ktfast.pipeline.steps.extract_features.FeatureWriter.append",
        "cluster": "ktfast.pipeline.steps.fit_clusters.FeatureTransform.fit",
        "evaluate": "ktfast.pipeline.steps.untrained_clusters.cluster_images",
    }[stage]
    with monkeypatch.context() as patch:
        patch.setattr(inner, lambda *_, **__: os.kill(os.getpid(), 15))
        if stage in ("features", "evaluate"):  # what is there stays
            shutil.rmtree(folder / stage)
        assert main([stage, *arguments(folder, recipe, photographs)]) == 143
    assert "interrupted; the same command goes on" in capsys.readouterr().err
    assert main([stage, *arguments(folder, recipe, photographs)]) == 0
    name = {"prepare": "prepare/pretext", "features": "features/pretext"}.get(stage, stage)
    assert result(folder, name)["fingerprint"] == result(finished, name)["fingerprint"]


@pytest.mark.parametrize("signal", ["TERM", "KILL"])
def test_an_interrupted_run_ends_with_the_same_weights(
    signal, finished, recipe, photographs, tmp_path, request
):
    import signal as signals

    folder = tmp_path / "run"
    shutil.copytree(finished / "prepare", folder / "prepare")
    process = run_command("pretext", *arguments(folder, recipe, photographs))
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (folder / "metrics.jsonl").exists():
        time.sleep(0.01)
    process.send_signal(getattr(signals, f"SIG{signal}"))
    _, error = process.communicate(timeout=60)
    if process.returncode != 0:  # it may have been done before the signal came
        assert process.returncode == {"TERM": 143, "KILL": -9}[signal], error
    assert main(["pretext", *arguments(folder, recipe, photographs)]) == 0
    ours, theirs = (
        load_file(place / "pretext/weights.safetensors") for place in (folder, finished)
    )
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[key], theirs[key]) for key in ours)


def test_hog_and_differing_data_sets(recipe, photographs, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(photographs / "train" / "coffee", other / "coffee")
    shutil.copytree(photographs / "train" / "rocket", other / "rocket")
    command = [*arguments(tmp_path / "run", recipe, photographs), "--data.transfer", str(other)]
    command += ["--data.train", str(photographs / "train"), "--evaluate.baselines", "[]"]
    assert main(["run", *command, "--features.source", "hog"]) == 0
    assert not (tmp_path / "run/pretext").exists()
    with np.load(tmp_path / "run/cluster/labels.npz") as labels:
        assert len(labels["labels"]) == 16
    assert result(tmp_path / "run", "features/pretext")["summary"]["rows"] == 14 * 8


def brightness(images):
    """A teacher of one's own: mean colour of the four quarters."""
    side = images.shape[1] // 2 * 2
    quarters = images[:, :side, :side].float().reshape(len(images), 2, side // 2, 2, side // 2, 3)
    return quarters.mean(dim=(2, 4)).flatten(1)


def test_features_of_any_model(recipe, photographs, finished, tmp_path, monkeypatch):
    from torchvision.models import resnet18

    shutil.copytree(finished / "prepare", tmp_path / "a" / "prepare")
    save_file(resnet18().state_dict(), tmp_path / "resnet18.safetensors")
    command = ["features", *arguments(tmp_path / "a", recipe, photographs)]
    weights = ["--weights", str(tmp_path / "resnet18.safetensors")]
    assert main([*command, "--source", "torchvision:resnet18", *weights]) == 0
    assert result(tmp_path / "a", "features/pretext")["summary"]["dim"] == 512

    shutil.copytree(finished / "prepare", tmp_path / "b" / "prepare")
    monkeypatch.syspath_prepend(os.path.dirname(__file__))
    command = ["features", *arguments(tmp_path / "b", recipe, photographs)]
    assert main([*command, "--source", "test_stages:brightness"]) == 0
    assert result(tmp_path / "b", "features/pretext")["summary"]["dim"] == 12


@pytest.mark.parametrize("choice", ["l2", "pca-whiten-l2"])
def test_features_stored_normalized_are_clustered_as_they_are(
    choice, recipe, photographs, finished, tmp_path, monkeypatch, capsys
):
    asked = ["--cluster.normalize", choice, "--cluster.pca", "8", "--features.dtype", "float32"]
    labels = []
    for stored in ("false", "true"):
        folder = tmp_path / stored
        for part in ("prepare", "pretext"):
            shutil.copytree(finished / part, folder / part)
        command = [*arguments(folder, recipe, photographs), *asked, "--features.normalized", stored]
        assert main(["features", *command]) == 0
        if stored == "true":  # no second pass over the features
            monkeypatch.delattr("ktfast.features.transform.FeatureTransform.apply_store")
        assert main(["cluster", *command]) == 0
        with np.load(folder / "cluster/labels.npz") as file:
            labels.append(file["labels"])
    manifest = json.loads((folder / "features/pretext/manifest.json").read_text())
    assert manifest["dim"] == (8 if choice.startswith("pca") else 64 * 4**2)
    # A PCA is fitted on a sample then: other axes, much the same clusters.
    if choice == "l2":
        np.testing.assert_array_equal(*labels)
    else:
        assert normalized_mutual_information(*labels) > 0.5
    command[command.index(choice)] = "pca-l2"
    assert main(["cluster", *command, "--redo", "cluster"]) == 2
    assert "redo the stage features (--redo features" in capsys.readouterr().err


def test_clustering_of_a_matrix_from_elsewhere(recipe, photographs, finished, tmp_path):
    shutil.copytree(finished / "prepare", tmp_path / "run" / "prepare")
    rng = np.random.default_rng(0)
    np.save(tmp_path / "matrix.npy", rng.normal(size=(14 * 8, 7)).astype(np.float32))
    command = ["cluster", *arguments(tmp_path / "run", recipe, photographs)]
    assert main([*command, "--features", str(tmp_path / "matrix.npy")]) == 0
    assert result(tmp_path / "run", "cluster")["summary"]["used"] == 10


@pytest.mark.parametrize(("scale", "dtype"), [(1e20, "float32"), (1e-50, "float64")])
def test_clustering_of_a_matrix_of_extreme_magnitude(
    scale, dtype, recipe, photographs, finished, tmp_path
):
    shutil.copytree(finished / "prepare", tmp_path / "run" / "prepare")
    rng = np.random.default_rng(0)
    groups = np.arange(14 * 8) % 4
    rows = rng.normal(size=(4, 7))[groups] + rng.normal(size=(14 * 8, 7)) * 0.01
    command = ["cluster", *arguments(tmp_path / "run", recipe, photographs)]
    command += [
        "--cluster.n_clusters",
        "4",
        "--features",
        str(tmp_path / "matrix.npy"),
        "--redo",
        "cluster",
    ]
    found = []
    for factor in (1, scale):
        np.save(tmp_path / "matrix.npy", (rows * factor).astype(dtype))
        assert main(command) == 0
        with np.load(tmp_path / "run/cluster/labels.npz") as file:
            found.append(file["labels"])
    assert len(np.unique(found[0])) == 4
    np.testing.assert_array_equal(*found)


def test_clustering_of_a_float64_matrix_larger_than_the_budget(
    recipe, photographs, finished, tmp_path
):
    shutil.copytree(finished / "prepare", tmp_path / "run" / "prepare")
    rng = np.random.default_rng(0)
    np.save(tmp_path / "matrix.npy", rng.normal(size=(14 * 8, 7)))
    command = ["cluster", *arguments(tmp_path / "run", recipe, photographs)]
    command += ["--features", str(tmp_path / "matrix.npy"), "--normalize", "pca-l2", "--pca", "5"]
    assert main(command) == 0
    labels = (tmp_path / "run/cluster/labels.npz").read_bytes()
    assert main([*command, "--data.memory_budget_gb", "0", "--redo", "cluster"]) == 0
    assert (tmp_path / "run/cluster/labels.npz").read_bytes() == labels
    left = {path.name for path in (tmp_path / "run/cluster").iterdir()}
    assert left == {
        *("begun.json", "result.json", "centers.npy", "labels.npz", "transform.npz"),
        *("assignments.csv", "history.json", "montage.npz", "montage.csv"),
    }


def test_a_folder_without_classes_is_measured_without_labels(recipe, photographs, tmp_path, capsys):
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in sorted((photographs / "train").rglob("view-00[0-3].jpg")):
        shutil.copy(path, flat / f"{path.parent.name}-{path.name}")
    command = ["--run", str(tmp_path / "run"), "--config", str(recipe), "--data.pretext", str(flat)]
    assert main(["run", *command]) == 0
    assert "nmi" not in result(tmp_path / "run", "cluster")["summary"]
    assert not (tmp_path / "run/evaluate").exists()
    measured = result(tmp_path / "run", "unlabelled")["summary"]
    assert -1 <= measured["agreement"]["untrained"] <= 1
    other = [*("--run", str(tmp_path / "other")), *command[2:]]
    assert main(["run", *other, "--data.test", str(photographs / "test")]) == 2
    message = capsys.readouterr().err
    assert f"data.pretext ({flat}) has no labels for the probes" in message
    assert "or give labelled images as data.train" in message
    # Labelled images of other kinds: fewer classes in the test set.
    test = tmp_path / "test"
    for name in ("moon", "coins"):
        shutil.copytree(photographs / "test" / name, test / name)
    command += ["--data.train", str(photographs / "train"), "--data.test", str(test)]
    command += ["--evaluate.baselines", "random", "--evaluate.label_fractions", "0.25,0.5"]
    command += ["--evaluate.retrain", "conv1,conv5,fc7", "--evaluate.retrain_epochs", "1"]
    assert main(["evaluate", *command]) == 0
    summary = result(tmp_path / "run", "evaluate")["summary"]
    assert set(summary["knn"]) == {"transfer", "random"}
    assert [regime["fraction"] for regime in summary["low_label"]] == [0.25, 0.5]
    for regime in summary["low_label"]:
        assert set(regime["linear"]) == {"transfer", "random"}
        assert regime["linear"]["random"].keys() == summary["linear"]["random"].keys()
        assert regime["protocol"]["optimiser"] == "sgd"
    few, more = (regime["images"] for regime in summary["low_label"])
    assert 0 < few < more
    for measure in ("retrained", "retrained_top1"):
        assert {name: set(row) for name, row in summary[measure].items()} == {
            name: {"conv1", "conv5", "fc7"} for name in ("transfer", "random")
        }
    assert summary["retrained_protocol"]["epochs"] == 1
    assert not list((tmp_path / "run/evaluate").glob("retraining-*"))


def test_an_interrupted_evaluation_keeps_the_retrained_layers_it_has(
    finished, recipe, photographs, tmp_path, monkeypatch
):
    from ktfast.pipeline.steps import retrain_layers

    run = tmp_path / "run"
    shutil.copytree(finished, run)
    command = ["evaluate", *arguments(run, recipe, photographs), "--evaluate.baselines", "random"]
    command += ["--evaluate.random_clusters", "false", "--evaluate.retrain", "conv1,conv5"]
    trained = []

    def retrain(_, network, layer, images, folder):
        checkpoint = folder / "checkpoint"
        if (network.name, layer) == ("random", "conv1") and not checkpoint.exists():
            checkpoint.touch()
            raise KeyboardInterrupt
        trained.append((network.name, layer))
        return RetrainedScores(top1=0.5, mean_per_class=0.25, steps=1, protocol={})

    monkeypatch.setattr(retrain_layers, "retrain_above", retrain)
    assert main([*command, "--redo", "evaluate"]) == 130
    assert main(command) == 0
    assert trained == [
        (name, layer) for name in ("transfer", "random") for layer in ("conv1", "conv5")
    ]
    assert result(run, "evaluate")["summary"]["retrained"]["random"] == {
        "conv1": 0.25,
        "conv5": 0.25,
    }
    assert not list((run / "evaluate").glob("retraining-*"))


def test_unknown_layers_to_retrain_are_refused_early(recipe, photographs, tmp_path, capsys):
    command = ["run", *arguments(tmp_path / "run", recipe, photographs)]
    assert main([*command, "--evaluate.retrain", "conv6"]) == 2
    assert "evaluate.retrain: 'conv6' is unknown; the target has conv1" in capsys.readouterr().err


def test_layers_that_do_not_fit_together_are_probed_one_by_one(
    finished, recipe, photographs, tmp_path, monkeypatch
):
    from ktfast.pipeline.run_folder import RunFolder
    from ktfast.pipeline.steps import probe_layers
    from ktfast.pipeline.steps.labelled_sets import LabelledSet
    from ktfast.pipeline.steps.probed_models import probed_network

    run = RunFolder(finished, load_config(recipe, {"data.pretext": "a", "data.test": "b"}))
    monkeypatch.setattr(probe_layers, "open_set", lambda _, role: open_prepared(finished, role))
    monkeypatch.setattr(probe_layers, "LEAST_BUDGET", 1)
    network = probed_network(run, "transfer")
    small = RunFolder(
        finished,
        load_config(
            recipe,
            {"data.pretext": "a", "data.test": "b", "data.memory_budget_gb": "0.003"},
        ),
    )
    together, apart = (
        list(probe_layers._passes(each, network, LabelledSet(), network.layers))
        for each in (run, small)
    )
    assert len(together) == 1
    assert len(apart) > 1
    assert sum(apart, ()) == together[0]
    none = load_config(
        recipe, {"data.pretext": "a", "data.test": "b", "data.memory_budget_gb": "0"}
    )
    with pytest.raises(ConfigError, match=r"layer conv1 .* raise it"):
        probe_layers.check_probe_memory(RunFolder(finished, none))


def open_prepared(run, role):
    return PreparedSet.open(run / "prepare" / ("test" if role == "test" else "pretext"))


class TestBadInput:
    """One clear sentence each, exit status 2, and nothing lost."""

    def status(self, capsys, *command):
        status = main(list(command))
        return status, capsys.readouterr().err.strip().splitlines()[-1]

    def test_empty_folder(self, recipe, tmp_path, capsys):
        (tmp_path / "empty").mkdir()
        status, message = self.status(
            capsys,
            *("run", "--run", str(tmp_path / "run"), "--config", str(recipe)),
            *("--data.pretext", str(tmp_path / "empty")),
        )
        assert status == 2
        assert str(tmp_path / "empty") in message

    def test_folder_of_one_image(self, recipe, photographs, tmp_path, capsys):
        (tmp_path / "one").mkdir()
        shutil.copy(next((photographs / "train/coffee").iterdir()), tmp_path / "one")
        status, message = self.status(
            capsys,
            *("run", "--run", str(tmp_path / "run"), "--config", str(recipe)),
            *("--data.pretext", str(tmp_path / "one"), "--cluster.n_clusters", "2"),
        )
        assert status == 2
        assert "holds 1 image; the pretext task jigsaw++ needs at least 2 images" in message

    def test_fewer_images_than_clusters(self, recipe, photographs, tmp_path, capsys):
        status, message = self.status(
            capsys,
            *("run", *arguments(tmp_path / "run", recipe, photographs)),
            *("--cluster.n_clusters", "1000"),
        )
        assert status == 2
        assert "1000 is more than the 112 images" in message
        assert not (tmp_path / "run/prepare").exists()

    def test_a_stage_alone_is_refused_before_anything_is_computed(
        self, recipe, photographs, tmp_path, capsys
    ):
        command = arguments(tmp_path / "run", recipe, photographs)
        status, message = self.status(capsys, "features", *command, "--source", "resnet18")
        assert (status, "'resnet18' is unknown" in message) == (2, True)
        status, message = self.status(capsys, "cluster", *command, "--n_clusters", "1000")
        assert (status, "1000 is more than the 112 images" in message) == (2, True)
        assert not (tmp_path / "run/prepare").exists()

    def test_unlabelled_test_images_are_refused_before_a_training(
        self, recipe, photographs, finished, tmp_path, capsys
    ):
        flat = tmp_path / "flat"
        flat.mkdir()
        for number, path in enumerate(sorted((photographs / "test").rglob("*.jpg"))):
            shutil.copy(path, flat / f"{number}.jpg")
        folder = tmp_path / "run"
        shutil.copytree(
            finished, folder, ignore=shutil.ignore_patterns("baseline_*", "evaluate", "test")
        )
        command = ["evaluate", *arguments(folder, recipe, photographs), "--data.test", str(flat)]
        status, message = self.status(capsys, *command)
        assert status == 2
        assert f"data.test ({flat}) has no labels" in message
        assert not (folder / "baseline_pretext").exists()
        assert not (folder / "prepare/test").exists()

    @pytest.mark.parametrize(
        ("option", "value", "message"),
        [
            ("features.layer", "conv9", "features.layer 'conv9' is unknown"),
            ("evaluate.layers", "conv9", "evaluate.layers: 'conv9' is unknown"),
            ("features.crop", "4", "features.crop 4 is too small"),
            ("features.source", "sift", "'sift' is unknown"),
            ("transfer.target", "vgg16", "leave 'pretext' out"),
            ("transfer.crop", "16", "image_size 16 is too small"),
            ("transfer.training.precision", "float16", "needs a GPU"),
            ("evaluate.neighbors", "113", "evaluate.neighbors 113 is more than the 112 images"),
            ("features.weights", "nowhere.safetensors", "does not exist"),
        ],
    )
    def test_what_would_fail_hours_later_is_refused_at_once(
        self, option, value, message, recipe, photographs, tmp_path, capsys
    ):
        command = ("run", *arguments(tmp_path / "run", recipe, photographs))
        status, said = self.status(capsys, *command, f"--{option}", value)
        assert status == 2
        assert message in said
        assert not (tmp_path / "run/prepare").exists()

    def test_images_beside_the_classes(self, recipe, photographs, tmp_path, capsys):
        shutil.copytree(photographs / "train", tmp_path / "mixed")
        shutil.copy(next((photographs / "test/moon").iterdir()), tmp_path / "mixed/loose.jpg")
        status, message = self.status(
            capsys,
            *("run", *arguments(tmp_path / "run", recipe, photographs)),
            *("--data.pretext", str(tmp_path / "mixed")),
        )
        assert status == 2
        assert "holds 1 image outside the folders of classes, the first is loose.jpg" in message

    def test_probe_labels_of_images_beside_the_classes(self, recipe, photographs, tmp_path):
        from ktfast.pipeline.run_folder import RunFolder
        from ktfast.pipeline.steps.labelled_sets import labels_of

        shutil.copytree(photographs / "test", tmp_path / "mixed")
        shutil.copy(next((photographs / "test/moon").iterdir()), tmp_path / "mixed/loose.jpg")
        options = ["--run", str(tmp_path / "run"), "--config", str(recipe)]
        options += ["--data.pretext", str(tmp_path / "mixed")]
        main(["prepare", *options])
        config = load_config(recipe, {"data.pretext": str(tmp_path / "mixed")})
        with pytest.raises(DataError, match=r"the first is loose\.jpg"):
            labels_of(RunFolder(tmp_path / "run", config), "train")

    def test_typos_on_the_command_line(self, tmp_path, capsys):
        run = ("--run", str(tmp_path / "run"))
        status, message = self.status(capsys, "run", *run, "--pretext.widht", "3")
        assert status == 2
        assert message.endswith("unknown argument --pretext.widht; did you mean --pretext.width?")
        status, message = self.status(capsys, "evaluate", *run)
        assert status == 2
        assert "there is no run folder" in message
        assert not (tmp_path / "run").exists()
        (tmp_path / "run").touch()
        for command in (("run", *run), ("demo", *run), ("prepare", *run)):
            assert self.status(capsys, *command)[0] == 2
        status, message = self.status(capsys, "cluster", *run, "--redo", "pretext")
        assert status == 2

    def test_typo_in_the_configuration(self, photographs, tmp_path, capsys):
        (tmp_path / "c.toml").write_text("[pretext]\nperumtations = 3\n")
        status, message = self.status(
            capsys, *("run", *arguments(tmp_path / "run", tmp_path / "c.toml", photographs))
        )
        assert status == 2
        assert "did you mean pretext.permutations" in message

    def test_images_that_cannot_be_decoded_are_listed(self, recipe, photographs, tmp_path, capsys):
        shutil.copytree(photographs / "train" / "moon", tmp_path / "images" / "moon")
        (tmp_path / "images/moon/broken.jpg").write_bytes(b"\xff\xd8\xff junk")
        (tmp_path / "images/about.txt").write_text("photographs of the moon")
        command = ["prepare", "--run", str(tmp_path / "run"), "--config", str(recipe)]
        command += ["--data.pretext", str(tmp_path / "images"), "--cluster.n_clusters", "9"]
        assert main(command) == 2  # after preparing, because one of the 9 files is broken
        assert "9 is more than the 8 images" in capsys.readouterr().err
        summary = result(tmp_path / "run", "prepare/pretext")["summary"]
        assert summary["images"] == 8
        assert [path for path, _ in summary["skipped"]] == ["moon/broken.jpg"]
        assert summary["others"] == {
            "listed": [["about.txt", "not an image"]],
            "by_suffix": {".txt": 1},
        }

    def test_a_shard_that_vanished(self, recipe, photographs, finished, tmp_path, capsys):
        shutil.copytree(finished / "prepare", tmp_path / "run" / "prepare")
        shard = tmp_path / "run/prepare/pretext/shard-00000.tar"
        before = shard.read_bytes()
        shard.unlink()
        command = arguments(tmp_path / "run", recipe, photographs)
        status, message = self.status(capsys, "features", *command, "--source", "hog")
        assert status == 2
        assert "run ktfast prepare again" in message
        assert main(["prepare", *command]) == 0
        assert shard.read_bytes() == before

    def test_full_disk(self, recipe, photographs, finished, tmp_path, capsys, monkeypatch):
        shutil.copytree(finished / "prepare", tmp_path / "run" / "prepare")

        def full(*_):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("ktfast.durable.os.fsync", full)
            status, message = self.status(
                capsys, *("pretext", *arguments(tmp_path / "run", recipe, photographs))
            )
        assert status == 1
        assert "No space left on device" in message
        assert "free some space" in message
        assert main(["pretext", *arguments(tmp_path / "run", recipe, photographs)]) == 0

    def test_an_unknown_source(self, recipe, photographs, finished, tmp_path, capsys):
        shutil.copytree(finished / "prepare", tmp_path / "run" / "prepare")
        status, message = self.status(
            capsys,
            *("features", *arguments(tmp_path / "run", recipe, photographs), "--source", "sift"),
        )
        assert status == 2
        assert "'sift' is unknown" in message
