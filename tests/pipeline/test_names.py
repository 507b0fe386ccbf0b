"""File names that are not UTF-8: a whole run, its report, its tables and its continuation."""

import csv
import importlib.util
import io
import json
import logging
import os
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from ktfast.cli.main import main
from ktfast.config import Config, load_config
from ktfast.config.data import DataConfig
from ktfast.errors import DataError, ShownFormatter, shown
from ktfast.models.weights import load_weights, save_weights
from ktfast.pipeline.run_folder import to_toml
from ktfast.training.checkpoint import CheckpointFolder
from support.tiny_recipe import TINY

BAD = os.fsdecode(b"caf\xe9")
SHOWN = r"caf\xe9"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder whose name is not UTF-8, with images whose names and classes are not UTF-8."""
    place = tmp_path_factory.mktemp("names") / BAD
    rng = np.random.default_rng(0)
    for role, n in (("train", 10), ("test", 3)):
        for name in ("a", BAD):
            (place / role / name).mkdir(parents=True)
            for k in range(n):
                pixels = rng.integers(0, 256, (90, 90, 3), np.uint8)
                Image.fromarray(pixels).save(place / role / name / f"{k}-{BAD}.png")
    (place / "train" / BAD / f"junk-{BAD}.jpg").write_bytes(b"junk")
    recipe = TINY.replace("n_clusters = 10", "n_clusters = 3").replace("epochs = 2", "epochs = 1")
    (place / f"{BAD}.toml").write_text(recipe)
    return place


def read_table(path):
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.DictReader(file))


def test_a_whole_run_with_such_names(place, monkeypatch):
    # Streams as strict as those of a terminal.
    out, error = (
        io.TextIOWrapper(io.BytesIO(), "utf-8", errors) for errors in ("strict", "backslashreplace")
    )
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", error)
    run = place / "run"
    command = ["run", "--run", str(run), "--config", str(place / f"{BAD}.toml")]
    command += ["--data.pretext", str(place / "train"), "--data.test", str(place / "test")]
    command += ["--evaluate.baselines", "random", "--evaluate.layers", "conv1", "--cluster.link"]
    assert main(command) == 0
    assert main(["run", "--run", str(run)]) == 0  # reads the configuration of the run
    assert main(["report", str(run)]) == 0
    for stream in (out, error):
        stream.flush()
    assert out.buffer.getvalue().decode().splitlines() == [shown(run / "report.html")] * 3
    log = (run / "log.txt").read_bytes().decode()
    assert log.count("up to date") == 8
    page = (run / "report.html").read_bytes().decode()
    assert f"{SHOWN}/junk-{SHOWN}.jpg" in page
    assert shown(place / "train") in page
    check_tables(run, place)
    check_links(run, place)
    use_the_networks(run, place)
    out.flush()
    assert shown(place / "clusters.csv") in out.buffer.getvalue().decode()


def use_the_networks(run, place):
    options = [str(run), str(place / "train"), "-o"]
    assert main(["assign", *options, str(place / "clusters.csv")]) == 0
    expected, assigned = (
        {row["path"]: row["cluster"] for row in read_table(path)}
        for path in (run / "cluster/assignments.csv", place / "clusters.csv")
    )
    assert assigned == expected
    # The vectors of any format go back into the stage cluster, except those of a CSV table.
    formats = [".npz", ".csv"] + [".parquet"] * bool(importlib.util.find_spec("pyarrow"))
    for suffix in formats:
        assert main(["embed", *options, str(place / f"vectors{suffix}")]) == 0
        command = ["cluster", "--run", str(run), "--redo", "cluster"]
        if suffix != ".csv":
            assert main([*command, "--features", str(place / f"vectors{suffix}")]) == 0
            assert {row["path"] for row in read_table(run / "cluster/assignments.csv")} == {
                *expected
            }
    assert {row["path"] for row in read_table(place / "vectors.csv")} == {*expected}


def check_links(run, place):
    """One link per image, in the folder of its cluster; the report names and links the images."""
    assigned = {row["path"]: row["cluster"] for row in read_table(run / "cluster/assignments.csv")}
    links = [path for path in (run / "by_cluster").glob("*/*") if path.is_symlink()]
    found = {
        os.path.relpath(os.readlink(path), place / "train"): path.parent.name for path in links
    }
    assert len(links) == 20
    assert found == assigned
    page = (run / "report.html").read_text("utf-8")
    assert page.count("all of them") > 0
    assert page.count((place / "train" / BAD).as_uri()) == page.count(f'title="{SHOWN}/') > 0


def check_tables(run, place):
    names = {f"{name}/{k}-{BAD}.png" for name in ("a", BAD) for k in range(10)}
    assignments = read_table(run / "cluster/assignments.csv")
    assert {row["path"] for row in assignments} == names
    assert all((place / "train" / row["path"]).is_file() for row in assignments)
    with np.load(run / "cluster/labels.npz") as file:
        assert [int(row["cluster"]) for row in assignments] == file["labels"].tolist()
    assert all(0 <= float(row["distance"]) <= 2 for row in assignments)
    paths = [row["path"] for row in read_table(run / "features/pretext/paths.csv")]
    assert paths == [row["path"] for row in assignments] == sorted(names)
    (skipped,) = read_table(run / "prepare/pretext/skipped.csv")
    assert skipped["path"] == f"{BAD}/junk-{BAD}.jpg"
    assert skipped["reason"]
    for path in run.rglob("*.json"):
        json.loads(path.read_bytes())
    summary = json.loads((run / "prepare/pretext/result.json").read_bytes())["summary"]
    assert summary["skipped"] == [[f"{SHOWN}/junk-{SHOWN}.jpg", skipped["reason"]]]
    assert summary["folder"] == shown(place / "train")


def test_messages_and_logs_can_be_encoded(place, capsys):
    error = DataError(f"{place / 'x'} is missing")
    assert str(error).encode().endswith(rb"caf\xe9/x is missing")
    record = logging.LogRecord("ktfast", logging.INFO, "", 0, "%s: ü", (str(place),), None)
    assert ShownFormatter("%(message)s").format(record) == f"{shown(place)}: ü"
    assert shown("ü \ud800") == r"ü \ud800"  # no byte of a name, but JSON can hold it
    assert main(["prepare", "--run", str(place / "new"), "--data.pretext", str(place / "no")]) == 2
    assert f"image folder {shown(place / 'no')} does not exist" in capsys.readouterr().err


def test_a_terminal_without_unicode_costs_nothing(place, monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), "ascii", "strict")
    monkeypatch.setattr(sys, "stdout", out)
    (place / "ü").mkdir()
    (place / "ü/config.toml").write_bytes(to_toml(Config()).encode())
    assert main(["report", str(place / "ü")]) == 0
    out.flush()
    assert out.buffer.getvalue().endswith(b"caf\\xe9/\\xfc/report.html\n")


def test_weights_and_checkpoints_in_such_a_folder(place):
    module = torch.nn.Linear(2, 3)
    save_weights(module, place / "w.safetensors")
    other = torch.nn.Linear(2, 3)
    load_weights(other, place / "w.safetensors")
    assert torch.equal(other.weight, module.weight)
    CheckpointFolder(place).save(7, {"w": module.weight}, {"f": 1})
    checkpoint = CheckpointFolder(place).load()
    assert (checkpoint.step, checkpoint.facts) == (7, {"f": 1})
    assert torch.equal(checkpoint.tensors["w"], module.weight)
    with pytest.raises(DataError, match="there is no weight file"):
        load_weights(other, place / "v.safetensors")


def test_paths_in_the_configuration_come_back(place, tmp_path):
    odd = place / "a%b c#?é"
    config = Config(data=DataConfig(pretext=place / "train", test=odd, train=tmp_path / "ü%20"))
    text = to_toml(config)
    text.encode("utf-8")
    (tmp_path / "c.toml").write_text(text, encoding="utf-8")
    assert load_config(tmp_path / "c.toml") == config
    assert '"file:///' in text
    assert f'train = "{tmp_path}/ü%20"' in text  # a path that is UTF-8 is written as it is
