"""ktfast's K-means beside other libraries on the same GPU; sections of measure.py.

The engines are those of bench_kmeans.py.
"""

import functools
from collections.abc import Iterator

from bench_kmeans import measured
from compare import Job, Row
from device import Device
from engines import ENGINES, Problem
from phases import ROW_BYTES, K, N, text_of

ITERATIONS = 5
FITS, FIT_SECONDS = 3, 5.0  # limits of the timed fits
ENGINE_SECONDS = 75.0  # limit for loading, compiling and fitting with one engine
# The engines that matter most come first, because the time may run out.
ORDER = ("ktfast", "flash-kmeans", "torch-bf16", "torch-host", "cuvs", "torch-tf32")
DRY_ENGINES = ("ktfast", "torch-fp32")
HELD = 2.2  # bytes that the hungriest engine holds, x included, as a multiple of x in float32


def peers(device: Device, features: int) -> Iterator[Job]:
    """A fit by every engine."""
    d, k = (24, 70) if device.small else (features, K)
    # All engines get the same rows, as many as the hungriest engine can hold.
    n = 700 if device.small else device.rows_that_fit(N, int(HELD * 4 * d) + ROW_BYTES)
    problem = Problem(f"mixture{d}", n, k, ITERATIONS, FITS, FIT_SECONDS, device.name)
    found: dict[str, float] = {}
    engines = dict.fromkeys((*ORDER, *ENGINES))
    for engine in DRY_ENGINES if device.small else engines:
        label = {"case": text_of((n, d, k)), "engine": engine}
        yield label, functools.partial(measure, engine, problem, found)


def measure(engine: str, problem: Problem, found: dict[str, float]) -> list[Row]:
    """The row of one engine; `found` keeps ktfast's time and inertia for the ratios."""
    [row] = measured([engine], problem, {}, timeout=ENGINE_SECONDS)
    if "problem" in row:
        # A missing or broken peer is a result; a broken ktfast is a failure.
        kind = "error" if engine.startswith("ktfast") else "instead"
        return [{kind: row["problem"]}]
    milliseconds = 1e3 * row["seconds_per_iteration"]
    if engine == "ktfast":
        found |= {"ms": milliseconds, "inertia": row["inertia"]}
    result: Row = {"ms": milliseconds, "ms_least": 1e3 * row["range"][0]}
    result |= {"ms_most": 1e3 * row["range"][1], "repeats": len(row["seconds"])}
    if found:
        result["ratio"] = milliseconds / found["ms"]
        result["inertia_ratio"] = row["inertia"] / found["inertia"]
    result |= {"tflop_per_s": row["flops"] * 1e-12, "peak": "matmul bfloat16"}
    result |= {"inertia": row["inertia"], "first_iteration_s": row["first_seconds"]}
    taken = row["device_bytes"]
    result["device_mib"] = None if taken is None else taken / 2**20
    return [result | {"version": row["version"], "note": row["note"]}]
