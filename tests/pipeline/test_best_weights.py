"""The weights of the best measure: kept, restored, and taken by the stage features."""

import json

import pytest
from PIL import Image
from safetensors.numpy import load_file

import ktfast
from ktfast.config import load_config
from ktfast.config.run import tomllib
from ktfast.errors import ConfigError, DataError
from ktfast.pipeline.steps.best_weights import BEST, RECORD, BestWeights
from support.photographs import squares
from support.tiny_recipe import TINY


def weights(folder, saved):
    """Best weights whose file holds what `saved` holds now."""
    return BestWeights(folder, lambda path: path.write_text(saved[0]))


def test_the_best_of_several_measures_is_kept(tmp_path):
    saved = [""]
    best = weights(tmp_path, saved)
    for step, value in ((1, 0.2), (2, 0.4), (3, 0.4), (4, 0.3)):
        saved[0] = f"step {step}"
        best.offer(step, value)
    assert (tmp_path / BEST).read_text() == "step 2"


def test_a_training_that_repeats_steps_ends_with_the_same_weights(tmp_path):
    saved, measures = [""], {1: 0.2, 2: 0.1, 3: 0.5, 4: 0.3}
    for first in (1, 2):  # killed after step 3; the checkpoint is that of step 1
        best = weights(tmp_path, saved)
        for step in range(first, 4 + (first == 2)):
            saved[0] = f"step {step} of call {first}"
            best.offer(step, measures[step])
    assert (tmp_path / BEST).read_text() == "step 3 of call 2"


@pytest.mark.parametrize("file", [BEST, RECORD])
def test_a_damaged_file_is_not_taken(file, tmp_path, caplog):
    best = weights(tmp_path, ["a"])
    best.offer(3, 0.5)
    (tmp_path / file).write_text("damaged")
    again = weights(tmp_path, ["b"])
    assert "the best weights are removed" in caplog.text
    assert not (tmp_path / BEST).exists()
    again.offer(4, 0.1)
    assert (tmp_path / BEST).read_text() == "b"


def options(folder, classes, **more):
    for number, square in enumerate(squares(24, 96)):
        place = folder / "images" / (str(number % 2) if classes else "")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(square).save(place / f"{number}.png")
    values = {"data.pretext": str(folder / "images"), "cluster.n_clusters": 3, **more}
    return load_config(None, {**tomllib.loads(TINY), **values})


def test_features_come_from_the_best_weights_on_request(tmp_path):
    more = {"pretext.feature_measures": 2, "features.batch_size": 12}
    last = options(tmp_path, classes=True, **more)
    run = tmp_path / "run"
    ktfast.run(last, run, stages=["prepare", "pretext", "features"])
    record = json.loads((run / "pretext" / RECORD).read_text())
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    judged = {row["step"]: row["neighbours"] for row in rows if "neighbours" in row}
    assert record["value"] == max(value for step, value in judged.items() if step)
    assert record["value"] == judged[record["step"]]
    held = load_file(run / "pretext/weights.safetensors")
    assert set(load_file(run / "pretext" / BEST)) == set(held)
    fingerprint = json.loads((run / "features/pretext/result.json").read_text())["fingerprint"]
    best = last.model_copy(
        update={"features": last.features.model_copy(update={"checkpoint": "best"})}
    )
    with pytest.raises(ConfigError, match="checkpoint"):
        ktfast.run(best, run, stages=["features"])
    ktfast.run(best, run, stages=["features"], redo=["features"])
    again = json.loads((run / "features/pretext/result.json").read_text())["fingerprint"]
    (run / "pretext" / BEST).write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"checkpoint-best\.safetensors is missing or damaged"):
        ktfast.run(best, run, stages=["features"], redo=["features"])
    assert (again == fingerprint) == (record["step"] == max(judged))


@pytest.mark.parametrize(
    ("classes", "measures", "message"),
    [(False, 4, "needs more than 10 images in two classes"), (True, 0, "feature_measures is 0")],
)
def test_the_best_weights_need_measures(classes, measures, message, tmp_path):
    more = {"features.checkpoint": "best", "pretext.feature_measures": measures}
    with pytest.raises(ConfigError, match=message):
        ktfast.run(options(tmp_path, classes, **more), tmp_path / "run", stages=["prepare"])
    assert not (tmp_path / "run/prepare").exists()


def test_checkpoint_is_refused_where_it_has_no_effect():
    with pytest.raises(ConfigError, match=r"features\.weights does not use checkpoint"):
        load_config(None, {"features.weights": "w.safetensors", "features.checkpoint": "best"})
    with pytest.raises(ConfigError, match="source hog does not use checkpoint"):
        load_config(None, {"features.source": "hog", "features.checkpoint": "best"})
