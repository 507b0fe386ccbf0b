"""Features from elsewhere through the command line: every row meets its image, by path."""

import json

import numpy as np
import pytest
from PIL import Image

from ktfast.cli.main import main
from ktfast.images.source import PreparedSet
from ktfast.kmeans.progress import Progress
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


@pytest.mark.parametrize("is_damaged", [False, True])
def test_an_interrupted_clustering_goes_on_in_mid_fit(
    is_damaged, command, tmp_path, monkeypatch, caplog
):
    order = sorted(f"{name}/{k}.png" for name in CLASSES for k in range(6))
    features = np.random.default_rng(1).normal(size=(18, 3))
    np.savez(tmp_path / "x.npz", features=features, paths=order)
    command += ["--features", str(tmp_path / "x.npz"), "--cluster.tol", "0"]
    command += ["--cluster.init", "random", "--cluster.n_init", "5"]
    observe, seen = Progress.observe, []

    def stopping(self, result):
        observe(self, result)
        seen.append(result.inertia)
        if len(seen) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "observe", stopping)
    folder = tmp_path / "run/cluster"
    assert main(command) == 130
    checkpoint = folder / "checkpoint-kmeans.npz"
    assert checkpoint.is_file()
    if is_damaged:
        checkpoint.write_bytes(checkpoint.read_bytes()[:-30])
    assert main(command) == 0
    assert ("K-means starts anew" in caplog.text) == is_damaged
    assert not checkpoint.exists()
    files, resumed = ("labels.npz", "centers.npy"), seen.copy()
    artifacts = [(folder / name).read_bytes() for name in files]
    seen[:] = [0.0] * 3  # stops no more
    assert main([*command, "--redo", "cluster"]) == 0
    assert [(folder / name).read_bytes() for name in files] == artifacts
    # The first two iterations were not done again, unless the checkpoint was damaged.
    assert resumed[3:] == seen[3:] if is_damaged else resumed[3:] == seen[5:]


def test_features_may_be_made_from_prepared_images(command, tmp_path):
    file = tmp_path / "x.npz"
    options = [*command[3:], "--cluster.features", str(file)]
    assert main(["run", "--run", str(tmp_path / "run"), *options]) == 2
    assert not (tmp_path / "run/prepare").exists()  # the refusal came before any work
    assert main(["prepare", "--run", str(tmp_path / "run"), *options]) == 0
    images = PreparedSet.open(tmp_path / "run/prepare/pretext")
    np.savez(
        file, features=embed([(path.split("/")[0], 0) for path in images.paths]), paths=images.paths
    )
    assert main(["cluster", "--run", str(tmp_path / "run"), *options]) == 0
