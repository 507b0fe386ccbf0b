"""The peak memory of a fit is at most 5 % above the data and the stated workspace."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ktfast

N, D, THREADS = 150_000, 96, 2
MIB = 1 << 20

PROGRAM = """
import sys, numpy as np
from ktfast import KMeans
path, dtype, k, init, spherical = sys.argv[1:]
def resident(field):
    for line in open("/proc/self/status"):
        if line.startswith(field):
            return 1024 * int(line.split()[1])
def fit(x, k):
    KMeans(k, init=init, n_init=1, random_state=0, max_iter=4, tol=0, n_threads=2,
           spherical=spherical == "True").fit(x)
fit(np.random.default_rng(0).normal(size=(2000, 96)).astype(dtype), 20)  # loads all libraries
before = resident("VmRSS")
fit(np.memmap(path, dtype, mode="r", shape=(150_000, 96)), int(k))
print(resident("VmHWM") - before)
"""


def stated_workspace(k, init, spherical):
    """The bytes that docs/explanation/memory.md states for a fit on a CPU."""
    rows = N * (200 + 256 + 32)
    centers = k * D * (120 if init == "k-means||" else 40)
    scaled = 4 * N * D if spherical else 0
    return rows + 4 * N * D // 8 + centers + THREADS * 9 * MIB + scaled


@pytest.mark.parametrize(
    ("dtype", "k", "init", "spherical"),
    [
        ("float32", 10, "random", False),
        ("float32", 600, "k-means||", False),
        ("float16", 600, "random", False),
        ("uint8", 10, "k-means||", False),
        ("float32", 10, "random", True),
    ],
)
def test_a_fit_keeps_to_its_workspace(dtype, k, init, spherical, tmp_path):
    x = np.random.default_rng(0).normal(size=(N, D)) * 20 + 100
    x.astype(dtype).tofile(tmp_path / "x")
    data = (tmp_path / "x").stat().st_size
    printed = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path / "x", dtype, str(k), init, str(spherical)],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",  # the ktfast of the checkout may not be built
        env=os.environ | {"PYTHONPATH": str(Path(ktfast.__file__).parents[1])},
    ).stdout
    stated = stated_workspace(k, init, spherical)
    assert int(printed) <= 1.05 * (data + stated), f"{int(printed) / MIB:.0f} MiB"
