"""A run without labels ends with measures of its clusters and its student."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import ktfast
from ktfast.cli.main import main
from ktfast.config import load_config
from ktfast.config.run import tomllib
from ktfast.errors import InputError
from ktfast.evaluation.unlabelled_result import PAIRS, UnlabelledMeasures
from support.photographs import squares
from support.tiny_recipe import TINY

STAGES = ["prepare", "features", "cluster", "transfer", "evaluate"]


def _flat(table, prefix=""):
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def options(folder, **more):
    recipe = tomllib.loads(TINY.replace("epochs = 2", "epochs = 1"))
    return {
        **dict(_flat(recipe)),
        "data.pretext": str(folder / "images"),
        "features.source": "hog",
        "features.crop": 90,
        "cluster.n_clusters": 4,
        **more,
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of every stage on photographs without classes."""
    place = tmp_path_factory.mktemp("unlabelled")
    (place / "images").mkdir()
    for number, square in enumerate(squares(30, 96)):
        Image.fromarray(square).save(place / "images" / f"{number:02}.png")
    report = ktfast.run(load_config(None, options(place)), place / "run")
    assert report == place / "run/report.html"
    return place


def measures(run):
    result = json.loads((run / "unlabelled/result.json").read_text())
    return UnlabelledMeasures.from_json(result["summary"])


def test_every_measure_is_stored_beside_an_untrained_network(folder):
    found = measures(folder / "run")
    for name in PAIRS:
        assert getattr(found, name).trained is not None
    assert found.agreement.untrained is None  # HOG has no weights
    assert 0 <= found.pseudo_labels.untrained <= 1
    assert 0 < found.shared_neighbours.trained < 1
    assert 1 < found.effective_rank.trained < 30
    assert (found.layer, found.images, found.voters, found.neighbors) == ("conv5", 30, 30, 5)
    assert {path.name for path in (folder / "run/unlabelled").iterdir()} == {
        *("begun.json", "result.json")
    }


def test_the_agreement_is_that_of_the_next_seed(folder):
    """The folder `cluster` of a run with the next seed holds the second clustering."""
    from ktfast.evaluation.unlabelled import adjusted_rand_index

    other = folder / "other"
    ktfast.run(options(folder, seed=4), other, stages=["prepare"])
    for stage in ("features", "cluster"):
        ktfast.run(options(folder, seed=4), other, stages=[stage])
    labels = []
    for run in (folder / "run", other):
        with np.load(run / "cluster/labels.npz") as arrays:
            labels.append(arrays["labels"].astype(int))
    assert measures(folder / "run").agreement.trained == adjusted_rand_index(*labels)


def test_the_report_shows_the_measures(folder):
    page = (folder / "run/report.html").read_text()
    assert "Two seeds agree on the clusters with an index of" in page
    assert 'id="unlabelled"' in page
    assert "Not evaluated" not in page
    for text in ("Held-out pseudo-labels", "Shared neighbours", "Effective rank"):
        assert text in page


def test_labels_that_come_later_leave_the_measures(folder, tmp_path):
    """The probes have a folder of their own, so that nothing needs to be done again."""
    run = tmp_path / "run"
    shutil.copytree(folder / "run", run)
    before = (run / "unlabelled/result.json").read_bytes()
    for role, count in (("train", 6), ("test", 3)):
        for name in ("a", "b"):
            (tmp_path / role / name).mkdir(parents=True)
            for number in range(count):
                picture = np.full((96, 96, 3), 40 * number + 20 * (name == "b"), np.uint8)
                Image.fromarray(picture).save(tmp_path / role / name / f"{number}.png")
    labelled = {
        **{f"data.{role}": str(tmp_path / role) for role in ("train", "test")},
        "evaluate.baselines": ["random"],
        "evaluate.headline": "knn:conv5",
        "evaluate.layers": ["conv5"],
    }
    assert ktfast.run(options(folder, **labelled), run, stages=["evaluate"]) is None
    assert (run / "unlabelled/result.json").read_bytes() == before
    summary = json.loads((run / "evaluate/result.json").read_text())["summary"]
    accuracies = summary["headline"]["classes"]
    assert set(accuracies) == {"transfer", "random"}
    for model, classes in accuracies.items():
        assert np.mean(classes) == pytest.approx(summary["knn"][model]["conv5"])


def test_measures_are_made_again_only_if_they_are_asked_for(folder, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(folder / "run", run)
    stamp = (run / "unlabelled/result.json").stat().st_mtime_ns
    before = measures(run)
    assert main(["evaluate", "--run", str(run)]) == 0
    assert (run / "unlabelled/result.json").stat().st_mtime_ns == stamp
    assert main(["evaluate", "--run", str(run), "--evaluate.neighbors", "3"]) == 2
    assert "evaluate.neighbors was 5, is now 3" in capsys.readouterr().err
    again = ["evaluate", "--run", str(run), "--redo", "unlabelled"]
    assert main([*again, "--evaluate.neighbors", "3"]) == 0
    assert measures(run).neighbors == 3
    assert measures(run).agreement == before.agreement


@pytest.mark.parametrize("count", [2, 3])
def test_a_handful_of_images_is_measured(count, tmp_path):
    (tmp_path / "images").mkdir()
    for number, square in enumerate(squares(count, 96)):
        Image.fromarray(square).save(tmp_path / "images" / f"{number}.png")
    ktfast.run(options(tmp_path, **{"cluster.n_clusters": 2}), tmp_path / "run")
    found = measures(tmp_path / "run")
    assert found.agreement.trained is not None
    assert (found.effective_rank.trained is not None) == (count == 3)


def test_a_headline_must_name_a_probed_layer(folder, tmp_path):
    for text, message in (
        ("knn", "expected MEASURE:LAYER"),
        ("other:conv5", "expected MEASURE:LAYER"),
        ("knn:conv9", "names the layer conv9, which is not probed"),
    ):
        with pytest.raises(InputError, match=message):
            ktfast.run(options(folder, **{"evaluate.headline": text}), tmp_path / "run")
