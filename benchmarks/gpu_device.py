"""Where the cases of gpu_measure.py run, and the clock that times them.

Times are the device's own, by CUDA events: before each call the device is kept busy until the host
has queued the whole call, so neither launches nor Python are counted; `call_ms`, from calls back to
back, counts both. The calls take turns over input sets that together exceed the L2 cache several
times.
"""

import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence

import torch
from gpu_compare import Row, cuda

ROTATION = 4  # input sets together, in sizes of the L2 cache
CASE_SECONDS = 0.5  # measuring time of a case
REPEATS = (7, 51)
CLOCK_HZ = 2e9  # at least that of the multiprocessors, so that waiting is never too short


class Device:
    """Where the cases run, and its clock."""

    def __init__(self, name: str, *, small: bool) -> None:
        self.name = name
        self.on_gpu = name == "cuda"
        self.small = small
        self.cache = cuda.get_device_properties(0).L2_cache_size if self.on_gpu else 0
        self.random = torch.Generator(name)

    def sets(self, n_bytes: int) -> int:
        """The number of input sets of this size that the calls take turns over."""
        return 1 + ROTATION * self.cache // n_bytes

    def wait(self) -> None:
        if self.on_gpu:
            cuda.synchronize()

    def time(self, calls: Sequence[Callable[[], object]]) -> Row:
        """Median and quartiles of a call in ms, after a warm-up; results stay alive for a round."""
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
        """At most n rows, in whole tiles of 128, that a share of the free memory holds."""
        if not self.on_gpu:
            return n
        room = share * cuda.mem_get_info()[0] / bytes_per_row
        return min(n, int(room) // 128 * 128)
