"""Weights: the first ones, groups for the optimiser, on disk; damaged files are refused."""

import pytest
import torch

from ktfast.errors import DataError
from ktfast.images.augment import normalize_images
from ktfast.models import (
    VGG16,
    AlexNet,
    initialize,
    load_weights,
    parameter_groups,
    save_weights,
)
from ktfast.pretext.network import JigsawNet
from support.one_thread import one_thread_and_a_seed  # noqa: F401
from support.photographs import squares


@pytest.mark.parametrize("width", [1.0, 0.25])
def test_signal_neither_vanishes_nor_explodes(width):
    trunk = VGG16(0, width=width)
    initialize(trunk)
    images = normalize_images(torch.from_numpy(squares(12, 64)), "image")
    maps = trunk.features_all(images, trunk.layers)
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
