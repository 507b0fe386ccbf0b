"""The device that runs the cases of measure.py, and its clock.

CUDA events measure the times. Before each call the device is kept busy until the host has queued
the whole call, so that the time of launches and of Python is not counted. `call_ms` is the time of
calls back to back, including launches and Python. The calls take turns over several sets of inputs
that together exceed the L2 cache several times.
"""

import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence

import torch
from compare import Row, cuda

ROTATION = 4  # size of all input sets together, as a multiple of the L2 cache
CASE_SECONDS = 0.5  # time of all repeats of a case
REPEATS = (7, 51)  # least and largest number of repeats
CLOCK_HZ = 2e9  # at least the multiprocessors' clock, so that the device is busy long enough


class Device:
    """The device that runs the cases, and its clock."""

    def __init__(self, name: str, *, small: bool) -> None:
        self.name = name
        self.on_gpu = name == "cuda"
        self.small = small
        self.cache = cuda.get_device_properties(0).L2_cache_size if self.on_gpu else 0
        self.random = torch.Generator(name)

    def sets(self, n_bytes: int) -> int:
        """The number of input sets of this size that together exceed the L2 cache."""
        return 1 + ROTATION * self.cache // n_bytes

    def wait(self) -> None:
        if self.on_gpu:
            cuda.synchronize()

    def time(self, calls: Sequence[Callable[[], object]]) -> Row:
        """Time calls after a warm-up.

        The results of a round stay alive, so that the next call cannot get the same memory.

        Parameters
        ----------
        calls : sequence of callable
            The same call on each set of inputs.

        Returns
        -------
        row : dict
            Median "ms" of a call with its quartiles, "call_ms", "repeats" and "input_sets".
        """
        kept: deque[object] = deque(maxlen=len(calls))
        for call in calls:
            kept.append(call())
        self.wait()
        began = time.perf_counter()
        for call in calls:
            kept.append(call())
        queued = (time.perf_counter() - began) / len(calls)
        self.wait()
        each = (time.perf_counter() - began) / len(calls)
        low, high = (3, 3) if self.small else REPEATS
        repeats = min(max(int(CASE_SECONDS / each), low), high)
        clock = self._events if self.on_gpu else self._host_clock
        times = clock([calls[i % len(calls)] for i in range(repeats)], kept, queued)
        quartiles = statistics.quantiles(times, n=4)
        names = ("ms_quartile_1", "ms", "ms_quartile_3")
        return dict(zip(names, quartiles, strict=True)) | {
            "call_ms": each * 1e3,
            "repeats": repeats,
            "input_sets": len(calls),
        }

    def _events(
        self, calls: Sequence[Callable[[], object]], kept: deque[object], queued: float
    ) -> list[float]:
        busy = int(min(2 * queued, 0.05) * CLOCK_HZ)
        pairs = []
        for call in calls:
            start, end = (cuda.Event(enable_timing=True) for _ in range(2))
            cuda._sleep(busy)
            start.record()
            kept.append(call())
            end.record()
            pairs.append((start, end))
        self.wait()
        return [start.elapsed_time(end) for start, end in pairs]

    def _host_clock(
        self, calls: Sequence[Callable[[], object]], kept: deque[object], _: float
    ) -> list[float]:
        times = []
        for call in calls:
            start = time.perf_counter()
            kept.append(call())
            times.append((time.perf_counter() - start) * 1e3)
        return times

    def rows_that_fit(self, n: int, bytes_per_row: int, share: float = 0.85) -> int:
        """The number of rows that fit into a share of the free memory: n, or a multiple of 128."""
        if not self.on_gpu:
            return n
        room = share * cuda.mem_get_info()[0] / bytes_per_row
        return min(n, int(room) // 128 * 128)
