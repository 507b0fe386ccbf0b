"""Features from elsewhere through the command line: every row meets its image, by path."""

import json

import numpy as np
import pytest
from PIL import Image

from ktfast.cli.main import main
from support.tiny_recipe import TINY

CLASSES = ("cat", "cat big", "cat-x")


@pytest.fixture
def command(tmp_path):
    """`ktfast cluster` on a folder whose classes other programs list in another order."""
    for number, name in enumerate(CLASSES):
        (tmp_path / "images" / name).mkdir(parents=True)
        for k in range(6):
            picture = Image.new("RGB", (90, 90), (80 * number, 10 * k, 0))
            picture.save(tmp_path / "images" / name / f"{k}.png")
    (tmp_path / "tiny.toml").write_text(TINY.replace("n_clusters = 10", "n_clusters = 3"))
    return [
        *("cluster", "--run", str(tmp_path / "run"), "--config", str(tmp_path / "tiny.toml")),
        *("--data.pretext", str(tmp_path / "images")),
    ]


def embed(order):
    """Features by which the classes are clusters, in an order of (class, number)."""
    rng = np.random.default_rng(0)
    centers = np.eye(3, dtype=np.float32)
    return np.array([centers[CLASSES.index(name)] + rng.normal(0, 0.01, 3) for name, _ in order])


def test_the_order_of_image_folder_costs_no_agreement(command, tmp_path, capsys):
    order = [(name, k) for name in CLASSES for k in range(6)]  # as torchvision lists it
    np.save(tmp_path / "x.npy", embed(order))
    assert main([*command, "--features", str(tmp_path / "x.npy")]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "row 0 is cat big/0.png" in message
    assert "cat/0.png in the order of torchvision's ImageFolder" in message
    assert not (tmp_path / "run/cluster").exists()
    (tmp_path / "x.txt").write_text("".join(f"{name}/{k}.png\n" for name, k in order))
    assert main([*command, "--features", str(tmp_path / "x.npy")]) == 0
    summary = json.loads((tmp_path / "run/cluster/result.json").read_text())["summary"]
    assert summary["nmi"] == pytest.approx(1)


def test_the_order_of_the_file_changes_nothing(command, tmp_path, rng):
    order = [(name, k) for name in CLASSES for k in range(6)]
    features, paths = embed(order), np.array([f"{name}/{k}.png" for name, k in order])
    stored = []
    for rows in (np.arange(18), rng.permutation(18)):
        np.savez(tmp_path / "x.npz", features=features[rows], paths=paths[rows])
        options = ["--features", str(tmp_path / "x.npz"), "--redo", "cluster"]
        assert main([*command, *options]) == 0
        files = ("labels.npz", "centers.npy")
        stored.append([(tmp_path / "run/cluster" / name).read_bytes() for name in files])
    assert stored[0] == stored[1]
