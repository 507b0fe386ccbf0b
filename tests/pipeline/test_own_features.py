"""Features from elsewhere through the command line: every row meets its image, by path."""

import json

import numpy as np
import pytest
from PIL import Image

from ktfast.cli.main import main
from ktfast.features.store import FeatureStore
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


@pytest.fixture
def other_run(command, tmp_path):
    """HOG features that another run has extracted from more photographs than `command` clusters."""
    for folder, numbers in (("more", range(9)), ("images", range(6))):
        for name in CLASSES:
            (tmp_path / folder / name).mkdir(parents=True, exist_ok=True)
            for k in numbers:
                pixels = np.random.default_rng([CLASSES.index(name), k]).integers(
                    0, 256, (90, 90, 3)
                )
                Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / folder / name / f"{k}.png")
    options = ["--features.source", "hog", "--config", str(tmp_path / "tiny.toml")]
    options += ["--run", str(tmp_path / "other"), "--data.pretext", str(tmp_path / "more")]
    assert main(["prepare", *options]) == 0
    assert main(["features", *options]) == 0
    return tmp_path / "other/features/pretext"


@pytest.mark.parametrize("option", ["none", "l2", "pca-l2"])
def test_a_feature_folder_of_more_images_gives_the_clusters_of_the_runs_images(
    option, command, other_run, tmp_path
):
    store = FeatureStore.open(other_run)
    paths = (other_run / "paths.csv").read_text().splitlines()[1:]
    np.savez(tmp_path / "x.npz", features=store.read(slice(None)), paths=paths)
    command += ["--cluster.normalize", option, "--redo", "cluster", "--cluster.pca", "4"]
    stored = []
    for features in (tmp_path / "x.npz", other_run):
        assert main([*command, "--features", str(features)]) == 0
        files = ("labels.npz", "centers.npy", "transform.npz")
        stored.append([(tmp_path / "run/cluster" / name).read_bytes() for name in files])
    assert stored[0] == stored[1]


def test_a_normalised_feature_folder_of_more_images_is_cut_to_the_runs_images(
    command, other_run, tmp_path
):
    options = [*("--run", str(tmp_path / "other")), *("--data.pretext", str(tmp_path / "more"))]
    options += ["--features.normalized", "true", "--cluster.normalize", "l2", "--redo", "features"]
    options += ["--config", str(tmp_path / "other/config.toml")]
    assert main(["features", *options]) == 0
    command += ["--cluster.normalize", "l2", "--cluster.n_clusters", "18"]
    assert main([*command, "--features", str(other_run)]) == 0
    result = json.loads((tmp_path / "run/cluster/result.json").read_text())
    assert result["summary"]["used"] == 18  # each image is a cluster of its own


def test_ktfast_warns_of_features_of_other_files_with_equal_paths(
    command, other_run, tmp_path, caplog
):
    def warnings():
        caplog.clear()
        assert main([*command, "--features", str(other_run), "--redo", "cluster"]) == 0
        return [r.getMessage() for r in caplog.records if "another file" in r.getMessage()]

    assert not warnings()
    Image.new("RGB", (90, 90)).save(tmp_path / "images/cat/0.png")
    command[command.index("--run") + 1] = str(tmp_path / "second")
    (message,) = warnings()
    assert f"from the images in {tmp_path / 'more'}, whose cat/0.png is another file" in message
    assert "(1 of 18 photographs differ)" in message
    # The features were not made from the images that the other run prepares now.
    Image.new("RGB", (90, 90)).save(tmp_path / "more/cat/0.png")
    options = ["--run", str(tmp_path / "other"), "--redo", "prepare"]
    assert main(["prepare", *options]) == 0
    command[command.index("--run") + 1] = str(tmp_path / "third")
    assert not warnings()


def test_a_pca_of_more_dimensions_than_images_is_refused_before_the_features(
    command, tmp_path, capsys
):
    options = ["--cluster.normalize", "pca-l2", "--cluster.pca", "19", "--features.source", "hog"]
    assert main(["prepare", *command[1:]]) == 0
    assert main(["features", *command[1:], *options, "--features.normalized"]) == 2
    assert "cluster.pca 19 is more than the 18 images of" in capsys.readouterr().err
