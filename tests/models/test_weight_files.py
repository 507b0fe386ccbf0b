"""Weights that other people saved: any suffix, wrapper and prefix, but no other network."""

import argparse
import logging

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import resnet18, resnet34

from ktfast.errors import InputError
from ktfast.features.torchvision_teacher import torchvision_teacher
from ktfast.models import load_weights
from ktfast.models.weight_files import read_header, read_state


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(3)
    return resnet18(num_classes=7).eval()


@pytest.fixture(scope="module")
def backbone(network):
    return {key: value for key, value in network.state_dict().items() if key[:3] != "fc."}


def named(state, prefix):
    return {prefix + key: value for key, value in state.items()}


def contents(backbone, network):
    """What people save: {name of the file: content}."""
    whole = network.state_dict()
    momentum = {key: value + 1 for key, value in backbone.items() if value.dtype.is_floating_point}
    moco = {
        **named(backbone, "module.encoder_q."),
        "module.encoder_q.fc.0.weight": torch.zeros(9, 9),
        **named(momentum, "module.encoder_k."),
        "module.queue": torch.zeros(8, 8),
    }
    options = argparse.Namespace(lr=0.03)
    return {
        "headless.pth": backbone,
        "other classes.pt": whole,
        "plain.ckpt": {"state_dict": whole, "epoch": 3, "optimizer": {"state": {}}},
        "moco.pth.tar": {"state_dict": moco, "arch": "resnet18", "best": np.float64(0.5)},
        "pytorch_model.bin": {"model": named(whole, "backbone."), "args": options},
        "compiled.weights": named(whole, "_orig_mod."),
        "nested": {"model": {"state_dict": named(whole, "module.")}, "epoch": 1},
        "unknown entry.pt": {"resnet": named(whole, "net.inner."), "step": 3},
        "no counters.pt": {k: v for k, v in whole.items() if "num_batches" not in k},
    }


@pytest.mark.parametrize("old", [False, True], ids=["zip", "pickle"])
def test_a_backbone_serves_as_a_teacher_however_it_was_saved(
    network, backbone, tmp_path, old, caplog
):
    images = torch.arange(2 * 32 * 32 * 3).reshape(2, 32, 32, 3).remainder(251).to(torch.uint8)
    save_file(backbone, tmp_path / "reference.safetensors")
    reference = torchvision_teacher("resnet18", tmp_path / "reference.safetensors", "cpu")(images)
    assert reference.shape == (2, 512)
    for name, content in contents(backbone, network).items():
        torch.save(content, tmp_path / name, _use_new_zipfile_serialization=not old)
        with caplog.at_level(logging.INFO):
            found = torchvision_teacher("resnet18", tmp_path / name, "cpu")(images)
        assert torch.equal(found, reference), name
    assert "the weights are those of the entry 'state_dict'" in caplog.text
    assert "the names of the weights begin with module.encoder_q." in caplog.text


def test_another_network_is_refused_by_name(network, backbone, tmp_path):
    def refuse(content, message):
        torch.save(content, tmp_path / "w.ckpt")
        with pytest.raises(InputError, match=message):
            torchvision_teacher("resnet18", tmp_path / "w.ckpt", "cpu")

    without = {key: value for key, value in backbone.items() if key != "layer3.0.conv1.weight"}
    refuse(without, r"lacks 1 weights of resnet18, the first is layer3\.0\.conv1\.weight")
    wide = {**backbone, "conv1.weight": torch.zeros(65, 3, 7, 7)}
    refuse(wide, r"conv1\.weight has shape \(65, 3, 7, 7\)")
    # resnet34 has every layer of resnet18, with equal shapes, and more layers.
    refuse(resnet34().state_dict(), r"has 96 weights that resnet18 lacks, the first is layer1\.2\.")
    refuse({"features.0.bias": torch.zeros(3)}, "another network")
    refuse({"epoch": 3}, "holds no plain state dict")
    refuse([1, 2], "holds a list")
    two = {**named(backbone, "left."), **named(backbone, "right.")}
    refuse(two, r"2 copies of the network, under left\., right\.")


class Payload:
    """An object whose unpickling calls a function; loading weights must not call it."""

    def __reduce__(self):
        return print, ("code of a weight file has run",)


@pytest.mark.parametrize("old", [False, True], ids=["zip", "pickle"])
def test_a_file_with_foreign_objects_is_not_called_damaged(tmp_path, capsys, old):
    path = tmp_path / "w.ckpt"
    content = {"state_dict": {"a": torch.zeros(3)}, "payload": Payload()}
    torch.save(content, path, _use_new_zipfile_serialization=not old)
    with pytest.raises(InputError, match=r"w\.ckpt") as refused:
        read_state(path)
    if not old:
        assert "holds more than tensors" in str(refused.value)
        assert "builtins.print" in str(refused.value)
    assert "has run" not in capsys.readouterr().out


def test_damaged_files_are_named(backbone, tmp_path):
    torch.save(backbone, tmp_path / "w.bin")
    whole = (tmp_path / "w.bin").read_bytes()
    for damage in (b"", b"PK", whole[:1000], whole[:-100], b"\x80\x02}" + bytes(50), b"hello" * 9):
        (tmp_path / "bad.bin").write_bytes(damage)
        with pytest.raises(InputError, match=r"bad\.bin is damaged"):
            read_state(tmp_path / "bad.bin")


def test_names_without_a_prefix_come_first():
    layers = torch.nn.Sequential(torch.nn.Linear(2, 2))
    state = {"0.weight": torch.ones(2, 2), "0.bias": torch.ones(2), "x.0.bias": torch.zeros(2)}
    assert load_weights(layers, state).unexpected == ("x.0.bias",)
    assert layers[0].bias.tolist() == [1, 1]


@pytest.mark.parametrize("size", [640, 896, 1152, 1408])
def test_a_header_whose_length_looks_like_a_pickle(tmp_path, size):
    """The length of the header fills the first bytes; those of a pickle are 0x80 and 2 to 5."""
    path = tmp_path / "weights.safetensors"
    text = ""
    for _ in range(2):
        save_file({"w": torch.ones(2)}, path, {"entry": text})
        text += "x" * (size - int.from_bytes(path.read_bytes()[:8], "little"))
    assert path.read_bytes()[:2] == bytes([size % 256, size // 256])
    assert read_state(path)["w"].tolist() == [1, 1]
    assert read_header(path, "entry") == text
