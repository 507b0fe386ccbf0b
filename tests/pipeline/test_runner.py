"""The Python entry `ktfast.run`: what it accepts, and what it refuses before it does anything."""

import json

import pytest
import torch
from PIL import Image

import ktfast
from ktfast.config import load_config
from ktfast.config.run import tomllib
from ktfast.errors import ConfigError, InputError
from support.photographs import squares
from support.tiny_recipe import TINY


def as_path(folder):
    path = folder / "options.toml"
    path.write_text(TINY.replace("[data]", f'[data]\npretext = "{folder / "images"}"'))
    return path


def as_mapping(folder):
    return {"data.pretext": str(folder / "images"), **tomllib.loads(TINY)}


def as_config(folder):
    return load_config(as_path(folder))


@pytest.mark.parametrize("options", [as_path, as_mapping, as_config], ids=lambda f: f.__name__)
def test_options_may_be_a_path_a_mapping_or_a_config(options, tmp_path):
    (tmp_path / "images").mkdir()
    for number, square in enumerate(squares(12, 96)):
        Image.fromarray(square).save(tmp_path / "images" / f"{number}.png")
    threads = torch.get_num_threads()
    run = tmp_path / "run"
    assert ktfast.run(options(tmp_path), run, stages=["prepare"]) is None
    assert torch.get_num_threads() == threads
    assert load_config(run / "config.toml") == as_config(tmp_path)
    result = json.loads((run / "prepare/pretext/result.json").read_text())
    assert result["summary"]["images"] == 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stages": ["clusters"]}, "stages: expected names from prepare, .* got 'clusters'"),
        ({"stages": []}, "got no stage"),
        ({"stages": "cluster"}, r"stages must be a list of names such as \['cluster'\]"),
        ({"redo": "cluster"}, r"redo must be a list of names such as \['cluster'\]"),
        ({"stages": ["cluster"], "redo": ["pretext"]}, "redo: expected .* cluster, .*'pretext'"),
        ({}, "there is no run folder .* give the folder of an earlier run"),
    ],
)
def test_bad_arguments_are_refused(arguments, message, tmp_path):
    with pytest.raises(InputError, match=message):
        ktfast.run({}, tmp_path / "run", **arguments)
    assert not (tmp_path / "run").exists()


def test_bad_options_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"did you mean cluster\.n_clusters"):
        ktfast.run({"cluster": {"n_cluster": 3}}, tmp_path / "run")
    with pytest.raises(TypeError, match="config must be a Config, a mapping or the path"):
        ktfast.run(3, tmp_path / "run")
