"""Choose the type in which networks compute: by default the narrowest one that runs fast."""

import functools
import math
import time

import torch
from torch.nn import functional

from ktfast.errors import ConfigError

LEAST_GAIN = 1.3
"""bfloat16 is chosen on a CPU if it is this many times as fast as float32. Known processors reach
either less than 1 or about 2."""

_PRECISIONS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def computing_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Type of the matrix products. Weights and sums stay in float32.

    Parameters
    ----------
    precision : {"float32", "bfloat16", "float16", "auto"}
        "auto" takes bfloat16 where the device is fast at it, float16 on a GPU whose tensor cores
        have float16 only (Volta, Turing), and float32 elsewhere.
    device : torch.device
        Device of the network.

    Returns
    -------
    dtype : torch.dtype
        The type.

    Raises
    ------
    ConfigError
        `precision` is "float16" and the device is a CPU.
    """
    if precision == "auto":
        if device.type != "cuda":
            return torch.bfloat16 if bfloat16_gain() >= LEAST_GAIN else torch.float32
        capability = torch.cuda.get_device_capability(device)[0]
        if capability == 7:
            return torch.float16
        return torch.bfloat16 if capability >= 8 else torch.float32
    if precision == "float16" and device.type != "cuda":
        raise ConfigError("precision float16 needs a GPU; use float32 or bfloat16 on a CPU")
    return _PRECISIONS[precision]


@functools.cache
def bfloat16_gain() -> float:
    """Speed of a bfloat16 convolution on this CPU relative to float32, by a short trial.

    The gain is about 2 with AVX512_BF16 or AMX instructions, and below 1 where torch emulates
    bfloat16. The trial measures the processor time of one thread, because other processes hardly
    change this time and the choice must be the same in every run.
    """
    threads = torch.get_num_threads()
    seconds = {torch.float32: math.inf, torch.bfloat16: math.inf}
    torch.set_num_threads(1)
    try:
        for _ in range(7):
            for dtype in seconds:
                seconds[dtype] = min(seconds[dtype], _convolution_seconds(dtype))
    finally:
        torch.set_num_threads(threads)
    return seconds[torch.float32] / seconds[torch.bfloat16]


@torch.inference_mode()
def _convolution_seconds(dtype: torch.dtype) -> float:
    maps, weight = torch.ones(8, 64, 32, 32, dtype=dtype), torch.ones(64, 64, 3, 3, dtype=dtype)
    began = time.thread_time()
    functional.conv2d(maps, weight, padding=1)
    return time.thread_time() - began
