"""Trunks: torchvision's shapes and values, the paper's maps, named layers, frozen layers."""

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

from ktfast.errors import ConfigError, InputError
from ktfast.images.augment import normalize_images
from ktfast.models import VGG16, AlexNet, build_trunk, initialize
from ktfast.pipeline.steps.retrain_layers import frozen_network
from support.one_thread import one_thread_and_a_seed  # noqa: F401
from support.photographs import squares
from support.tolerances import CONVOLUTION_ORDER

PAIRS = {
    "alexnet": (
        lambda: AlexNet(variant="torchvision", image_size=224),
        torchvision.models.alexnet,
    ),
    "vgg16": (VGG16, torchvision.models.vgg16),
    "vgg16_bn": (lambda: VGG16(batch_norm=True), torchvision.models.vgg16_bn),
}


def photographs(n: int, side: int) -> torch.Tensor:
    return normalize_images(torch.from_numpy(squares(n, side)), "image")


@pytest.mark.parametrize("name", PAIRS)
def test_state_dict_has_torchvisions_names_and_shapes(name):
    ours, theirs = PAIRS[name]
    with torch.device("meta"):
        shapes = [
            {key: value.shape for key, value in make().state_dict().items()}
            for make in (ours, theirs)
        ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name", PAIRS)
def test_values_are_torchvisions(name):
    ours, theirs = (
        (make() for make in PAIRS[name])
        if name == "alexnet"
        else (
            VGG16(0, batch_norm=name == "vgg16_bn"),
            # No classifier: its 124 million weights would take seconds.
            nn.Module(),
        )
    )
    if name != "alexnet":
        with torch.device("meta"):
            stack = PAIRS[name][1]().features
        theirs.features = stack.to_empty(device="cpu")
        initialize(theirs)
    ours.load_state_dict(theirs.state_dict())
    images = photographs(2, 224 if name == "alexnet" else 64)
    with torch.inference_mode():
        if name == "alexnet":
            assert torch.equal(ours.eval()(images), theirs.eval()(images))
        else:
            assert torch.equal(ours.eval()(images), theirs.eval().features(images))
    theirs.load_state_dict(ours.state_dict())


def test_other_image_sizes_are_pooled_as_torchvision_does():
    ours, theirs = (make() for make in PAIRS["alexnet"])
    ours.load_state_dict(theirs.state_dict())
    images = photographs(1, 160)
    with torch.inference_mode():
        assert torch.equal(ours.eval()(images), theirs.eval()(images))


def test_puzzle_alexnet_has_the_papers_maps():
    trunk = AlexNet(0, conv1_stride=2)
    maps = trunk.features_all(photographs(1, 64), trunk.layers)
    sides = {name: value.shape[-1] for name, value in maps.items()}
    assert sides == {
        "conv1": 27, "pool1": 13, "conv2": 13, "pool2": 6,
        "conv3": 6, "conv4": 6, "conv5": 6, "pool5": 3,
    }  # fmt: skip
    assert {name: value.shape[1] for name, value in maps.items()} == trunk.channels
    assert trunk.channels["conv1"] == 96
    assert trunk.channels["pool5"] == 256


def test_caffe_alexnet_has_caffes_weights():
    with torch.device("meta"):
        net = AlexNet(1000)
    # bvlc_reference_caffenet: 60,965,224 weights.
    assert sum(value.numel() for value in net.parameters()) == 60_965_224
    assert net.features.side(227) == 6
    kinds = [type(module).__name__ for module in net.features]
    assert kinds[:4] == ["Conv2d", "ReLU", "MaxPool2d", "LocalResponseNorm"]
    assert [module.groups for module in net.features.convolutions().values()] == [1, 2, 1, 2, 2]


def test_batch_norm_replaces_lrn():
    kinds = [type(module).__name__ for module in AlexNet(0, batch_norm=True).features]
    assert kinds.count("BatchNorm2d") == 5
    assert "LocalResponseNorm" not in kinds
    assert "LocalResponseNorm" not in [type(m).__name__ for m in AlexNet(0, lrn=False).features]


@pytest.mark.parametrize("name", ["alexnet", "vgg16"])
def test_layers_read_alone_or_in_one_pass_are_the_same(name):
    trunk = build_trunk(name, n_classes=0, width=0.25).eval()
    images = photographs(2, 96)
    together = trunk.features_all(images, trunk.layers)
    assert tuple(together) == trunk.layers
    for layer in trunk.layers:
        assert torch.equal(trunk.features(images, layer), together[layer])
        assert trunk.features.side(96, layer) == together[layer].shape[-1]
    assert torch.equal(trunk(images), together[trunk.layers[-1]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["alexnet", "vgg16"])
def test_pooling_before_the_relu_changes_no_bit(name, dtype):
    trunk = build_trunk(name, n_classes=0, width=0.25).to(dtype)
    images, found = photographs(2, 96).to(dtype), []
    for layers in (nn.Sequential(*trunk.features), trunk.features):
        trunk.zero_grad()
        maps = layers(images)
        (maps * torch.arange(maps.numel()).view(maps.shape).sin().to(dtype)).sum().backward()
        found.append([maps.detach(), *(value.grad for value in trunk.parameters())])
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))
    assert any(value.any() for value in found[0][1:])


def test_conv_layers_are_read_after_their_relu():
    trunk = VGG16(0, width=0.25)
    assert trunk.features(photographs(1, 32), "conv2_1").min() == 0
    assert trunk.layers[:3] == ("conv1_1", "conv1_2", "pool1")
    assert trunk.layers[-2:] == ("conv5_3", "pool5")


@pytest.mark.parametrize("width", [0.1, 0.25, 0.3, 1.5])
def test_width_keeps_channels_multiples_of_eight(width):
    with torch.device("meta"):
        trunks = [VGG16(10, width=width), AlexNet(10, width=width, groups=4)]
    for trunk in trunks:
        assert all(count % 8 == 0 and count > 0 for count in trunk.channels.values())
    assert trunks[0].channels["conv5_3"] == pytest.approx(512 * width, abs=8)
    assert trunks[1].features.convolutions()["conv4"].groups == 4


def test_classifier_fits_the_image_size():
    for size in (40, 48, 63, 64, 100):
        net = AlexNet(7, width=0.125, image_size=size).eval()
        assert net(photographs(1, size)).shape == (1, 7)
        net = VGG16(7, width=0.125, image_size=size).eval()
        assert net(photographs(1, size)).shape == (1, 7)


@pytest.mark.parametrize(
    ("make", "least"),
    [
        (lambda size: AlexNet(7, width=0.125, image_size=size), 39),
        (lambda size: AlexNet(7, variant="torchvision", width=0.125, image_size=size), 63),
        (lambda size: VGG16(7, width=0.125, image_size=size), 32),
    ],
)
def test_images_that_are_too_small_are_refused(make, least):
    smallest = make(224).features.smallest()
    assert smallest == least
    net = make(smallest).eval()
    assert net(torch.zeros(1, 3, smallest, smallest)).shape == (1, 7)
    with pytest.raises(ConfigError, match=f"at least {smallest} px"):
        make(smallest - 1)
    small = torch.zeros(1, 3, smallest, smallest - 1)
    with pytest.raises(InputError, match=f"at least {smallest} px"):
        net(small)
    with pytest.raises(RuntimeError):  # torch refuses the images too
        nn.Sequential(*net.features)(small)


def test_unknown_names_are_refused():
    with pytest.raises(ConfigError, match="alexnet, vgg16"):
        build_trunk("resnet50")
    with pytest.raises(ConfigError, match="'caffe' or 'torchvision'"):
        AlexNet(variant="pytorch")
    with pytest.raises(ConfigError, match="conv9"):
        VGG16(0, width=0.125).features(torch.zeros(1, 3, 32, 32), "conv9")


def test_channels_last_computes_the_same():
    for trunk in (AlexNet(0, width=0.25, conv1_stride=2), VGG16(0, width=0.25)):
        initialize(trunk)
        images = photographs(2, 64)
        before = trunk(images)
        trunk.to(memory_format=torch.channels_last)
        after = trunk(images.contiguous(memory_format=torch.channels_last))
        assert after.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(after, before, rtol=CONVOLUTION_ORDER, atol=CONVOLUTION_ORDER)


def test_frozen_layers_stay_as_they_are():
    network = AlexNet(4, width=0.125, batch_norm=True, image_size=64)
    network.freeze("conv3")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    trained = [value for value in network.parameters() if value.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    functional.cross_entropy(network(torch.randn(6, 3, 64, 64)), torch.arange(6) % 4).backward()
    optimizer.step()
    end = network.features.ends["conv3"]
    for name, value in network.state_dict().items():
        part, number, _ = name.split(".")
        frozen = part == "features" and int(number) < end
        assert torch.equal(value, before[name]) == frozen, name
    with pytest.raises(ConfigError, match=r"layer 'conv9' is unknown; there are conv1"):
        network.freeze("conv9")


@pytest.mark.parametrize("variant", ["caffe", "torchvision"])
@pytest.mark.parametrize(("layer", "trained"), [("fc6", {2, 3}), ("fc7", {3})])
def test_hidden_layers_are_frozen_and_given_as_the_layers_below(variant, layer, trained):
    network = AlexNet(4, width=0.0625, image_size=64, variant=variant)
    network.freeze(layer)
    linear = [module for module in network.classifier if isinstance(module, torch.nn.Linear)]
    free = {number for number, module in enumerate(linear, 1) if module.weight.requires_grad}
    assert free == trained
    assert not any(value.requires_grad for value in network.features.parameters())
    names = {name.rpartition(".")[0] for name in network.state_up_to(layer)}
    assert len([name for name in names if name.startswith("classifier")]) == 3 - len(trained)
    assert len([name for name in names if name.startswith("features")]) == 5
    assert network.hidden_layers == ("fc6", "fc7")
    assert AlexNet(0, width=0.0625).hidden_layers == ()


def test_a_frozen_network_takes_the_lower_layers_only():
    trunk, network = (AlexNet(n, width=0.125, image_size=64) for n in (0, 4))
    lower = trunk.features.convolutions()["conv2"].weight.clone()
    upper = network.features.convolutions()["conv3"].weight.clone()
    frozen_network(trunk, "conv2", network)
    assert torch.equal(network.features.convolutions()["conv2"].weight, lower)
    assert torch.equal(network.features.convolutions()["conv3"].weight, upper)
    trained = [name for name, value in network.named_parameters() if value.requires_grad]
    number = list(network.features).index(network.features.convolutions()["conv3"])
    assert trained[0] == f"features.{number}.weight"
