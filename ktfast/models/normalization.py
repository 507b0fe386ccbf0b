"""Local response normalisation across channels (Krizhevsky et al. 2012), as in AlexNet.

torch computes the normalisation by a three-dimensional average pooling and a power. torch's version
takes 4 times as long on a CPU, and has no deterministic gradient on a GPU.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

PART_VALUES = 1 << 18
"""Values that each thread of a CPU normalises at once: 1 MB, which the second-level cache holds
between the passes. This takes a third less time than passes over a whole batch."""


class LocalResponseNorm(nn.Module):
    """x / (1 + alpha / size * sum of squares over `size` neighbouring channels) ** 0.75.

    Equal to `torch.nn.LocalResponseNorm(size, alpha, 0.75, 1)`. Only the input is stored for the
    gradient.

    Parameters
    ----------
    size : int
        Channels in the sum, odd.
    alpha : float
        Weight of the sum, divided by `size` as in Caffe.
    """

    def __init__(self, size: int = 5, alpha: float = 1e-4) -> None:
        super().__init__()
        self.size = size
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        """Normalised maps [B, C, h, w] in the type of x, computed in float32 or wider."""
        if torch.compiler.is_compiling():  # the compiler fuses the passes and derives the gradient
            root = _energy(_widened(x), self.size, self.alpha).rsqrt()
            return (root * root.sqrt() * x).to(x.dtype)
        normalized: Tensor = _Normalize.apply(x, self.size, self.alpha)
        return normalized


class _Normalize(torch.autograd.Function):
    """Local response normalisation with its gradient.

    With t = 1 + c * S(x^2), S the sum over near channels and c = alpha / size:
    y = x t^(-3/4), and dx = dy t^(-3/4) - 3/2 c x S(dy x t^(-7/4)), because S is symmetric.
    Square roots compute the powers.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int, alpha: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.size, ctx.alpha = size, alpha
        y = torch.empty_like(x)
        for part, out in _parts(x, y):
            wide = _widened(part)
            root = _energy(wide, size, alpha).rsqrt_()
            out.copy_(root.mul_(root.sqrt()).mul_(wide))
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        dx = torch.empty_like(x)
        for part, gradient, out in _parts(x, dy, dx):
            wide = _widened(part)
            inverse = _energy(wide, ctx.size, ctx.alpha).reciprocal_()
            root = inverse.sqrt()
            direct = root.mul_(root.sqrt()).mul_(gradient)
            near = _near_sum(inverse.mul_(direct).mul_(wide), ctx.size)
            out.copy_(direct.addcmul_(wide, near, value=-1.5 * ctx.alpha / ctx.size))
        return dx, None, None


def _parts(*batches: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cut batches into matching parts of whole images; on a CPU a part fits the caches."""
    images, values = len(batches[0]), batches[0][:1].numel()
    rows = max(1, images)
    if batches[0].device.type == "cpu":
        rows = max(1, torch.get_num_threads() * PART_VALUES // max(1, values))
    yield from zip(*(torch.split(batch, rows) for batch in batches), strict=True)


def _widened(x: Tensor) -> Tensor:
    """x in float32 or wider. In half precision, 1 plus a small sum would round to 1."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _energy(x: Tensor, size: int, alpha: float) -> Tensor:
    """1 + alpha / size * the sum of squares over near channels, as a new tensor."""
    return _near_sum(x.square(), size).mul_(alpha / size).add_(1)


def _near_sum(x: Tensor, size: int) -> Tensor:
    """Sum over the `size` channels around each channel (fewer at either end), as a new tensor."""
    total = x.clone()
    for shift in range(1, min(size // 2, x.shape[1] - 1) + 1):
        total[:, shift:] += x[:, :-shift]
        total[:, :-shift] += x[:, shift:]
    return total
