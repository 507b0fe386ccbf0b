"""Runs whose target learns the teacher's features: stages, inputs, report, comparison, refusals."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from ktfast.cli.main import main
from ktfast.config import load_config
from ktfast.pipeline.chain import needed_before
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.steps.labelled_sets import LabelledSet
from ktfast.pipeline.steps.questions import baseline_question, probe_question
from support.small_pipeline import write_inputs


@pytest.fixture(scope="module", autouse=True)
def no_drawings():
    """The drawings take most of a report's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ktfast.report.plots._svg", lambda *_: "")
        yield


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    write_inputs(folder)
    return folder


def arguments(photographs, run, *more):
    return [
        *("--run", str(run), "--config", str(photographs / "small.toml")),
        *("--data.pretext", str(photographs / "train"), "--features.source", "hog"),
        *("--evaluate.baselines", "random", "--evaluate.layers", "conv5", *more),
    ]


@pytest.fixture(scope="module")
def swept(photographs, tmp_path_factory):
    """One run of each objective, made by a sweep."""
    out = tmp_path_factory.mktemp("out")
    command = ["sweep", "--vary", "transfer.objective=clusters,regression,similarity"]
    command += ["--out", str(out), *arguments(photographs, "")[2:]]
    assert main([*command, "--data.test", str(photographs / "test")]) == 0
    return out


def result(run, stage):
    return json.loads((run / stage / "result.json").read_text())


def page(run):
    text = (run / "report.html").read_text()
    return re.sub(r"<svg.*?</svg>|<pre>.*?</pre>|<style>.*?</style>", "", text, flags=re.S)


@pytest.mark.parametrize("name", ["regression", "similarity"])
def test_a_target_learns_features(name, swept):
    run = swept / f"runs/objective-{name}"
    assert not (run / "cluster").exists()
    transfer = result(run, "transfer")
    assert transfer["config"]["objective"] == name
    assert transfer["from"]["features"] == "features/pretext"
    assert transfer["inputs"]["features"] == result(run, "features/pretext")["fingerprint"]
    assert "labels" not in transfer["inputs"]
    held_out = transfer["summary"]["held_out"]
    assert (held_out["images"], held_out["measured_on"]) == (12, "test")
    assert held_out["features"] == result(run, "features/test")["fingerprint"]
    assert held_out["trained"] != held_out["untrained"]
    assert "transform.npz" in transfer["files"]
    assert "cluster: left out, because transfer.objective is" in (run / "log.txt").read_text()


def test_the_objectives_share_everything_else(swept):
    runs = [swept / f"runs/objective-{name}" for name in ("clusters", "regression", "similarity")]
    summaries = [result(run, "evaluate")["summary"]["linear"] for run in runs]
    assert len({json.dumps(summary["random"]) for summary in summaries}) == 1
    assert len({result(run, "transfer")["fingerprint"] for run in runs}) == 3
    steps = {result(run, "transfer")["summary"]["steps"] for run in runs}
    assert len(steps) == 1  # the same budget
    log = [(run / "log.txt").read_text() for run in runs]
    assert ["features/pretext: started" in text for text in log] == [True, False, False]


def test_the_table_names_the_objective(swept):
    table = (swept / "compare.md").read_text()
    rows = re.findall(r"^\| [^|]* \| ([^|]*) \|", table, re.M)
    assert {"clusters", "regression", "similarity"} <= {row.strip() for row in rows}


def test_the_report_speaks_of_the_objective(swept):
    names = ("clusters", "regression", "similarity")
    texts = {name: page(swept / f"runs/objective-{name}") for name in names}
    assert "pseudo-label" in texts["clusters"]
    assert "transfer (clusters as labels)" in texts["clusters"]
    assert "by clustering self-supervised" in texts["clusters"]
    for name in names[1:]:
        assert not re.findall(r"pseudo-label|clusters as labels|by clustering", texts[name])
        assert "and no clusters" in texts[name]
    assert "Cosine similarity to the teacher" in texts["regression"]
    assert "the mean cosine similarity of its outputs and the teacher" in texts["regression"]
    assert "Divergence from the teacher" in texts["similarity"]


def test_a_finished_transfer_is_up_to_date_and_another_objective_is_refused(
    swept, photographs, capsys
):
    run = swept / "runs/objective-regression"
    weights = run / "transfer/weights.safetensors"
    before = weights.stat().st_mtime_ns
    command = ["transfer", *arguments(photographs, run, "--data.test", str(photographs / "test"))]
    assert main([*command, "--objective", "regression"]) == 0
    assert weights.stat().st_mtime_ns == before
    assert main([*command, "--objective", "similarity"]) == 2
    assert "transfer.objective was 'regression', is now 'similarity'" in capsys.readouterr().err
    # The features are made by another teacher: the chain refuses before anything is trained.
    assert main([*command, "--objective", "regression", "--features.source", "pretext"]) == 2
    assert "features.source was 'hog', is now 'pretext'" in capsys.readouterr().err


# --- which stages a run needs ---------------------------------------------------------------------
def options(**more):
    given = {"data.pretext": "photos", "transfer.objective": "regression", **more}
    return load_config(None, given)


def test_the_chain_leaves_the_clusters_out():
    labelled = options(**{"data.test": "test", "features.source": "hog"})
    assert needed_before(labelled, "transfer") == ["features"]
    assert needed_before(labelled, "evaluate") == ["features", "transfer"]
    assert needed_before(labelled, "voc") == ["features", "transfer"]
    unlabelled = options(**{"features.source": "hog"})
    assert needed_before(unlabelled, "transfer") == ["features"]
    assert needed_before(unlabelled, "evaluate") == ["features", "cluster", "transfer"]
    of_clusters = options(**{"features.source": "hog", "transfer.objective": "clusters"})
    assert needed_before(of_clusters, "transfer") == ["features", "cluster"]


def test_baselines_do_not_depend_on_the_objective(photographs, tmp_path):
    folder = str(photographs / "train")
    asked = []
    for own in ({}, {"transfer.objective": "similarity", "transfer.temperature": 0.3}):
        config = load_config(None, {"data.pretext": folder, "data.test": folder, **own})
        run = RunFolder(tmp_path / "none", config)
        asked.append(
            [probe_question(run, name, LabelledSet()) for name in ("random", "labels")]
            + [baseline_question(run, name).settings for name in ("pretext", "labels")]
        )
    assert asked[0] == asked[1]


# --- refusals and runs without labels -------------------------------------------------------------
def test_features_of_other_images_are_refused_before_the_training(photographs, tmp_path, capsys):
    paths = [f"bright/{k}.png" for k in range(12)]  # the dark photographs are missing
    np.savez(tmp_path / "x.npz", features=np.eye(12, 5) + 1, paths=paths)
    command = arguments(photographs, tmp_path / "run", "--transfer.objective", "regression")
    command = ["run", *command, "--cluster.features", str(tmp_path / "x.npz")]
    command += ["--data.test", str(photographs / "test")]
    command.remove("hog")
    command.remove("--features.source")
    assert main(command) == 2
    message = capsys.readouterr().err
    assert "lacks 12 of the 24 images" in message
    assert "give one row for every image" in message
    assert not (tmp_path / "run/transfer").exists()


def test_features_that_are_not_finite_are_refused(photographs, tmp_path, capsys):
    paths = [f"{name}/{k}.png" for name in ("bright", "dark") for k in range(12)]
    features = np.random.default_rng(0).normal(size=(24, 5))
    features[13, 2] = np.nan
    np.savez(tmp_path / "x.npz", features=features, paths=paths)
    command = ["transfer", "--run", str(tmp_path / "run"), "--objective", "similarity"]
    command += ["--config", str(photographs / "small.toml"), "--data.pretext"]
    command += [str(photographs / "train"), "--cluster.features", str(tmp_path / "x.npz")]
    assert main(command) == 2
    assert "not finite, first those of dark/1.png" in capsys.readouterr().err
    features[13, 2] = 0
    np.savez(tmp_path / "x.npz", features=features, paths=paths)
    assert main(command) == 0
    held_out = result(tmp_path / "run", "transfer")["summary"]["held_out"]
    assert (held_out["measured_on"], held_out["images"]) == ("transfer", 24)


def test_without_labels_the_clusters_are_still_measured(photographs, tmp_path):
    run = tmp_path / "run"
    assert main(["run", *arguments(photographs, run, "--transfer.objective", "regression")]) == 0
    assert (run / "cluster/result.json").is_file()
    assert result(run, "unlabelled")["summary"]["agreement"]
    assert result(run, "transfer")["from"]["features"] == "features/pretext"
    text = page(run)
    assert "saw no pseudo-label" in text
    assert "Cosine similarity to the teacher" in text


def test_a_damaged_transform_is_found(swept, tmp_path, photographs, capsys):
    run = swept / "runs/objective-similarity"
    path = run / "transfer/transform.npz"
    whole, weights = path.read_bytes(), (run / "transfer/weights.safetensors").read_bytes()
    path.unlink()
    path.write_bytes(whole[:-40])
    command = ["transfer", *arguments(photographs, run, "--data.test", str(photographs / "test"))]
    assert main([*command, "--objective", "similarity"]) == 0
    assert path.read_bytes() == whole
    assert (run / "transfer/weights.safetensors").read_bytes() == weights


def test_images_are_refused_that_have_no_features_of_the_test_images(photographs, tmp_path, capsys):
    (tmp_path / "test/bright").mkdir(parents=True)
    (tmp_path / "test/dark").mkdir()
    for k in range(4):
        for name in ("bright", "dark"):
            Image.new("RGB", (90, 90), (9 * k, 0, 0)).save(tmp_path / f"test/{name}/{k}.png")
    run = tmp_path / "run"
    command = arguments(photographs, run, "--data.test", str(tmp_path / "test"))
    assert main(["features", *command]) == 0  # for clusters: without the test images
    assert main(["transfer", *command, "--objective", "regression"]) == 2
    message = capsys.readouterr().err
    assert "has no finished stage 'features/test'; run `ktfast features`" in message
    assert not (run / "transfer/weights.safetensors").exists()
