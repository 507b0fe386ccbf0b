"""The jobs of `ktfast bench train`, and the clock that measures both sides."""

import multiprocessing
import os
import resource
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from ktfast.training.speed import matmul_peak, wait_for

CLASSES = 2000
POOL = 4  # side of the pooled map that becomes the features


class Job(NamedTuple):
    """One comparison.

    Attributes
    ----------
    title : str
        Name in the table.
    work : {"puzzle", "classes", "features"}
        Train on puzzles, train on classes, or extract features.
    trunk : {"vgg16", "alexnet"}
        The network.
    batches : tuple of (int, int)
        Images in a batch on a CPU and on a GPU.
    steps : tuple of (int, int)
        Timed steps on a CPU and on a GPU. On a CPU few steps suffice: a step is long, and only the
        first two steps differ from the others, because they allocate memory.
    warm_up : tuple of (int, int)
        Steps before the timed steps, on a CPU and on a GPU.
    width : float
        Factor of the network's widths.
    batch_norm : bool
        Whether the network has batch normalisation.
    tile, permutations : int
        Side of a tile in pixels, and size of the permutation set.
    units : tuple of (int, int)
        Widths of the two fully connected layers of the puzzle network.
    short_side, crop : int
        Shorter side of the resized images, and side of the square cut from them, in pixels.
    """

    title: str
    work: Literal["puzzle", "classes", "features"]
    trunk: Literal["vgg16", "alexnet"]
    batches: tuple[int, int]
    steps: tuple[int, int]
    warm_up: tuple[int, int] = (2, 2)
    width: float = 1.0
    batch_norm: bool = False
    tile: int = 64
    permutations: int = 701
    units: tuple[int, int] = (1024, 4096)
    short_side: int = 256
    crop: int = 255


JOBS = {
    "jigsaw": Job("VGG-16, Jigsaw++", "puzzle", "vgg16", (8, 256), (2, 10)),
    "alexnet": Job("AlexNet, pseudo-labels", "classes", "alexnet", (32, 256), (8, 15), crop=227),
    "features": Job("VGG-16 to conv4_3, features", "features", "vgg16", (8, 256), (2, 15)),
    "jigsaw-tiny": Job(
        "VGG-16 of tiny_cpu, Jigsaw++", "puzzle", "vgg16", (64, 512), (6, 30), width=0.25,
        batch_norm=True, tile=32, permutations=100, units=(256, 1024), short_side=128, crop=120,
    ),
    "alexnet-tiny": Job(
        "AlexNet of tiny_cpu, pseudo-labels", "classes", "alexnet", (64, 512), (30, 150), (4, 4),
        width=0.25, batch_norm=True, short_side=128, crop=112,
    ),
}  # fmt: skip
DEFAULT_JOBS = ("jigsaw", "alexnet", "features")


class Assignment(NamedTuple):
    """The work of one process, JSON values.

    Attributes
    ----------
    job : str
        Name in `JOBS`.
    images : str or list of str
        Folder of the shards, or the image files.
    device : str
        Device of the network.
    feed, way : str
        ktfast's feed, and how ktfast runs the network.
    threads : int
        Threads that compute, and threads that decode.
    batch, steps, warm_up : int
        Images in a batch, timed steps, and steps before the timed steps.
    """

    job: str
    images: Any
    device: str
    feed: str
    way: str
    threads: int
    batch: int
    steps: int
    warm_up: int


class Clock:
    """Measures seconds and CPU-seconds of the timed steps, worker processes included.

    Parameters
    ----------
    assignment : Assignment
        Says which steps are timed, and on which device.
    """

    def __init__(self, assignment: Assignment) -> None:
        self._first = assignment.warm_up
        self._last = assignment.warm_up + assignment.steps
        self._device = torch.device(assignment.device)
        self._batch = assignment.batch
        self._done = 0
        self._marks: list[tuple[float, float]] = []

    def restart(self) -> None:
        """Forget all steps."""
        self._done, self._marks = 0, []

    def step_done(self) -> None:
        """Tell the clock that the host has finished a step."""
        self._done += 1
        if self._done in (self._first, self._last):
            wait_for(self._device)
            self._marks.append((time.perf_counter(), _cpu_seconds()))

    def measured(self) -> dict[str, float]:
        """Images, seconds, CPU-seconds and peak memory of the timed steps."""
        (began, cpu_began), (ended, cpu_ended) = self._marks
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if self._device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self._device)
        return {
            "images": (self._last - self._first) * self._batch,
            "seconds": ended - began,
            "cpu_seconds": cpu_ended - cpu_began,
            "peak_bytes": peak,
        }


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a large matrix product; per CPU-second on a CPU."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    return matmul_peak(device, dtype, clock)


def _cpu_seconds() -> float:
    """CPU time of this process and its workers."""
    ticks = 0
    for worker in multiprocessing.active_children():
        fields = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # user and system
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")
