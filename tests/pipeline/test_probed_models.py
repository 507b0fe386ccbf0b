"""Probes of any weights, on several labelled sets, with few labels; what is there stays."""

import contextlib
import json
import logging
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import ktfast
from ktfast.errors import ConfigError, DataError, InputError
from ktfast.images.balance import Subset
from ktfast.models import build_target, initialize
from ktfast.pipeline.steps import learn_labels, probe_layers
from ktfast.pipeline.steps.begun_trainings import begun_training
from ktfast.pipeline.steps.networks import save_network
from ktfast.report import write_report
from support.photographs import squares

SEEN = {"short_side": 256, "image_size": 64, "crop": 56, "normalization": "image"}
LAYERS = ("conv1", "conv5")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two labelled sets of photographs, and files of weights of three networks."""
    folder = tmp_path_factory.mktemp("files")
    pictures = iter(squares(56, 72))
    for place, count in (("a/train", 8), ("a/test", 4), ("b/train", 8), ("b/test", 4)):
        for number in range(2 * count):
            name = ("bright", "dark")[number % 2]
            (folder / place / name).mkdir(parents=True, exist_ok=True)
            picture = next(pictures, None)
            if picture is None:
                pictures = iter(squares(56, 72))
                picture = next(pictures)
            picture = picture // (1 if name == "bright" else 3)
            Image.fromarray(picture).save(folder / place / name / f"{number}.png")
    torch.manual_seed(0)
    ours = build_target("alexnet", n_classes=3, width=0.0625, image_size=56)
    initialize(ours)
    save_network(ours, folder / "ours.safetensors", SEEN)
    student = build_target("torchvision:resnet18", n_classes=5, image_size=64)
    torch.save({"state_dict": student.state_dict()}, folder / "resnet.pth")
    return folder


def options(files, **more):
    return {
        "device": "cpu",
        "threads": 1,
        "data.train": str(files / "a/train"),
        "data.test": str(files / "a/test"),
        "evaluate.probe_epochs": 1,
        "evaluate.neighbors": 3,
        "evaluate.layers": LAYERS,
        "evaluate.models": {"ours": str(files / "ours.safetensors")},
        **{name.replace("__", "."): value for name, value in more.items()},
    }


def evaluate(files, folder, **more):
    ktfast.run(options(files, **more), folder, stages=["evaluate"])
    return json.loads((folder / "evaluate/result.json").read_text())["summary"]


@pytest.fixture(scope="module")
def finished(files, tmp_path_factory):
    """A folder without a stage transfer, in which two foreign networks are probed."""
    folder = tmp_path_factory.mktemp("runs") / "alone"
    evaluate(files, folder, evaluate__models=models_of(files))
    return folder


def models_of(files):
    resnet = {"file": str(files / "resnet.pth"), "network": "torchvision:resnet18"}
    return {
        "ours": str(files / "ours.safetensors"),
        "resnet": {**resnet, "crop": 64, "layers": ["layer1"]},
    }


@pytest.fixture
def copy(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def probed(monkeypatch):
    """The (network@set, layers) whose features are computed."""
    calls, real = [], probe_layers._features

    def features(run, images, role, network, model, layers):
        if role == images.train:
            calls.append((images.file_of(network.name), tuple(layers)))
        return real(run, images, role, network, model, layers)

    monkeypatch.setattr(probe_layers, "_features", features)
    return calls


def test_files_of_weights_are_probed_without_a_transfer(finished):
    summary = json.loads((finished / "evaluate/result.json").read_text())["summary"]
    assert summary["models"] == ["ours", "resnet"]
    assert set(summary["linear"]["ours"]) == set(LAYERS)
    assert set(summary["linear"]["resnet"]) == {"layer1"}
    with np.load(finished / "evaluate/predictions-resnet.npz") as arrays:
        assert set(arrays) == {"labels", "linear_layer1", "knn_layer1"}
    page = write_report(finished).read_text()
    assert "2 networks" in page
    assert "resnet" in page


def test_the_features_are_those_of_the_file(finished, files):
    from ktfast.evaluation.pooling import conv_features
    from ktfast.pipeline.image_model import load
    from ktfast.pipeline.run_folder import read_run
    from ktfast.pipeline.steps.image_sets import open_set
    from ktfast.pipeline.steps.labelled_sets import LabelledSet
    from ktfast.pipeline.steps.probed_models import probed_network

    run = read_run(finished)
    network, model = probed_network(run, "ours"), load(files / "ours.safetensors")
    found, _ = probe_layers._features(
        run, LabelledSet(), "test", network, network.load(run), ["conv5"]
    )
    paths = [files / "a/test" / path for path in open_set(run, "test").paths]
    pixels = torch.stack([model.preprocess(path) for path in paths])

    class Feed:
        n = len(paths)

        def epoch(self, epoch, start=0):
            yield type("Batch", (), {"images": pixels, "rows": torch.arange(self.n)})()

    expected = conv_features(model.trunk, Feed(), ["conv5"], prepare=lambda x: x)["conv5"]
    # The prepared images went through JPEG.
    np.testing.assert_allclose(found["conv5"], expected, atol=0.2 * expected.max())


def test_a_second_call_computes_nothing(copy, files, probed):
    evaluate(files, copy, evaluate__models=models_of(files))
    assert probed == []


def test_what_is_added_is_computed_and_what_is_there_stays(copy, files, probed, caplog):
    caplog.set_level(logging.INFO, "ktfast")
    before = json.loads((copy / "evaluate/result.json").read_text())["summary"]
    models = {**models_of(files), "more": {"file": str(files / "ours.safetensors"), "crop": 60}}
    more = {"evaluate__models": models}
    summary = evaluate(files, copy, **more)
    assert probed == [("more", LAYERS)]
    assert "computes what is missing" in caplog.text
    more["evaluate__sets"] = {"b": {"train": str(files / "b/train"), "test": str(files / "b/test")}}
    evaluate(files, copy, **more)
    assert sorted(probed[1:]) == [("more@b", LAYERS), ("ours@b", LAYERS), ("resnet@b", ("layer1",))]
    del probed[:]
    summary = evaluate(files, copy, **more, evaluate__layers=("conv1", "conv3", "conv5"))
    assert ("ours", ("conv3",)) in probed
    assert {layers for _, layers in probed} == {("conv3",)}
    assert list(summary["sets"]["b"]["linear"]["ours"]) == ["conv1", "conv3", "conv5"]
    del probed[:]
    # A layer, a set or a model that is left out and asked for again is there.
    assert evaluate(files, copy, evaluate__models=models_of(files)) == before
    assert evaluate(files, copy, **more, evaluate__layers=("conv3",))["sets"]["b"]["linear"]
    assert probed == []


def test_other_weights_under_a_name_are_probed_again(copy, files, probed, tmp_path):
    other = tmp_path / "other.safetensors"
    network = build_target("alexnet", n_classes=0, width=0.0625, image_size=56)
    initialize(network)
    save_network(network, other, SEEN)
    evaluate(files, copy, evaluate__models={**models_of(files), "ours": str(other)})
    assert probed == [("ours", LAYERS)]


def test_options_that_change_every_probe_are_refused(copy, files):
    with pytest.raises(ConfigError, match=r"evaluate\.neighbors was 3, is now 2"):
        evaluate(files, copy, evaluate__models=models_of(files), evaluate__neighbors=2)


def test_shares_have_draws_with_mean_and_spread(copy, files, probed):
    more = {"evaluate__models": {"ours": str(files / "ours.safetensors")}}
    more["evaluate__label_counts"] = (1, 2)
    one = evaluate(files, copy, **more)["low_label"]
    assert [(row["count"], row["images"]) for row in one] == [(1, 2), (2, 4)]
    assert "draws" not in one[0]
    three = evaluate(files, copy, **more, evaluate__label_draws=3)["low_label"]
    draws = three[0]["draws"]["ours"]["conv5"]
    assert len(draws) == 3
    assert draws[0] == one[0]["linear"]["ours"]["conv5"]  # the first draw stays
    assert three[0]["linear"]["ours"]["conv5"] == pytest.approx(np.mean(draws))
    page = write_report(copy).read_text()
    assert "2 labels per class (4 images, mean of 3 draws)" in page
    assert "±" in page


@pytest.mark.parametrize(
    ("models", "words"),
    [
        ({"x": "absent.pth"}, "evaluate.models.x: absent.pth does not exist"),
        ({"transfer": "a.pth"}, "'transfer' is that of one of the run's own networks"),
        ({"a/b": "a.pth"}, "must consist of letters"),
        ({"x": {"crop": 64}}, "neither file nor network is given"),
        ({"x": "resnet.pth"}, "name the network, such as evaluate.models.x"),
        ({"x": {"file": "resnet.pth", "network": "torchvision:resnet0"}}, "no classification netw"),
        ({"x": {"file": "resnet.pth", "network": "vgg16", "crop": 32}}, "evaluate.models.x: "),
        (
            {"x": {"file": "resnet.pth", "network": "torchvision:resnet18", "crop": 300}},
            "squares of 300 px",
        ),
        ({"x": {"file": "ours.safetensors", "network": "vgg16"}}, "holds weights of alexnet"),
        ({"x": {"file": "ours.safetensors", "layers": ["conv9"]}}, "'conv9' is unknown"),
        ({"x": {"file": "ours.safetensors", "crop": 8}}, "squares of 8 px are too small"),
    ],
)
def test_unusable_files_are_refused_before_anything_is_computed(
    models, words, files, tmp_path, monkeypatch
):
    monkeypatch.chdir(files)
    with pytest.raises(InputError, match=words):
        evaluate(files, tmp_path / "run", evaluate__models=models)
    assert not (tmp_path / "run/prepare").exists() or not (tmp_path / "run/evaluate").exists()


def test_models_need_labelled_images(files, tmp_path):
    asked = options(files)
    del asked["data.train"], asked["data.test"]
    asked["data.pretext"] = str(files / "a/train")
    with pytest.raises(ConfigError, match=r"evaluate\.models are probed on labelled images"):
        ktfast.run(asked, tmp_path / "run", stages=["evaluate"])
    asked["evaluate.sets"] = {
        "b": {"train": str(files / "b/train"), "test": str(files / "b/nowhere")}
    }
    with pytest.raises(DataError, match="nowhere"):
        ktfast.run(asked, tmp_path / "run", stages=["evaluate"])


def test_too_many_labels_per_class_are_refused(files, tmp_path):
    with pytest.raises(ConfigError, match="label_counts 8 takes all images of every class"):
        evaluate(files, tmp_path / "run", evaluate__label_counts=(8,))


def test_variants_of_the_linear_probe_keep_what_is_there(copy, files, probed):
    more = {"evaluate__models": {"ours": str(files / "ours.safetensors")}}
    more["evaluate__protocols"] = ("goyal", "deepcluster")
    all_layers = evaluate(files, copy, **more)["variants"]
    assert set(all_layers) == {"goyal", "deepcluster"}
    assert all_layers["deepcluster"]["protocol"]["crops"] == 10
    assert all_layers["goyal"]["protocol"]["weight_decay"] == 5e-4
    assert set(all_layers["goyal"]["linear"]["ours"]) == set(LAYERS)
    assert probed == []  # the probes on centre crops are there
    rows = sorted((copy / "evaluate").glob("protocol-*.json"))
    assert [row.name for row in rows] == [
        "protocol-deepcluster-ours.json", "protocol-goyal-ours.json"
    ]  # fmt: skip
    rows[0].unlink()
    assert evaluate(files, copy, **more)["variants"] == all_layers
    page = write_report(copy).read_text()
    assert "protocol deepcluster" in page
    assert "best on the test images in the source" in page


def test_a_set_that_is_tested_on_its_training_images_is_refused(files, tmp_path):
    same = {"train": str(files / "b/train"), "test": str(files / "b/train")}
    with pytest.raises(ConfigError, match=r"evaluate\.sets\.b\.train is the folder of evaluate"):
        evaluate(files, tmp_path / "run", evaluate__sets={"b": same})


@pytest.fixture
def short_trainings(monkeypatch):
    """The (name, number of distinct training images) of trainings on labels, which stay short."""
    calls, real = [], learn_labels.train_task

    def train(run, task, feed, training, folder, *, name):
        rows = {int(row) for batch in feed.epoch(0) for row in batch.rows}
        calls.append((name, len(rows)))
        return real(run, task, feed, training, folder, name=name)

    monkeypatch.setattr(learn_labels, "train_task", train)
    return calls


def test_networks_of_files_are_fine_tuned_with_few_labels(copy, files, short_trainings):
    """The images are those of the linear probes, and a draw that is there stays."""
    more = {
        "evaluate__label_counts": (1, 2),
        "evaluate__fine_tune": True,
        "evaluate__fine_tune_epochs": 1,
        "evaluate__fine_tune_rate": 0.001,
        "transfer__training__batch_size": 8,
    }
    one = evaluate(files, copy, **more)["fine_tuned"]
    assert [(row["count"], row["images"]) for row in one] == [(1, 2), (2, 4)]
    assert [images for _, images in short_trainings] == [2, 4]
    assert one[0]["protocol"]["steps"] == 2  # as many as an epoch of all 16 images has
    assert one[0]["protocol"]["learning_rate"] == 0.001
    del short_trainings[:]
    two = evaluate(files, copy, **more, evaluate__label_draws=2)["fine_tuned"]
    assert [name for name, _ in short_trainings] == ["finetune_ours-1-1", "finetune_ours-2-1"]
    draws = two[0]["draws"]["ours"]["whole network"]
    assert draws[0] == one[0]["linear"]["ours"]["whole network"]
    assert not list((copy / "evaluate").glob("finetuning-*"))
    page = write_report(copy).read_text()
    assert "Whole network fine-tuned with 2 labels per class (4 images, mean of 2 draws)" in page
    del short_trainings[:], more["evaluate__label_counts"]
    whole = evaluate(files, copy, **more)["fine_tuned"]
    assert [(row["fraction"], row["images"]) for row in whole] == [(1.0, 16)]
    assert short_trainings == [("finetune_ours-1-0", 16)]


def test_layers_of_networks_of_files_are_trained_anew(copy, files, short_trainings):
    """Each network has the layers that it knows, on every labelled set."""
    more = {
        "evaluate__models": models_of(files),
        "evaluate__retrain": ("fc6", "layer3"),
        "evaluate__retrain_epochs": 0.5,
        "transfer__training__batch_size": 8,
    }
    found = evaluate(files, copy, **more)
    expected = {"ours": ["fc6"], "resnet": ["layer3"]}
    assert {name: list(row) for name, row in found["retrained"].items()} == expected
    more |= {"evaluate__models": {"ours": models_of(files)["ours"]}, "evaluate__retrain": ("fc6",)}
    more["evaluate__sets"] = {"b": {"train": str(files / "b/train"), "test": str(files / "b/test")}}
    found = evaluate(files, copy, **more, evaluate__layers=("conv1",))
    assert list(found["sets"]["b"]["retrained"]["ours"]) == ["fc6"]
    assert [name for name, _ in short_trainings] == [
        "retrain_ours_fc6", "retrain_resnet_layer3", "retrain_ours@b_fc6"
    ]  # fmt: skip
    assert "b: All layers above" in write_report(copy).read_text()


def test_layers_that_no_network_has_are_not_trained_anew(files, tmp_path):
    with pytest.raises(ConfigError, match=r"evaluate\.retrain: 'conv9' is unknown; the networks"):
        evaluate(files, tmp_path / "run", evaluate__retrain=("conv9",))


def test_an_epoch_of_a_subset_shows_its_rows_equally_often():
    subset = Subset([1, 4, 6], 8)
    order = subset.order(seed=3, epoch=2)
    assert len(order) == 8
    assert {1, 4, 6} == set(order[:3]) == set(order[3:6])
    assert not np.array_equal(order, subset.order(seed=3, epoch=3))
    assert Subset([1, 4, 5], 8).sha256 != subset.sha256


def test_a_checkpoint_of_other_weights_is_not_continued(tmp_path):
    """The stage evaluate keeps its folder when the weights that it probes change."""
    folder = tmp_path / "retraining"

    def interrupted(weights):
        found = False
        with contextlib.suppress(KeyboardInterrupt), begun_training(folder, {"weights": weights}):
            found = (folder / "checkpoint").exists()
            (folder / "checkpoint").touch()
            raise KeyboardInterrupt
        return found

    assert [interrupted(weights) for weights in ("a", "a", "b", "b")] == [False, True, False, True]
    with begun_training(folder, {"weights": "b"}):
        pass
    assert not folder.exists()
