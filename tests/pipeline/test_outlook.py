"""What a run says before its first training: the time of all trainings, and networks too large."""

import logging
import re

import pytest
import torch

from ktfast.cli.main import main
from ktfast.config import load_config
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.steps import outlook
from ktfast.pipeline.steps.outlook import log_outlook, warn_of_the_papers_size
from support.pictures import photo_folder
from support.small_pipeline import RECIPE

STAGES = ("pretext", "features", "cluster", "transfer", "evaluate")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A run with prepared images."""
    place = tmp_path_factory.mktemp("outlook")
    (place / "small.toml").write_text(RECIPE)
    images = str(photo_folder(place / "images", 24, height=96, width=110))
    options = {"data.pretext": images, "data.test": images, "pretext.puzzles_per_image": "3"}
    flags = [f"--{name}={value}" for name, value in options.items()]
    assert main(["prepare", "--run", f"{place}/run", f"--config={place}/small.toml", *flags]) == 0
    return RunFolder(place / "run", load_config(place / "small.toml", options))


def messages(caplog):
    return [record.getMessage() for record in caplog.records if "outlook" in record.name]


def test_the_time_of_every_training_is_told(prepared, caplog, monkeypatch):
    monkeypatch.setattr(outlook, "FEW_PASSES", 0)
    random = torch.get_rng_state()
    with caplog.at_level(logging.INFO):
        log_outlook(prepared, STAGES)
    (message,) = messages(caplog)
    clock = r"[0-9:]+"
    assert re.fullmatch(
        f"the trainings of this run are expected to take about {clock} on this CPU, by trials: "
        f"pretext {clock}, transfer {clock}, baseline_pretext {clock}, baseline_labels {clock}",
        message,
    )
    assert torch.equal(torch.get_rng_state(), random)


def test_only_open_trainings_count(prepared, caplog, monkeypatch):
    monkeypatch.setattr(outlook, "FEW_PASSES", 0)
    monkeypatch.setattr(outlook, "_seconds", lambda plan: float(plan.images))
    finished = prepared.stage("pretext")
    finished.mkdir()
    (finished / "result.json").touch()
    with caplog.at_level(logging.INFO):
        log_outlook(prepared, STAGES)
        log_outlook(prepared, STAGES, redo=["pretext"])
        log_outlook(prepared, ["transfer"])  # the training itself forecasts its time
    once, again = messages(caplog)
    assert once.endswith(
        "about 0:01:12 on this CPU, by trials: transfer 0:00:24, baseline_pretext 0:00:24, "
        "baseline_labels 0:00:24"
    )
    assert "pretext 0:00:24, transfer" in again


def test_a_short_run_is_not_delayed_by_trials(prepared, caplog):
    with caplog.at_level(logging.INFO):
        log_outlook(prepared, STAGES)
    assert not messages(caplog)


@pytest.mark.parametrize(
    ("options", "stages", "named"),
    [
        ({}, STAGES, "(pretext.width is 1 and transfer.width is 1)"),
        ({}, ("transfer",), "(transfer.width is 1)"),
        ({"pretext.width": 0.25}, STAGES, "(transfer.width is 1)"),
        ({"features.source": "hog"}, STAGES, "(transfer.width is 1)"),
        ({"pretext.width": 0.25, "transfer.width": 0.25}, STAGES, None),
        ({}, ("prepare", "cluster"), None),
    ],
)
def test_networks_of_the_papers_size_on_a_cpu_name_the_small_recipe(caplog, options, stages, named):
    with caplog.at_level(logging.WARNING):
        warn_of_the_papers_size(load_config(None, {"device": "cpu", **options}), stages)
    if named is None:
        assert not messages(caplog)
    else:
        (message,) = messages(caplog)
        assert named in message
        assert "--config tiny_cpu" in message
