"""Runs whose teacher is several teachers, or a deep layer of VGG."""

import json
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ktfast.cli.main import main
from ktfast.config import load_config
from ktfast.errors import ConfigError
from ktfast.models import VGG16, save_weights
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.steps.model_facts import teacher_crops
from ktfast.pipeline.steps.questions import features_question
from ktfast.pipeline.steps.teacher import build_teachers, check_source
from ktfast.pipeline.steps.trunk_layers import teacher_normalization, teacher_trunk
from support.pictures import photo_folder
from support.tiny_recipe import TINY

CODE = """
def colors(images):
    return images.float().mean((1, 2))
def corner(images):
    return images[:, :8, :8].float().flatten(1)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with photographs, a recipe, and a module with two functions."""
    (tmp_path / "own_teachers.py").write_text(CODE)
    photo_folder(tmp_path / "photos", 12, height=100, width=120)
    recipe = TINY.replace("[data]", f'[data]\npretext = "{tmp_path / "photos"}"')
    (tmp_path / "tiny.toml").write_text(recipe)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("own_teachers", None)


def test_a_run_with_two_teachers(place, capsys):
    source = ["--features.source", "own_teachers:colors + own_teachers:corner"]
    command = ["--run", "run", "--config", "tiny.toml", "--features.part_pca", "6"]
    assert main(["features", *command]) == 2
    assert "does not use part_pca" in capsys.readouterr().err
    assert main(["features", *command, *source, "--features.dtype", "float32"]) == 0
    folder = place / "run/features/pretext"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["dim"] == 3 + 6
    assert [one["teacher"] for one in manifest["meta"]["teachers"]] == source[1].split(" + ")
    rows = np.load(folder / "features-00000.npy")
    assert np.square(rows[:, :3]).sum(1) == pytest.approx(0.5)
    assert np.square(rows[:, 3:]).sum(1) == pytest.approx(0.5)
    asked = ["--run", "run", "--cluster.n_clusters", "3", "--trust-source"]
    assert main(["cluster", *asked]) == 0
    assert main(["assign", "run", "photos", "-o", "new.csv", "--trust-source"]) == 0
    new = [line.split(",")[1] for line in (place / "new.csv").read_text().splitlines()[1:]]
    with np.load(place / "run/cluster/labels.npz") as labels:
        assert new == [str(label) for label in labels["labels"]]
    (folder / "teacher-1.npz").write_bytes(b"damaged")  # PCA and features are made again
    assert main(["features", "--run", "run", "--trust-source"]) == 0
    assert np.array_equal(np.load(folder / "features-00000.npy"), rows)


def test_each_teacher_sees_its_own_crop(place):
    torch.manual_seed(0)
    given = {
        "features.source": "own_teachers:colors + torchvision:vit_b_32",
        "data.short_side": 240,
    }
    config = load_config(place / "tiny.toml", given)
    assert teacher_crops(config) == [90, 224]
    run = RunFolder(place / "run", config, trust_source=True)
    one, two = (Taken(), Taken())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ktfast.pipeline.steps.teacher.callable_teacher", lambda name: one)
        patch.setattr("ktfast.pipeline.steps.teacher.torchvision_teacher", lambda *a, **b: two)
        for teacher in build_teachers(run):
            teacher(torch.zeros(1, 224, 224, 3, dtype=torch.uint8))
    assert (one.sides, two.sides) == ([90], [224])
    with pytest.raises(ConfigError, match=r"vit_b_32' takes images of 224 px only.*is 90 px"):
        teacher_crops(load_config(place / "tiny.toml", {**given, "data.short_side": 90}))


class Taken:
    """A teacher that notes the side of the images that it is given."""

    def __init__(self):
        self.sides = []

    def __call__(self, images):
        self.sides.append(images.shape[1])
        return images.float().mean((1, 2))


def test_a_deep_layer_of_vgg_from_a_complete_file(tmp_path):
    options = {"pretext.trunk": "vgg16", "pretext.width": 0.125, "device": "cpu"}
    network = VGG16(5, width=0.125, image_size=64).eval()
    save_weights(network, tmp_path / "vgg.safetensors")
    with pytest.raises(ConfigError, match=r"'conv5_3' is unknown.*conv4_3, at which the pretext"):
        teacher_trunk(load_config(None, {**options, "features.layer": "conv5_3"}))
    options |= {"features.weights": tmp_path / "vgg.safetensors", "features.layer": "conv5_3"}
    config = load_config(None, {**options, "features.pool": 2, "features.precision": "float32"})
    assert teacher_normalization(config) == "imagenet"
    teacher = build_teachers(RunFolder(tmp_path / "run", config))[0]
    images = torch.randint(0, 256, (2, 64, 64, 3)).byte()
    pixels = images.permute(0, 3, 1, 2) / 255 - torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    pixels /= torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    with torch.no_grad():
        maps = network.features(pixels, "conv5_3")
    expected = torch.nn.functional.adaptive_max_pool2d(maps, 2).flatten(1)
    assert torch.allclose(teacher(images), expected, atol=1e-4)
    with pytest.raises(ConfigError, match=r"'conv9' is unknown; the trunk has the layers .*pool5$"):
        teacher_trunk(load_config(None, {**options, "features.layer": "conv9"}))


def test_the_normalisation_of_a_file_is_asked_for(tmp_path):
    trunk = {"features.0.weight": torch.zeros(1)}
    kinds = {
        "trunk": (trunk, {}, "image"),
        "puzzle": ({"trunk.features.0.weight": trunk["features.0.weight"],
                    "classifier.0.weight": torch.zeros(1)}, {}, "image"),
        "classifier": ({**trunk, "classifier.6.weight": torch.zeros(1)}, {}, "imagenet"),
        "student": (trunk, {"ktfast": '{"preprocessing": {"normalization": "imagenet"}}'},
                    "imagenet"),
    }  # fmt: skip
    for name, (state, header, expected) in kinds.items():
        save_file(state, tmp_path / name, header)
        torch.save(state, tmp_path / "torch.pt")
        given = {"data.pretext": tmp_path, "features.weights": tmp_path / name}
        config = load_config(None, given)
        assert teacher_normalization(config) == expected, name
        run = RunFolder(tmp_path / "run", config)
        assert features_question(run, "cluster").settings["normalization"] == expected
    given = {"features.weights": tmp_path / "student", "features.normalization": "image"}
    assert teacher_normalization(load_config(None, given)) == "image"
    given = {"features.weights": tmp_path / "torch.pt"}
    torch.save(kinds["classifier"][0], tmp_path / "torch.pt")
    assert teacher_normalization(load_config(None, given)) == "imagenet"


def test_an_unknown_teacher_among_several_is_named():
    with pytest.raises(ConfigError, match=r"'sift' of features.source 'hog \+ sift' is unknown"):
        check_source(load_config(None, {"features.source": "hog + sift"}))
