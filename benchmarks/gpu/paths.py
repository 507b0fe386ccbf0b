"""A small assignment in every code and on every product path; a section of measure.py.

The labels and the numbers of candidates are stored. So a wrong layout, a failed launch or a hang
shows within seconds, before anything is measured. Right labels alone do not prove the products,
because the kernels compare undecided rows exactly: wrong products leave more candidates.
"""

import functools
import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from compare import Job, Row
from device import Device

ROWS, CLUSTERS, FEATURES = 400, 300, 70
LABELS = "f5049efc"  # first digits of the SHA-256 of the labels, int32
# Candidates of all rows without and with a guess, counted by the emulated GPU.
CANDIDATES = {"int8": (622, 496), "float16": (406, 402)}
# Products of float16, and fused operations, are rounded differently on each GPU.
MARGIN = 2
PATHS = ("fastest", "mma")


def paths(device: Device) -> Iterator[Job]:
    """A row per code and path; without a GPU there is nothing to run."""
    if not device.on_gpu:
        yield {"code": "all"}, lambda: [{"instead": "the paths need a GPU"}]
        return
    for path in PATHS:
        for code in CANDIDATES:
            yield {"code": code, "path": path}, functools.partial(assign, device.name, code, path)


def inputs() -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Rows float32 of overlapping clusters, and centres float64; the same on every machine."""
    random = np.random.default_rng(5)
    centers = random.random((CLUSTERS, FEATURES)) - 0.5
    spread = random.random((ROWS, FEATURES)) - 0.5
    x = 0.2 * centers[random.integers(0, CLUSTERS, ROWS)] + spread
    return x.astype(np.float32), centers


def assign(device: str, code: str, path: str) -> list[Row]:
    """Assign without guesses, and again with the labels as guesses."""
    from ktfast.ops.kmeans_tensor import TensorScreen

    x, centers = (torch.tensor(array, device=device) for array in inputs())
    screen = TensorScreen(x.mean(0), code, like=x)
    prepared = screen.prepare(centers)
    labels = torch.full((ROWS,), -1, dtype=torch.int32, device=device)
    distances = torch.empty(ROWS, dtype=torch.float64, device=device)
    rows = []
    for guessed in (False, True):
        passed = torch.zeros(1, dtype=torch.int64, device=device)
        screen.assign(
            x, centers, prepared, labels, distances, guessed=guessed, n_passed=passed, path=path
        )
        found, stored = int(passed.cpu()[0]), CANDIDATES[code][guessed]
        digest = hashlib.sha256(labels.cpu().numpy().tobytes()).hexdigest()
        row: Row = {"guessed": guessed, "labels": digest[: len(LABELS)] == LABELS}
        row |= {"candidates": found, "stored": stored}
        row["found"] = row["labels"] and abs(found - stored) <= MARGIN
        rows.append(row)
    return rows
