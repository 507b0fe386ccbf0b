"""Networks: torchvision's shapes and values, the paper's maps, first weights, weights on disk."""

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

from ktfast.errors import ConfigError, DataError, InputError
from ktfast.images.augment import normalize_images
from ktfast.models import (
    VGG16,
    AlexNet,
    build_trunk,
    initialize,
    load_weights,
    normalization,
    parameter_groups,
    save_weights,
)
from ktfast.models.normalization import LocalResponseNorm
from ktfast.pipeline.steps.retrain_layers import frozen_network
from ktfast.pretext.network import JigsawNet
from support.one_thread import one_thread_and_a_seed  # noqa: F401
from support.photographs import squares
from support.tolerances import CONVOLUTION_ORDER, LOCAL_RESPONSE_NORM


def photographs(n: int, side: int) -> torch.Tensor:
    return normalize_images(torch.from_numpy(squares(n, side)), "image")


# --- torchvision --------------------------------------------------------------------------------

PAIRS = {
    "alexnet": (
        lambda: AlexNet(variant="torchvision", image_size=224),
        torchvision.models.alexnet,
    ),
    "vgg16": (VGG16, torchvision.models.vgg16),
    "vgg16_bn": (lambda: VGG16(batch_norm=True), torchvision.models.vgg16_bn),
}


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


# --- AlexNet ------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("channels", [1, 4, 24, 96])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_lrn_is_torchs(channels, order):
    x = torch.randn(3, channels, 7, 5).mul(40).relu().to(memory_format=order).requires_grad_()
    weight = torch.randn(3, channels, 7, 5)
    results = []
    for norm in (LocalResponseNorm(), nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0)):
        y = norm(x)
        (gradient,) = torch.autograd.grad((y * weight).sum(), x)
        results.append((y, gradient))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=LOCAL_RESPONSE_NORM, atol=1e-7)


def test_lrn_by_hand():
    # Three channels of value 10: every sum of squares is 300, and 1 + 1e-4 / 5 * 300 = 1.006.
    y = LocalResponseNorm()(torch.full((1, 3, 1, 1), 10.0))
    assert y.flatten().tolist() == pytest.approx([10 / 1.006**0.75] * 3, rel=1e-6)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_the_gradient_of_lrn_is_that_of_its_values(size):
    x = torch.randn(2, 4, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(LocalResponseNorm(size, alpha=2.0), x)


def test_lrn_is_the_same_in_parts(monkeypatch):
    x = torch.randn(5, 16, 6, 6).mul(40).requires_grad_()
    results = []
    for values in (1 << 20, 2 * 16 * 36, 1):
        monkeypatch.setattr(normalization, "PART_VALUES", values)
        y = LocalResponseNorm()(x)
        results.append((y, *torch.autograd.grad(y.square().sum(), x)))
    for y, gradient in results[1:]:
        assert torch.equal(y, results[0][0])
        assert torch.equal(gradient, results[0][1])
    assert LocalResponseNorm()(x[:0]).shape == (0, 16, 6, 6)


def test_lrn_computes_in_float32_under_autocast():
    x = torch.full((1, 8, 2, 2), 3.0, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        y = LocalResponseNorm(alpha=1.0)(x)
    expected = functional.local_response_norm(x.float(), 5, 1.0, 0.75, 1.0).bfloat16()
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, expected)


# --- trunks in general --------------------------------------------------------------------------


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


# --- first weights ------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1.0, 0.25])
def test_signal_neither_vanishes_nor_explodes(width):
    trunk = VGG16(0, width=width)
    initialize(trunk)
    maps = trunk.features_all(photographs(12, 64), trunk.layers)
    for name, value in maps.items():
        if name.startswith("conv"):
            assert 0.4 < value.square().mean().sqrt() < 4, name


def test_biases_learn_faster_and_do_not_decay():
    net = VGG16(10, width=0.125, batch_norm=True, image_size=32)
    weights, biases, scales = parameter_groups(net, 0.1, 0.5)
    assert (weights["lr"], weights["weight_decay"]) == (0.1, 0.5)
    assert (biases["lr"], biases["weight_decay"]) == (0.2, 0.0)
    assert (scales["lr"], scales["weight_decay"]) == (0.1, 0.0)
    counts = [len(group["params"]) for group in (weights, biases, scales)]
    assert counts == [13 + 3, 13 + 13 + 3, 13]
    assert sum(counts) == len(list(net.parameters()))


# --- weights on disk and from one network to another --------------------------------------------


def test_weights_come_back(tmp_path):
    net, other = (VGG16(3, width=0.125, batch_norm=True, image_size=32) for _ in range(2))
    net.to(memory_format=torch.channels_last)
    save_weights(net, tmp_path / "w.safetensors", {"layer": "conv4_3"})
    report = load_weights(other, tmp_path / "w.safetensors")
    assert report.missing == report.unexpected == ()
    assert len(report.loaded) == len(net.state_dict())
    for name, value in net.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


def test_partial_weights_are_reported(tmp_path):
    net = JigsawNet(VGG16(0, width=0.125), 5, tile_size=16, tile_features=8, hidden=8)
    initialize(net)
    save_weights(net, tmp_path / "w.safetensors")
    trunk = VGG16(0, width=0.125)
    report = load_weights(trunk, tmp_path / "w.safetensors", prefix="trunk.")
    assert len(report.loaded) == 20
    assert {name.split(".")[1] for name in report.missing} == {"24", "26", "28"}  # conv5
    assert report.unexpected == ()
    assert torch.equal(trunk.features[21].weight, net.trunk.features[21].weight)


def test_unusable_weights_are_refused(tmp_path):
    net = AlexNet(0, width=0.125)
    save_weights(AlexNet(0, width=0.25), tmp_path / "wide.safetensors")
    with pytest.raises(DataError, match=r"features\.0\.weight has shape \(24,"):
        load_weights(net, tmp_path / "wide.safetensors")
    with pytest.raises(DataError, match="another network"):
        load_weights(net, {"encoder.weight": torch.zeros(3)})
    with pytest.raises(DataError, match="no weight file"):
        load_weights(net, tmp_path / "none.safetensors")
    whole = (tmp_path / "wide.safetensors").read_bytes()
    for damage in (b"", whole[:100], whole[:-1], b"\xff" * 64 + whole[64:]):
        (tmp_path / "bad.safetensors").write_bytes(damage)
        with pytest.raises(DataError, match=r"bad\.safetensors"):
            load_weights(net, tmp_path / "bad.safetensors")


class Payload:
    """An object whose unpickling calls a function; loading weights must not call it."""

    def __reduce__(self):
        return print, ("code of a weight file has run",)


def test_weight_files_cannot_run_code(tmp_path, capsys):
    torch.save({"features.0.weight": Payload()}, tmp_path / "w.pth")
    with pytest.raises(DataError, match=r"w\.pth"):
        load_weights(AlexNet(0, width=0.125), tmp_path / "w.pth")
    assert "has run" not in capsys.readouterr().out


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
