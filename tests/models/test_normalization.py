"""Local response normalisation equals torch's, its gradient too, in parts and under autocast."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from ktfast.models import normalization
from ktfast.models.normalization import LocalResponseNorm
from support.one_thread import one_thread_and_a_seed  # noqa: F401
from support.tolerances import LOCAL_RESPONSE_NORM


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
