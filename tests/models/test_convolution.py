"""The faster weight gradient of 3x3 convolutions: torch's own, wherever it is taken."""

import pytest
import torch

from ktfast.models import convolution
from ktfast.models.convolution import Conv2d, weight_gradient
from ktfast.training.speed import flops_of
from support.tolerances import FLOAT32_PRODUCTS

CHANNELS_LAST = torch.channels_last


@pytest.fixture
def avx2(monkeypatch):
    """As on a processor where columns are faster, for small layers too."""
    monkeypatch.setattr(convolution, "LEAST_CHANNELS", 16)
    monkeypatch.setattr(convolution, "LEAST_OUTPUTS", 4)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")


def taken(monkeypatch):
    """Counts the weight gradients that are products of columns."""
    calls = []
    monkeypatch.setattr(
        convolution, "weight_gradient", lambda *maps: calls.append(1) or weight_gradient(*maps)
    )
    return calls


@pytest.mark.parametrize("shape", [(5, 16, 8, 8), (1, 24, 1, 1), (3, 17, 7, 4), (2, 16, 2, 9)])
@pytest.mark.parametrize("column_bytes", [1, 100_000, 8 << 20])
def test_gradients_are_those_of_torch(shape, column_bytes, avx2, monkeypatch):
    monkeypatch.setattr(convolution, "COLUMN_BYTES", column_bytes)
    calls = taken(monkeypatch)
    torch.manual_seed(0)
    ours = Conv2d(shape[1], 20, 3, padding=1).to(memory_format=CHANNELS_LAST)
    theirs = torch.nn.Conv2d(shape[1], 20, 3, padding=1).to(memory_format=CHANNELS_LAST)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(shape).to(memory_format=CHANNELS_LAST)
    found = []
    for network in (ours, theirs):
        maps = x.clone(memory_format=torch.preserve_format).requires_grad_()
        out = network(maps)
        (out * torch.arange(out.numel()).view(out.shape).sin()).sum().backward()
        found.append([out.detach(), maps.grad, network.weight.grad, network.bias.grad])
    for a, b in zip(*found, strict=True):
        scale = float(b.abs().max())
        torch.testing.assert_close(a / scale, b / scale, rtol=0, atol=FLOAT32_PRODUCTS)
    assert len(calls) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"kernel_size": 5},
        {"stride": 2},
        {"padding": 0},
        {"groups": 2},
        {"in_channels": 8},
        {"out_channels": 2},
    ],
)
def test_other_convolutions_go_torchs_way(change, avx2, monkeypatch):
    calls = taken(monkeypatch)
    options = {"in_channels": 16, "out_channels": 6, "kernel_size": 3, "padding": 1} | change
    network = Conv2d(**options).to(memory_format=CHANNELS_LAST)
    x = torch.randn(2, options["in_channels"], 9, 9).to(memory_format=CHANNELS_LAST)
    network(x).sum().backward()
    assert calls == []
    assert network.weight.grad is not None


def test_other_maps_and_processors_go_torchs_way(avx2, monkeypatch):
    calls = taken(monkeypatch)
    network = Conv2d(16, 6, 3, padding=1)
    x = torch.randn(2, 16, 9, 9)
    network(x).sum().backward()  # channels first
    x = x.to(memory_format=CHANNELS_LAST)
    with torch.autocast("cpu", torch.bfloat16):
        network(x).float().sum().backward()
    with torch.no_grad():
        assert network(x).grad_fn is None
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    network(x).sum().backward()
    assert calls == []


def test_a_frozen_layer_has_no_gradient(avx2, monkeypatch):
    calls = taken(monkeypatch)
    network = Conv2d(16, 6, 3, padding=1).requires_grad_(False)
    x = torch.randn(2, 16, 9, 9).to(memory_format=CHANNELS_LAST).requires_grad_()
    network(x).sum().backward()
    assert calls == []
    assert x.grad is not None


def test_columns_count_as_many_operations(avx2):
    network = Conv2d(16, 6, 3, padding=1).to(memory_format=CHANNELS_LAST)
    x = torch.randn(2, 16, 9, 9).to(memory_format=CHANNELS_LAST).requires_grad_()
    assert flops_of(lambda: network(x).sum().backward()) == 3 * 2 * 2 * 81 * 6 * 16 * 9
