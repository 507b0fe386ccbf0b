"""3x3 convolutions whose weight gradient is a product of matrices, where that is faster.

oneDNN's own weight gradient in channels-last order is the slowest part of training VGG-16 on CPUs
without AVX-512: 43 to 59 GFLOP/s on a thread whose peak is 101 (Zen 3, torch 2.14), where the other
two passes reach 85 to 93. A copy of the pixels below each output, and one product with the outputs'
gradients, reach 53 to 78: Jigsaw++ steps of VGG-16 become 1.1 times as fast (median of six in turns
on a busy machine). The gradient is the same up to the order of its sums.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

COLUMN_BYTES = 8 << 20
"""Of the copied pixels at a time, unless one image takes more: they stay in the caches. 2 and 32
MiB are up to 10 % slower for some of the layers."""
LEAST_CHANNELS, LEAST_OUTPUTS = 64, 128
"""From which on it pays: GFLOP/s of oneDNN and of the columns, for 64 to 64 channels of 8 px 43 and
34, 64 to 128 of 4 px 39 and 46, of 32 px 38 and 53, 512 to 512 of 8 px 45 and 73."""


class Conv2d(nn.Conv2d):
    """torch's convolution, with the faster weight gradient where there is one."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, C_out, h, w] of maps x [B, C, H, W]."""
        if not self._by_columns(x):
            return super().forward(x)
        maps: Tensor = _ByColumns.apply(x, self.weight, self.bias)
        return maps

    def _by_columns(self, x: Tensor) -> bool:
        return (
            x.device.type == "cpu"
            and x.dtype == self.weight.dtype == torch.float32
            and self.weight.requires_grad
            and torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
            and self.kernel_size == (3, 3)
            and self.stride == self.padding == self.dilation == (1, 1)
            and self.groups == 1
            and self.in_channels >= LEAST_CHANNELS
            and self.out_channels >= LEAST_OUTPUTS
            and x.is_contiguous(memory_format=torch.channels_last)
            and torch.backends.cpu.get_cpu_capability() == "AVX2"
        )


class _ByColumns(torch.autograd.Function):
    """A 3x3 convolution of channels-last maps with padding 1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.conv2d(x, weight, bias, padding=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        to_x, to_weight, to_bias = ctx.needs_input_grad
        one = [1, 1]
        return (
            torch.ops.aten.convolution_backward(
                gradient, x, weight, None, one, one, one, False, [0, 0], 1, [True, False, False]
            )[0]
            if to_x
            else None,
            weight_gradient(x, gradient) if to_weight else None,
            gradient.sum((0, 2, 3)) if to_bias else None,
        )


def weight_gradient(x: Tensor, gradient: Tensor) -> Tensor:
    """Gradient of the weights of a 3x3 convolution with padding 1.

    Parameters
    ----------
    x : float32 [B, C, H, W], channels-last.
    gradient : of the outputs, float32 [B, K, H, W], channels-last.

    Returns
    -------
    float32 [K, C, 3, 3], channels-last.
    """
    batch, channels, height, width = x.shape
    outputs = gradient.permute(0, 2, 3, 1).flatten(0, 2)  # [B * H * W, K]
    padded = x.new_zeros(batch, height + 2, width + 2, channels)
    padded[:, 1:-1, 1:-1].copy_(x.permute(0, 2, 3, 1))
    image, row, pixel, _ = padded.stride()
    # Three neighbours of a row lie side by side: [B, H, W, 3 rows, 3 pixels and their channels].
    below = padded.as_strided((batch, height, width, 3, 3 * channels), (image, row, pixel, row, 1))
    places = height * width
    step = max(1, min(batch, COLUMN_BYTES // (4 * 9 * channels * places)))
    columns = x.new_empty(step * places, 9 * channels)
    total = x.new_zeros(outputs.shape[1], 9 * channels)
    for first in range(0, batch, step):
        some = below[first : first + step]
        part = columns[: len(some) * places]
        part.view(some.shape).copy_(some)
        gradients = outputs[first * places : first * places + len(part)].T
        torch.addmm(total, gradients, part, out=total)  # addmm_ is not counted as operations
    return total.view(-1, 3, 3, channels).permute(0, 3, 1, 2)
