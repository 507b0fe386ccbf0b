"""A run whose target is a network of torchvision: every stage from the transfer on."""

import json

import numpy as np
import pytest
import safetensors.torch
import tomllib
import torch
from PIL import Image
from torchvision import models

import ktfast
from ktfast.config import load_config
from ktfast.errors import ConfigError
from ktfast.images.augment import center_crop, normalize_images
from ktfast.images.resize import square
from ktfast.models import Student
from ktfast.pipeline.export_model import export_model
from ktfast.pipeline.feasibility import check_feasible
from ktfast.pipeline.image_model import ImageModel
from ktfast.pipeline.run_folder import RunFolder
from support.photographs import squares
from support.voc_folder import CLASSES, voc_folder

NAME = "shufflenet_v2_x0_5"
STAGES = ("prepare", "features", "cluster", "transfer", "evaluate", "voc")
RECIPE = f"""
seed = 3
device = "cpu"
threads = 1
[data]
short_side = 64
[pretext]
crop = 48
tile_size = 12
jitter = 0
[features]
source = "hog"
crop = 48
[cluster]
n_clusters = 4

[transfer]
target = "torchvision:{NAME}"
image_size = 56
crop = 48
area = [0.3, 1.0]
color_jitter = 0.4
[transfer.training]
epochs = 1
batch_size = 16
optimizer = "adamw"
learning_rate = 0.001
log_every = 2
[evaluate]
baselines = ["random", "labels"]
probe_epochs = 2
neighbors = 3
retrain = ["stage2"]
retrain_epochs = 0.5
unlabelled = true
[voc]
classes = ["{CLASSES[0]}", "{CLASSES[1]}"]
models = ["transfer"]
[voc.classification]
train = "few"
test = "other"
test_crops = 1
training = {{ epochs = 0.5, batch_size = 4, clip_norm = 10.0 }}
"""


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Options of a run, with photographs of two classes."""
    folder = tmp_path_factory.mktemp("students")
    for number, picture in enumerate(squares(32, 64)):
        place = folder / ("photographs" if number < 24 else "tested") / f"class{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(place / f"{number}.jpg", quality=90)
    voc_folder(folder / "voc")
    photographs = str(folder / "photographs")
    return folder, {
        **tomllib.loads(RECIPE),
        "data.pretext": photographs,
        "data.test": str(folder / "tested"),
        "voc.classification.folder": str(folder / "voc"),
    }


@pytest.fixture(scope="module")
def run(given):
    folder, values = given
    ktfast.run(load_config(None, values), folder / "run", stages=STAGES)
    return folder / "run"


def summary_of(run, stage):
    return json.loads((run / stage / "result.json").read_text())["summary"]


def test_the_stages_of_the_network_are_probed(run):
    found = summary_of(run, "evaluate")
    assert found["models"] == ["transfer", "random", "labels"]
    for name in found["models"]:
        assert list(found["linear"][name]) == ["conv1", "stage2", "stage3", "conv5"]
        assert list(found["retrained"][name]) == ["stage2"]
    assert summary_of(run, "unlabelled")["layer"] == "conv5"
    assert (run / "report.html").is_file()


def test_voc_classification_fine_tunes_the_network(run):
    row = json.loads((run / "voc/classification/transfer.json").read_text())
    assert 0 <= row["score"] <= 1
    assert row["steps"] == 1


def test_the_weights_are_torchvisions(run, tmp_path):
    trained = safetensors.torch.load_file(run / "transfer/weights.safetensors")
    models.get_model(NAME, num_classes=4).load_state_dict(trained, strict=True)
    out = tmp_path / "student.safetensors"
    export_model(ktfast.load(run), out)
    written = safetensors.torch.load_file(out)
    models.get_model(NAME, num_classes=4).load_state_dict(written, strict=True)


def test_vectors_are_those_of_the_network_after_its_own_preprocessing(run, given):
    model = ktfast.load(run)
    assert (model.layer, model.crop, model.image_size) == ("conv5", 48, 56)
    files = sorted((given[0] / "photographs").glob("*/*.jpg"))[:3]
    vectors = model.embed(files)
    pixels = np.stack([square(Image.open(f), short_side=64, size=56) for f in files])
    inputs = normalize_images(center_crop(torch.from_numpy(pixels), 48), "imagenet")
    theirs = models.get_model(NAME, num_classes=4).eval()
    theirs.load_state_dict(safetensors.torch.load_file(run / "transfer/weights.safetensors"))
    theirs.fc = torch.nn.Identity()  # the input of the classifier is the mean of the last map
    with torch.inference_mode():
        torch.testing.assert_close(torch.from_numpy(vectors), theirs(inputs))
    assert ktfast.load(run, layer="stage3").embed(files).shape == (3, 96)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_an_exported_program_computes_the_same_vectors(tmp_path):
    student = Student("torchvision:squeezenet1_1", 0, image_size=64)
    model = ImageModel(student, image_size=64, crop=64, short_side=64, normalization="imagenet")
    assert export_model(model, tmp_path / "student.pt2") < 1e-5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transfer.target": "torchvision:nonesuch"}, "transfer.target: torchvision has no"),
        ({"transfer.target": "torchvision:vit_b_16"}, "transfer.crop: .* not take images of 50 px"),
        ({"evaluate.layers": ("layer9",)}, "'layer9' is unknown; the target has conv1, maxpool"),
        ({"evaluate.headline": "knn:layer9"}, "give one of conv1, stage2, stage3, conv5"),
        ({"evaluate.baselines": ("pretext",)}, "leave 'pretext' out"),
        (
            {
                **{"transfer.target": "torchvision:squeezenet1_1", "voc.detection.folder": "voc"},
                "evaluate.retrain": (),
            },
            "voc.detection needs a network that takes whole photographs of any size",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_computed(
    given, tmp_path, changes, message
):
    config = load_config(None, {**given[1], "transfer.crop": 50, **changes})
    with pytest.raises(ConfigError, match=message):
        check_feasible(RunFolder(tmp_path / "new", config), STAGES, prepared=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transfer.target": "resnet18"}, "transfer.target: expected alexnet, vgg16, torchvision:"),
        ({"transfer.target": "torchvision:"}, "expected alexnet, vgg16, torchvision:NAME"),
        ({"transfer.target": "timm:resnet18", "transfer.width": 0.5}, "does not use width"),
        ({"transfer.area": "0.5,0.2"}, "transfer.area: expected two shares"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        load_config(None, options)
    assert load_config(None, {"transfer.area": "0.2,1"}).transfer.area == (0.2, 1.0)
    assert load_config(None, {"transfer.area": ""}).transfer.area is None
