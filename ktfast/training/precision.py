"""In which type networks compute: unless one is asked for, the narrowest the device is fast at."""

import functools
import math
import time

import torch
from torch.nn import functional

from ktfast.errors import ConfigError

LEAST_GAIN = 1.3
"""How much faster bfloat16 must be on a CPU to be chosen: no machine lies near it."""

_PRECISIONS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def computing_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Type of the matrix products; weights and sums stay in float32.

    Parameters
    ----------
    precision : "float32", "bfloat16", "float16" or "auto": bfloat16 where the device is fast at it,
        else float16 on a GPU that has tensor cores for it (Volta, Turing), else float32.
    device : where the network runs.

    Raises
    ------
    ConfigError : float16 was asked for on a CPU.
    """
    if precision == "auto":
        if device.type != "cuda":
            return torch.bfloat16 if bfloat16_gain() >= LEAST_GAIN else torch.float32
        capability = torch.cuda.get_device_capability(device)[0]
        return {7: torch.float16}.get(
            capability, torch.bfloat16 if capability >= 8 else torch.float32
        )
    if precision == "float16" and device.type != "cuda":
        raise ConfigError("precision float16 needs a GPU; use float32 or bfloat16 on a CPU")
    return _PRECISIONS[precision]


@functools.cache
def bfloat16_gain() -> float:
    """How many times faster than in float32 this CPU convolves in bfloat16, by a short trial.

    About 2 with instructions for it (AVX512_BF16, AMX), below 1 where torch imitates them. The
    processor time of one thread is taken, which other processes hardly change: the choice that
    hangs on it must be the same in every run.
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
