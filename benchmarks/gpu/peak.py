"""The peak rates of a GPU, measured: products of large matrices by type, and copies.

CUDA events measure the times. On the CPU, the host's clock times the same calls, so that users of
this module can be tried without a GPU.
"""

import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

PRODUCTS = ("int8", "float16", "bfloat16", "tf32", "float32")
COPIES = ("copy", "to device", "to host")
_SIDE, _SMALL_SIDE = 8192, 64
_BYTES, _SMALL_BYTES = 1 << 30, 1 << 16
_REPEATS = 10


def peaks(device: str = "cuda", *, small: bool = False) -> dict[str, float]:
    """Measure all peak rates.

    Parameters
    ----------
    device : {"cuda", "cpu"}
        The device.
    small : bool, optional
        Use tiny sizes, for a test.

    Returns
    -------
    rates : dict of float
        Operations per second of each product in `PRODUCTS`, where a multiply-add is two operations.
        "copy" is the bytes read and written per second in the device's memory; "to device" and "to
        host" are the bytes per second between pinned host memory and the device. Products that the
        device or torch cannot do are left out.
    """
    found = {kind: product(kind, device, small=small) for kind in PRODUCTS}
    found |= {kind: copy(kind, device, small=small) for kind in COPIES}
    return {kind: rate for kind, rate in found.items() if rate > 0}


def product(kind: str, device: str, *, small: bool = False) -> float:
    """Operations per second of a square product of random matrices; 0 if torch cannot do it."""
    side = _SMALL_SIDE if small else _SIDE
    call = _product_call(kind, side, device)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if kind == "tf32" else "highest")
    try:
        return 2 * side**3 / median_seconds(call, device)
    except (RuntimeError, NotImplementedError):  # torch has no such kernel for this device
        return 0.0
    finally:
        torch.set_float32_matmul_precision(before)


def _product_call(kind: str, side: int, device: str) -> Callable[[], object]:
    if kind == "int8":
        a, b = (
            torch.randint(-127, 128, (side, side), dtype=torch.int8, device=device)
            for _ in range(2)
        )
        return lambda: torch._int_mm(a, b.t())
    dtype = torch.float32 if kind == "tf32" else getattr(torch, kind)
    x, y = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return lambda: x @ y


def copy(kind: str, device: str, *, small: bool = False) -> float:
    """Bytes per second of a large copy; "copy" counts the bytes read and the bytes written."""
    n_bytes = _SMALL_BYTES if small else _BYTES
    pinned = device != "cpu" and kind != "copy"
    here = torch.zeros(n_bytes, dtype=torch.uint8, device=device)
    there = (
        torch.zeros(n_bytes, dtype=torch.uint8, pin_memory=True)
        if pinned
        else torch.zeros_like(here)
    )
    source, target = (here, there) if kind == "to host" else (there, here)
    seconds = median_seconds(lambda: target.copy_(source, non_blocking=True), device)
    return (2 if kind == "copy" else 1) * n_bytes / seconds


def median_seconds(
    call: Callable[[], object], device: str, *, repeats: int = _REPEATS, warm: int = 2
) -> float:
    """The median time of a call in seconds, by CUDA events on a GPU."""
    for _ in range(warm):
        call()
    if device == "cpu":
        times = []
        for _ in range(repeats):
            began = time.perf_counter()
            call()
            times.append(time.perf_counter() - began)
        return statistics.median(times)
    cuda: Any = torch.cuda  # parts of torch.cuda have no types
    marks = [cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    torch.cuda.synchronize()
    marks[0].record()
    for mark in marks[1:]:
        call()
        mark.record()
    torch.cuda.synchronize()
    times = [first.elapsed_time(second) for first, second in itertools.pairwise(marks)]
    return statistics.median(times) / 1e3
