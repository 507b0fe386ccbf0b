"""Teachers of torchvision, timm and transformers, with random weights of tiny networks."""

import importlib
import json
import sys
import types

import pytest
import torch
from safetensors.torch import save_file

from ktfast.config.sources import read_source
from ktfast.errors import ConfigError, DataError
from ktfast.features import pretrained, timm_teacher
from ktfast.features.hf_teacher import check_hf, hf_pretrained, hf_teacher
from ktfast.features.timm_teacher import check_timm, timm_pretrained
from ktfast.features.torchvision_teacher import (
    check_torchvision,
    default_weights,
    torchvision_normalization,
    torchvision_teacher,
)
from ktfast.pipeline.steps.model_facts import library_input

IMAGES = torch.randint(0, 256, (2, 32, 32, 3), generator=torch.manual_seed(0)).byte()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of Hugging Face's hub and of torch's hub."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "torch"))
    return tmp_path


def in_hub(cache, repository, commit="c0ffee"):
    """The folder of a model in the hub's cache."""
    folder = cache / "hub" / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs/main").write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True)
    return folder / "snapshots" / commit


# --- torchvision ----------------------------------------------------------------------------------
def test_a_layer_of_torchvision(tmp_path):
    from torchvision.models import resnet18

    torch.manual_seed(0)
    model = resnet18().eval()
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    given = {"layer": "layer1.0", "pool": 2, "pooling": "mean"}
    teacher = torchvision_teacher("resnet18", tmp_path / "w.safetensors", "cpu", **given)
    mean, std = (torch.tensor(x)[:, None, None] for x in torchvision_normalization("resnet18"))
    x = (IMAGES.permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.no_grad():
        x = model.layer1[0](model.maxpool(model.relu(model.bn1(model.conv1(x)))))
    expected = torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)
    assert torch.allclose(teacher(IMAGES), expected, atol=1e-4)


def test_an_unknown_layer_of_torchvision_is_refused_without_weights():
    with pytest.raises(ConfigError, match=r"no layer 'layer9'.*layer1, layer2, layer3, layer4"):
        check_torchvision("resnet18", "layer9")
    with pytest.raises(ConfigError, match="names the classifier"):
        check_torchvision("resnet18", "fc")
    with pytest.raises(ConfigError, match="no model 'resnet19'"):
        check_torchvision("resnet19", "layer1")


def test_the_normalisation_follows_the_model():
    assert torchvision_normalization("efficientnet_v2_l") == ((0.5,) * 3, (0.5,) * 3)
    assert torchvision_normalization("resnet18")[0] == (0.485, 0.456, 0.406)


def test_weights_of_torchvision_that_are_not_here(cache, monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("torchvision.models._api.WeightsEnum.get_state_dict", offline)
    file = cache / "torch/checkpoints" / default_weights("resnet18")
    with pytest.raises(ConfigError, match=rf"resnet18 are not in {file} and .*\(no network\)"):
        torchvision_teacher("resnet18", None, "cpu")
    file.parent.mkdir(parents=True)
    file.write_bytes(b"other weights of the same name")
    with pytest.raises(ConfigError, match="does not hold torchvision's weights of resnet18"):
        torchvision_teacher("resnet18", None, "cpu")


# --- timm -----------------------------------------------------------------------------------------
class Tiny(torch.nn.Module):
    """What timm.create_model gives without a classifier."""

    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 4, 3)
        self.stage = torch.nn.Conv2d(4, 6, 3)

    def forward(self, x):
        return self.stage(self.stem(x).relu()).mean((2, 3))


@pytest.fixture
def timm(monkeypatch):
    """A module with the functions of timm that ktfast calls."""
    description = types.SimpleNamespace(
        hf_hub_id="timm/tiny.in1k", hf_hub_filename=None, url="https://x/tiny-0a.pth",
        architecture="tiny", tag="in1k", input_size=(3, 32, 32), mean=(0.5,) * 3, std=(0.25,) * 3,
        classifier="head",
    )  # fmt: skip

    def get_pretrained_cfg(name, allow_unregistered):
        if name == "tiny.other":
            raise RuntimeError("Invalid pretrained tag (other) for tiny.")
        return description

    fake = types.ModuleType("timm")
    fake.is_model = lambda name: name.partition(".")[0] == "tiny"
    fake.list_models = lambda pattern: ["tiny"]
    fake.get_pretrained_cfg = get_pretrained_cfg
    fake.create_model = lambda name, pretrained, num_classes: Tiny()
    monkeypatch.setitem(sys.modules, "timm", fake)
    return fake


def test_a_model_of_timm_from_the_cache_and_from_a_file(timm, cache):
    torch.manual_seed(0)
    state = {**Tiny().state_dict(), "head.weight": torch.zeros(2, 6)}
    save_file(state, in_hub(cache, "timm/tiny.in1k") / "model.safetensors")
    found = timm_pretrained("tiny")
    assert (found.model, found.size, found.revision) == ("tiny.in1k", 32, "c0ffee")
    rows = timm_teacher.timm_teacher("tiny", None, "cpu")(IMAGES)
    assert rows.shape == (2, 6)
    layer = timm_teacher.timm_teacher("tiny", None, "cpu", layer="stem", pool=1, pooling="mean")
    pixels = (IMAGES.permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    model = Tiny()
    model.load_state_dict({k: v for k, v in state.items() if k != "head.weight"})
    assert torch.allclose(layer(IMAGES), model.stem(pixels).mean((2, 3)), atol=1e-5)
    save_file({**state, "stem.bias": torch.ones(4)}, cache / "mine.safetensors")
    other = timm_teacher.timm_teacher("tiny", cache / "mine.safetensors", "cpu")(IMAGES)
    assert not torch.equal(other, rows)
    save_file({"stem.bias": torch.ones(4)}, cache / "half.safetensors")
    with pytest.raises(ConfigError, match="lacks 3 weights of tiny"):
        timm_teacher.timm_teacher("tiny", cache / "half.safetensors", "cpu")


def test_a_model_of_timm_that_is_not_here(timm, cache):
    message = (
        r"'timm:tiny': the weights of timm/tiny.in1k are not on this machine.*"
        r"hub/models--timm--tiny.in1k.*Run hf download timm/tiny.in1k.*features.weights"
    )
    with pytest.raises(ConfigError, match=message):
        check_timm("tiny", "", None)
    check_timm("tiny", "stage", cache / "any file")
    with pytest.raises(ConfigError, match=r"'timm:tiny@x'.*its layers are stem, stage"):
        check_timm("tiny", "x", None)
    with pytest.raises(ConfigError, match="no model of this name; similar names: tiny"):
        check_timm("huge", "", None)
    with pytest.raises(ConfigError, match=r"Invalid pretrained tag \(other\)"):
        check_timm("tiny.other", "", None)


def test_other_weights_of_the_same_name_are_noticed(timm, cache):
    part = read_source("timm:tiny")[0]
    assert library_input(part, None).fingerprint == ""
    save_file(Tiny().state_dict(), in_hub(cache, "timm/tiny.in1k") / "model.safetensors")
    first = library_input(part, None)
    assert "tiny.in1k in" in first.text
    assert "commit c0ffee" in first.text
    save_file(Tiny().state_dict(), in_hub(cache, "timm/tiny.in1k", "beef") / "model.safetensors")
    assert library_input(part, None).fingerprint != first.fingerprint


@pytest.mark.parametrize(
    ("package", "call"),
    [("timm", lambda: timm_pretrained("resnet18")), ("transformers", lambda: check_hf("a", ""))],
)
def test_a_missing_package_is_one_sentence(package, call, monkeypatch):
    def no_module(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("ktfast.features.hf_teacher.hf_pretrained", lambda name: None)
    monkeypatch.setattr(importlib, "import_module", no_module)
    message = f"needs the package {package}, which is not installed; run pip install {package}"
    with pytest.raises(pretrained.MissingModelError, match=message):
        call()


def test_a_tiny_model_of_the_real_timm(cache):
    timm = pytest.importorskip("timm", reason="timm is not installed", exc_type=ImportError)
    model = timm.create_model("test_vit.r160_in1k", num_classes=0).eval()
    folder = in_hub(cache, "timm/test_vit.r160_in1k")
    save_file(model.state_dict(), folder / "model.safetensors")
    check_timm("test_vit", "blocks.1", None)
    images = torch.randint(0, 256, (2, 160, 160, 3)).byte()
    found = timm_pretrained("test_vit")
    assert (found.size, found.mean) == (160, (0.5, 0.5, 0.5))
    rows = timm_teacher.timm_teacher("test_vit", None, "cpu")(images)
    with torch.no_grad():
        expected = model((images.permute(0, 3, 1, 2) / 255 - 0.5) / 0.5)
    assert torch.allclose(rows, expected, atol=1e-4)
    small = timm_teacher.timm_teacher("test_vit", None, "cpu", layer="blocks.1", size=96)
    assert small(images[:, :96, :96].contiguous()).shape == rows.shape


# --- transformers ---------------------------------------------------------------------------------
PROCESSOR = {
    "image_mean": [0.5, 0.4, 0.3], "image_std": [0.25, 0.5, 1], "do_center_crop": True,
    "crop_size": {"height": 32, "width": 32}, "size": {"shortest_edge": 36},
}  # fmt: skip


def hf_folder(folder, processor=PROCESSOR):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"image_size": 48}))
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    save_file({"w": torch.zeros(1)}, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (32, (0.5, 0.4, 0.3), (0.25, 0.5, 1))),
        ({"do_center_crop": False}, (36, (0.5, 0.4, 0.3), (0.25, 0.5, 1))),
        ({"crop_size": 40}, (40, (0.5, 0.4, 0.3), (0.25, 0.5, 1))),
        ({"crop_size": None, "size": None}, (48, (0.5, 0.4, 0.3), (0.25, 0.5, 1))),
        ({"do_normalize": False}, (32, (0, 0, 0), (1, 1, 1))),
        ({"rescale_factor": 1 / 127.5}, (32, (0.25, 0.2, 0.15), (0.125, 0.25, 0.5))),
    ],
)
def test_preprocessing_follows_the_models_own_file(tmp_path, changes, expected):
    found = hf_pretrained(str(hf_folder(tmp_path / "m", {**PROCESSOR, **changes})))
    assert found.size == expected[0]
    assert found.mean == pytest.approx(expected[1])
    assert found.std == pytest.approx(expected[2])


def test_a_model_of_transformers_that_is_not_here(cache):
    message = r"'hf:a/b': the weights of a/b are not .*hub/models--a--b.*hf download a/b.*hf:FOLDER"
    with pytest.raises(ConfigError, match=message):
        hf_pretrained("a/b")
    folder = hf_folder(cache / "m")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ConfigError, match=r"has no preprocessor_config.json"):
        hf_pretrained(str(folder))
    (folder / "preprocessor_config.json").write_text("[")
    with pytest.raises(DataError, match=r"preprocessor_config.json cannot be read as"):
        hf_pretrained(str(folder))


def test_files_of_transformers_are_compared_by_content(tmp_path):
    part = read_source(f"hf:{hf_folder(tmp_path / 'm')}")[0]
    first = library_input(part, None).fingerprint
    assert library_input(part, None).fingerprint == first
    save_file({"w": torch.ones(1)}, tmp_path / "m/model.safetensors")
    second = library_input(part, None).fingerprint
    hf_folder(tmp_path / "m", {**PROCESSOR, "image_mean": [0, 0, 0]})
    assert len({first, second, library_input(part, None).fingerprint}) == 3


TINY = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32}
VIT = {**TINY, "patch_size": 8, "intermediate_size": 16}
TEXT = {"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}


KINDS = ("Dinov2", "DINOv3ViT", "ViTMAE", "ViT", "CLIP", "CLIPVision", "Siglip", "SiglipVision")


@pytest.mark.parametrize("kind", KINDS)
def test_tiny_models_of_transformers(kind, tmp_path):
    name = "transformers"
    transformers = pytest.importorskip(
        name, reason=f"{name} is not installed", exc_type=ImportError
    )
    given = VIT
    if kind in ("CLIP", "Siglip"):
        given = {"vision_config": VIT, "text_config": {**TEXT, "intermediate_size": 16}}
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**given)
    options = {"add_pooling_layer": False} if kind == "ViT" else {}
    model = getattr(transformers, f"{kind}Model")(config, **options).eval()
    folder = tmp_path / "m"
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    teacher = hf_teacher(str(folder), "cpu")
    before = torch.get_rng_state()
    rows = teacher(IMAGES)
    assert rows.shape == (2, 8)
    assert torch.equal(rows, hf_teacher(str(folder), "cpu")(IMAGES)), "a masked patch is random"
    assert torch.equal(torch.get_rng_state(), before) or kind == "ViT"
    mean, std = (torch.tensor(PROCESSOR[f"image_{k}"])[:, None, None] for k in ("mean", "std"))
    pixels = (IMAGES.permute(0, 3, 1, 2) / 255 - mean) / std
    network = getattr(model, "vision_model", model)
    with torch.no_grad():
        if kind == "ViTMAE":
            network.config.mask_ratio = 0.0
        output = network(pixel_values=pixels)
    pooled = getattr(output, "pooler_output", None)
    expected = output.last_hidden_state[:, 0] if pooled is None else pooled
    assert torch.allclose(rows, expected, atol=1e-4)
    with pytest.raises(ConfigError, match="no layer 'nowhere'; its layers are embeddings"):
        check_hf(str(folder), "nowhere")
    layers = [n for n, m in network.named_modules() if type(m).__name__.endswith("Layer")]
    assert hf_teacher(str(folder), "cpu", layer=layers[0])(IMAGES).shape == (2, 8)
