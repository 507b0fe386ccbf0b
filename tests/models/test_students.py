"""Students of torchvision: their layers, weights under torchvision's names, and refusals."""

import sys

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.vision_transformer import VisionTransformer

from ktfast.errors import ConfigError
from ktfast.models import Student, build_target, load_weights, save_weights
from ktfast.models.anatomy import Reading, examine
from ktfast.pipeline.steps.retrain_layers import frozen_network
from support.one_thread import one_thread_and_a_seed  # noqa: F401

SMALL = "torchvision:shufflenet_v2_x0_5"
SIZE = 64


@pytest.fixture(scope="module")
def student():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return Student(SMALL, 5, image_size=SIZE)


@pytest.mark.parametrize(
    ("name", "size", "stages", "last"),
    [
        ("resnet18", 227, ("layer1", "layer2", "layer3", "layer4"), (512, 8)),
        ("resnet18", 32, ("layer1", "layer2", "layer3", "layer4"), (512, 1)),
        (
            "mobilenet_v3_small",
            224,
            tuple(f"features.{number}" for number in (0, 1, 3, 8, 12)),
            (576, 7),
        ),
        ("convnext_tiny", 64, tuple(f"features.{number}" for number in (1, 3, 5, 7)), (768, 2)),
        (
            "vit_b_16",
            32,  # another size than that of torchvision's weights
            tuple(f"encoder.layers.encoder_layer_{number}" for number in (2, 5, 8, 11)),
            (2 * 768, 2),
        ),
    ],
)
def test_stages_are_the_last_layers_of_each_size(name, size, stages, last):
    with torch.device("meta"):
        network = build_target(f"torchvision:{name}", n_classes=3, image_size=size)
    assert network.stages == stages
    assert set(stages) <= set(network.layers)
    assert (network.channels[network.last_layer], network.side(size, network.last_layer)) == last


def test_weights_load_into_torchvisions_network_and_back(student, tmp_path):
    theirs = models.get_model("shufflenet_v2_x0_5", num_classes=5)
    theirs.load_state_dict(student.state_dict(), strict=True)
    images = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        torch.testing.assert_close(theirs.eval()(images), student.eval()(images), rtol=0, atol=0)
    save_weights(theirs, tmp_path / "w.safetensors")
    trunk = Student(SMALL, 0, image_size=SIZE)
    assert load_weights(trunk, tmp_path / "w.safetensors").missing == ()
    found = theirs.load_state_dict(trunk.state_dict(), strict=False)
    assert found.missing_keys == ["fc.weight", "fc.bias"]
    trunk.load_state_dict(trunk.state_dict())
    for name, value in trunk.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[name]), name


def test_the_maps_are_those_of_the_modules(student):
    images = torch.randn(2, 3, SIZE, SIZE)
    network = student.eval().network
    with torch.no_grad():
        maps = student.features_all(images, ["stage3", "stage2"])
        stage2 = network.stage2(network.maxpool(network.conv1(images)))
        assert torch.equal(maps["stage2"], stage2)
        assert torch.equal(maps["stage3"], network.stage3(stage2))
    for layer, found in maps.items():
        assert found.shape[1] == student.channels[layer]
        assert found.shape[2] == student.side(SIZE, layer)
    with pytest.raises(ConfigError, match=r"layer 'conv9' is unknown; there are conv1, "):
        student.features_all(images, ["conv9"])


def test_the_first_weights_depend_on_the_seed_alone():
    def weights():
        torch.manual_seed(4)
        return Student(SMALL, 3, image_size=SIZE).state_dict()

    first, again = weights(), weights()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert first["fc.weight"].std() < 0.002
    assert first["fc.bias"].abs().max() == 0


def test_frozen_layers_stay_as_they_are(student):
    network = frozen_network(student, "stage2", Student(SMALL, 4, image_size=SIZE))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    lower = {name for name in before if name.startswith(("conv1.", "stage2."))}
    for name in before:
        same = torch.equal(before[name], student.state_dict()[name]) if name in lower else True
        assert same, name
    network.train()
    for name, value in network.network.named_parameters():
        assert value.requires_grad == (name not in lower), name
    network(torch.randn(6, 3, SIZE, SIZE))  # moves batch-norm's averages
    for name, value in network.state_dict().items():
        if name in lower or name.endswith("running_mean"):
            assert torch.equal(value, before[name]) == (name in lower), name


class Tokens(nn.Module):
    """A vision transformer of torchvision for images of 16 px, with patches of 4 px."""

    def __new__(cls):
        return VisionTransformer(16, 4, 6, 2, 8, 16, num_classes=3)


def test_tokens_become_maps_beside_the_class_token():
    network = Tokens()
    anatomy = examine(Tokens().to("meta"), "heads.head", 16)
    blocks = tuple(f"encoder.layers.encoder_layer_{number}" for number in (1, 2, 4, 5))
    assert anatomy.stages == blocks
    assert anatomy.readings[blocks[0]] == Reading("tokens", 16, 4, 1)
    output = torch.randn(2, 17, 8)
    found = anatomy.readings[blocks[0]].map_of(output)
    assert found.shape == (2, 16, 4, 4)
    assert torch.equal(found[:, :8, 1, 2], output[:, 1 + 4 + 2])
    assert torch.equal(found[:, 8:, 3, 0], output[:, 0])
    # The class token and the positions come before the first block.
    assert anatomy.start("encoder") < anatomy.ends[blocks[0]] < anatomy.start("encoder.ln")
    inner = "encoder.layers.encoder_layer_1.self_attention.out_proj"  # torch does not call it
    assert inner in dict(network.named_modules())
    assert anatomy.start(inner) < anatomy.ends[blocks[0]]


def test_channels_last_is_recognised():
    assert torch.equal(
        Reading("channels last", 5, 2).map_of(torch.arange(20.0).view(1, 2, 2, 5))[0, :, 1, 0],
        torch.arange(10.0, 15.0),
    )
    with torch.device("meta"):
        network = build_target("torchvision:swin_t", n_classes=3, image_size=64)
    assert network.stages == ("features.1", "features.3", "features.5", "features.7")
    assert [network.channels[name] for name in network.stages] == [96, 192, 384, 768]
    assert [network.side(64, name) for name in network.stages] == [16, 8, 4, 2]


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("torchvision:resnet19", 64, "torchvision has no classification network 'resnet19'"),
        ("torchvision:", 64, "expected alexnet, vgg16, torchvision:NAME or timm:NAME"),
        ("keras:resnet18", 64, "expected alexnet, vgg16, torchvision:NAME or timm:NAME"),
        ("torchvision:vit_b_16", 227, "does not take images of 227 px .*; give images of 224 px"),
        ("torchvision:alexnet", 20, "does not take images of 20 px"),
    ],
)
def test_networks_that_cannot_be_built_are_refused(name, size, message):
    with torch.device("meta"), pytest.raises(ConfigError, match=message):
        build_target(name, n_classes=3, image_size=size)


def test_a_missing_timm_is_one_clear_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match=r"timm:vit_tiny_patch16_224 needs.*pip install timm"):
        build_target("timm:vit_tiny_patch16_224", n_classes=3, image_size=32)


def test_a_vision_transformer_of_timm():
    timm = pytest.importorskip("timm")
    student = Student("timm:vit_tiny_patch16_224", 3, image_size=32).eval()
    assert student.stages == ("blocks.2", "blocks.5", "blocks.8", "blocks.11")
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=32).eval()
    theirs.load_state_dict(student.state_dict(), strict=True)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        maps = student.features_all(images, ["blocks.11"])["blocks.11"]
        assert torch.equal(theirs(images), student(images))
    assert maps.shape == (2, 2 * 192, 2, 2)
