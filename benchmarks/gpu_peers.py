"""ktfast's K-means beside other libraries on the same GPU; sections of gpu_measure.py.

The engines and the harness are those of `ktfast bench kmeans --device cuda`.
"""

import functools
from collections.abc import Iterator

from gpu_compare import Job, Row
from gpu_device import Device
from gpu_kmeans import ROW_BYTES, K, N, text_of

from ktfast.bench.kmeans.gpu_engines import ENGINES, Problem

ITERATIONS = 5
FITS, FIT_SECONDS = 3, 5.0  # timed at most
ENGINE_SECONDS = 75.0  # whatever takes longer to load, compile and fit is stopped
# What the targets name comes first, should the time run out.
ORDER = ("ktfast", "flash-kmeans", "torch-bf16", "torch-host", "cuvs", "torch-tf32")
DRY_ENGINES = ("ktfast", "torch-fp32")
HELD = 2.2  # times x in float32: what the engines hold at most, x among it


def peers(device: Device, features: int) -> Iterator[Job]:
    d, k = (24, 70) if device.small else (features, K)
    # Every engine gets as many rows as the hungriest of them can hold.
    n = 700 if device.small else device.rows_that_fit(N, int(HELD * 4 * d) + ROW_BYTES)
    problem = Problem(f"mixture{d}", n, k, ITERATIONS, FITS, FIT_SECONDS, device.name)
    found: dict[str, float] = {}
    engines = dict.fromkeys((*ORDER, *ENGINES))
    for engine in DRY_ENGINES if device.small else engines:
        label = {"case": text_of((n, d, k)), "engine": engine}
        yield label, functools.partial(measure, engine, problem, found)


def measure(engine: str, problem: Problem, found: dict[str, float]) -> list[Row]:
    """The row of one engine; `found` keeps what ktfast's was, to compare with."""
    from ktfast.bench.kmeans.gpu import measured  # draws plots, which only peers need

    [row] = measured([engine], problem, {}, timeout=ENGINE_SECONDS)
    if "problem" in row:
        # That a peer is missing or breaks is a result; that ktfast does is a failure.
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
