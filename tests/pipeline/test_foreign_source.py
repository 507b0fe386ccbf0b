"""A function that a configuration file names runs only if the user trusts the file."""

import importlib
import linecache
import logging
import os
import shutil
import sys
import types

import pytest

import ktfast
from ktfast.cli.main import main
from ktfast.config import load_config
from ktfast.errors import ConfigError
from ktfast.features.source_code import source_code
from ktfast.features.store import FeatureStore
from support.pictures import photo_folder
from support.tiny_recipe import TINY

PAYLOAD = """
from pathlib import Path
Path("ran").write_text("the payload ran")
def f(images):
    return images[:, ::30, ::30].float().flatten(1).requires_grad_()
def broken(images):
    return images
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with payload.py and a run folder from elsewhere that names it."""
    (tmp_path / "payload.py").write_text(PAYLOAD)
    photo_folder(tmp_path / "photos", 12, height=100, width=120)
    (tmp_path / "tiny.toml").write_text(
        TINY.replace("[features]", '[features]\nsource = "payload:f"').replace(
            "[data]", f'[data]\npretext = "{tmp_path / "photos"}"'
        )
    )
    (tmp_path / "run").mkdir()
    shutil.copy(tmp_path / "tiny.toml", tmp_path / "run/config.toml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("payload", None)


@pytest.mark.parametrize("command", ["run", "features"])
def test_code_that_a_file_names_does_not_run(place, command, capsys):
    assert main([command, "--run", "run"]) == 2
    error = capsys.readouterr().err
    assert f"would run code of {place / 'payload.py'}; add --trust-source" in error
    assert not (place / "ran").exists()
    assert not (place / "run/prepare/pretext/result.json").exists()
    assert main([command, "--run", "other", "--config", "tiny.toml"]) == 2
    with pytest.raises(ConfigError, match="trust_source=True"):
        ktfast.run("run/config.toml", "run", stages=["features"])
    assert not (place / "ran").exists()


def test_a_sweep_runs_no_code_that_a_file_names(place, capsys):
    """The command line names values of one option; the file alone names the class of another."""
    recipe = (place / "tiny.toml").read_text()
    recipe = recipe.replace('source = "payload:f"', "").replace(
        "[pretext]", '[pretext]\ntask = "payload:f"'
    )
    (place / "tiny.toml").write_text(recipe)
    command = ["sweep", "--vary", "features.source=pretext,hog", "--out", "sweep"]
    command += ["--data.test", "photos"]
    assert main([*command, "--config", "tiny.toml"]) == 2
    assert "would run code of" in capsys.readouterr().err
    assert not (place / "ran").exists()


@pytest.mark.parametrize("trust", [["--trust-source"], ["--features.source", "payload:f"]])
def test_trusted_code_runs_and_is_named_once(place, trust, caplog):
    with caplog.at_level(logging.INFO):
        assert main(["features", "--run", "run", *trust]) == 0
    assert (place / "ran").exists()
    said = [r.message for r in caplog.records if "runs code of the file" in r.message]
    assert said == [f"features.source payload:f runs code of the file {place / 'payload.py'}"]
    # Finished features need the code no more.
    assert main(["cluster", "--run", "run", "--cluster.n_clusters", "3"]) == 0
    assert main(["assign", "run", "photos", "-o", "new.csv"]) == 2
    assert main(["assign", "run", "photos", "-o", "new.csv", "--trust-source"]) == 0


def test_options_from_python_are_trusted(place):
    config = load_config("tiny.toml")
    assert ktfast.run(config, "run", stages=["features"]) is None
    os.remove("ran")
    sys.modules.pop("payload")
    assert ktfast.run("tiny.toml", "more", stages=["features"], trust_source=True) is None
    assert (place / "ran").exists()


def test_a_teacher_is_tried_before_the_long_stages(place, capsys):
    arguments = ["--cluster.n_clusters", "3", "--features.source", "payload:broken"]
    assert main(["run", "--run", "run", *arguments]) == 2
    error = capsys.readouterr().err
    assert "'payload:broken' returned shape (12, 90, 90, 3), torch.uint8, for 12 images" in error
    assert (place / "run/prepare/pretext/result.json").exists()
    assert not (place / "run/features").exists()


def test_a_model_that_takes_one_size_is_given_it_or_says_so(place, capsys):
    (place / "vit.pth").touch()  # the size is refused before the weights are read
    source = ["--features.source", "torchvision:vit_b_32", "--features.weights", "vit.pth"]
    assert main(["features", "--run", "run", *source]) == 2
    assert "takes images of 224 px only, but data.short_side is 90 px" in capsys.readouterr().err


def test_code_that_changed_after_its_import_does_not_run_as_the_new_code(place):
    config = load_config("tiny.toml")
    ktfast.run(config, "own", stages=["prepare"])
    ktfast.run(config, "own", stages=["features"])
    # Python keeps compiled code for a file of the same size and the same second.
    changed = PAYLOAD.replace("::30, ::30", "::20, ::20") + "# edited"
    (place / "payload.py").write_text(changed)
    with pytest.raises(ConfigError, match=r"payload\.py has changed since Python imported it"):
        ktfast.run(config, "own", stages=["features"], redo=["features"])
    importlib.invalidate_caches()
    importlib.reload(sys.modules["payload"])
    ktfast.run(config, "own", stages=["features"], redo=["features"])
    dims = FeatureStore.open("own/features/pretext").dim
    assert dims > 3 * 16


def test_a_function_of_a_notebook_is_known_by_its_text(monkeypatch):
    notebook = types.ModuleType("notebook")
    monkeypatch.setitem(sys.modules, "notebook", notebook)
    found = set()
    for text in ("def f(x):\n    return x\n", "def f(x):\n    return 2 * x\n"):
        name = f"<cell {text}>"
        linecache.cache[name] = len(text), None, text.splitlines(keepends=True), name
        exec(compile(text, name, "exec"), notebook.__dict__)
        found.add(source_code("notebook:f").fingerprint)
    assert len(found) == 2
