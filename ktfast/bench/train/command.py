"""`ktfast bench train`: trainings and feature extraction, beside a plain torch script.

Both sides do the same work on the same photographs, each in a process of its own, and take turns.
ktfast reads prepared shards; the plain script (`plain.py`) reads the original files.
"""

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ktfast.bench.core.machine import stamp
from ktfast.bench.core.options import add_numbers, add_out, add_timeout, natural
from ktfast.bench.core.photographs import prepared, sample
from ktfast.bench.core.row import run_row
from ktfast.bench.train.images import write_images
from ktfast.bench.train.jobs import DEFAULT_JOBS, JOBS, Assignment
from ktfast.bench.train.report import METHOD, report
from ktfast.bench.train.rows import rows_of
from ktfast.errors import InputError
from ktfast.images.index import ImageIndex
from ktfast.native.threads import n_threads
from ktfast.remote import argument_path

SIDES = {"plain": "ktfast.bench.train.plain:run", "ktfast": "ktfast.bench.train.ours:run"}
PACKAGES = ("torch", "torchvision", "pillow", "nvidia-dali-cuda130")
FEEDS = ("auto", "dali", "torch")
WAYS = ("auto", "plain", "graphs", "compiled", "compiled graphs")
IMAGES, GPU_BATCHES = 512, 20
"""Images unless ``--images`` is given. On a GPU the number is a multiple of the largest batch, so
that neither side reaches the end of an epoch while it is timed."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the sub-command."""
    parser.add_argument(
        "folder",
        type=argument_path,
        nargs="?",
        help="photographs, at any depth (default: generate JPEG files)",
    )
    parser.add_argument(
        "--jobs",
        default=",".join(DEFAULT_JOBS),
        metavar="JOB,...",
        help=f"jobs to measure, of {', '.join(JOBS)} (default: %(default)s)",
    )
    choices = (
        ("device", ("auto", "cpu", "cuda"), "device of both sides"),
        ("feed", FEEDS, "ktfast's feed"),
        ("way", WAYS, "how ktfast runs the network"),
    )
    for name, values, text in choices:
        parser.add_argument(
            f"--{name}", choices=values, default="auto", help=f"{text} (default: %(default)s)"
        )
    numbers = (
        ("threads", 0, "CPU threads that compute, and CPU threads that decode; 0: one per core"),
        ("rounds", 2, "rounds; both sides run once in each round"),
        ("images", 0, f"largest number of images; 0: {IMAGES}, on a GPU {GPU_BATCHES} batches"),
        ("batch", 0, "images in a batch; 0: each job's own number"),
        ("steps", 0, "timed steps; 0: each job's own number"),
    )
    add_numbers(parser, numbers, natural)
    add_timeout(parser, 600.0, "a process")
    add_out(parser, "bench/train")


def run(options: argparse.Namespace) -> int:
    """Measure, print and save the table; returns the exit status."""
    options.out.mkdir(parents=True, exist_ok=True)  # fails now, not after minutes of measuring
    values = {
        name: getattr(options, name)
        for name in (
            "device", "feed", "way", "threads", "rounds", "images", "batch", "steps", "timeout",
        )
    }  # fmt: skip
    names = [name for name in options.jobs.split(",") if name]
    report(measure(options.folder, jobs=names, **values), options.out)
    return 0


def measure(
    folder: Path | None = None,
    *,
    jobs: Sequence[str] = DEFAULT_JOBS,
    device: str = "auto",
    feed: str = "auto",
    way: str = "auto",
    threads: int = 0,
    rounds: int = 2,
    images: int = 0,
    batch: int = 0,
    steps: int = 0,
    timeout: float = 600.0,
) -> dict[str, Any]:
    """Measure both sides of every job.

    Parameters
    ----------
    folder : Path, optional
        Photographs, at any depth. None generates JPEG files.
    jobs : sequence of str, optional
        Names in `JOBS`.
    device : {"auto", "cpu", "cuda"}, optional
        Device of both sides.
    feed : {"auto", "dali", "torch"}, optional
        Feed of ktfast's side; "auto" takes DALI where it is installed.
    way : str, optional
        How ktfast's side runs the network, one of `WAYS`.
    threads : int, optional
        Threads that compute, and threads that decode. 0 means one for each core.
    rounds : int, optional
        Rounds; both sides run once in each round.
    images, batch, steps : int, optional
        Number of images, images in a batch, and timed steps. 0 means the job's own number.
    timeout : float, optional
        Seconds after which a process is ended.

    Returns
    -------
    record : dict
        The figures as JSON. "rows" holds a row for each job and side, from `rows.rows_of`.

    Raises
    ------
    InputError
        A job, device, feed or way is unknown, or there are too few images.
    DataError
        An image cannot be decoded, or the sides did not do the same work.
    """
    for name in jobs:
        if name not in JOBS:
            raise InputError(f"jobs: {name} is unknown; there are {', '.join(JOBS)}")
    for option, value, values in (("feed", feed, FEEDS), ("way", way, WAYS)):
        if value not in values:
            raise InputError(f"{option}: {value} is unknown; there are {', '.join(values)}")
    device = _device(device)
    given = Assignment("", None, device, feed, way, threads or n_threads(), batch, steps, 0)
    images = images or _images(jobs, given)
    with tempfile.TemporaryDirectory(prefix="ktfast-bench-") as place:
        if folder is None:
            write_images(Path(place) / "files", images)
        index = sample(folder or Path(place) / "files", images)
        record: dict[str, Any] = {
            **stamp(PACKAGES),
            "images": index.n,
            "generated": folder is None,
            "file_bytes": float(index.sizes.mean()),
            "device": device,
            "threads": given.threads,
            "rounds": max(1, rounds),
            "method": " ".join(METHOD.splitlines()),
            "rows": [],
        }
        for name in jobs:
            assignment = _assignment(name, index.n, given)
            turns = _turns(index, Path(place), assignment, record["rounds"], timeout)
            record["rows"] += rows_of(JOBS[name], assignment, turns)
    return record


def _device(name: str) -> str:
    import torch

    found = "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("auto", "cpu", "cuda"):
        raise InputError(f"device: {name} is unknown; there are auto, cpu, cuda")
    if name == "cuda" and found == "cpu":
        raise InputError("device cuda: torch finds no CUDA device")
    return found if name == "auto" else name


def _images(jobs: Sequence[str], given: Assignment) -> int:
    """The number of images unless ``--images`` is given."""
    if given.device == "cpu":
        return IMAGES
    return GPU_BATCHES * max((given.batch or JOBS[name].batches[1] for name in jobs), default=1)


def _assignment(name: str, n: int, given: Assignment) -> Assignment:
    """The work of both sides; the job's own numbers stand in for options that were left at 0."""
    job, on_gpu = JOBS[name], given.device == "cuda"
    batch = given.batch or job.batches[on_gpu]
    steps, warm_up = given.steps or job.steps[on_gpu], job.warm_up[on_gpu]
    if job.work == "features":  # the extraction reads each image once
        steps = min(steps, n // batch - warm_up)
    if n < 2 * batch or steps < 1:
        raise InputError(
            f"{n} images are too few for batches of {batch} ({name}); give a larger folder, more"
            " --images or a smaller --batch"
        )
    return given._replace(job=name, batch=batch, steps=steps, warm_up=warm_up)


def _turns(
    index: ImageIndex, place: Path, assignment: Assignment, rounds: int, timeout: float
) -> dict[str, list[dict[str, Any]]]:
    """The results of both sides' processes, a list for each side."""
    job = JOBS[assignment.job]
    shards = place / f"side-{job.short_side}"  # jobs of one size share their shards
    prepared(index, shards, short_side=job.short_side)
    images = {
        "plain": [str(index.root / path) for path in index.paths],
        "ktfast": str(shards),
    }
    # The command line sets this variable for every training.
    huge_pages = {"THP_MEM_ALLOC_ENABLE": os.environ.get("THP_MEM_ALLOC_ENABLE", "1")}
    turns: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(rounds):
        for side in SIDES:
            turns[side].append(
                run_row(
                    SIDES[side],
                    assignment._replace(images=images[side])._asdict(),
                    threads=assignment.threads,
                    environment=huge_pages if side == "ktfast" else None,
                    timeout=timeout,
                )
            )
    return turns
