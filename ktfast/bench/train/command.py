"""`ktfast bench train`: trainings and feature extraction, beside the script one would write.

Both sides do the same work on the same photographs, each in a process of its own, in turns: ktfast
from prepared shards, the plain script (`train_plain`) from the original files.
"""

import argparse
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ktfast.bench.core.harness import machine, run_row
from ktfast.bench.train.images import write_images
from ktfast.bench.train.jobs import DEFAULT_JOBS, JOBS, Assignment, Job
from ktfast.bench.train.report import METHOD, report
from ktfast.bench.train.rows import rows_of
from ktfast.errors import DataError, InputError
from ktfast.images.index import ImageIndex
from ktfast.images.prepare import prepare
from ktfast.native.threads import n_threads

SIDES = {"plain": "ktfast.bench.train.plain:run", "ktfast": "ktfast.bench.train.ours:run"}
PACKAGES = ("torch", "torchvision", "pillow", "nvidia-dali-cuda130")
FEEDS = ("auto", "dali", "torch")
WAYS = ("auto", "plain", "graphs", "compiled", "compiled graphs")
IMAGES, GPU_BATCHES = 512, 20
"""Images unless asked otherwise; on a GPU so many batches of the largest job, so that neither side
comes to the end of an epoch while it is timed."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the sub-command."""
    parser.add_argument(
        "folder",
        type=Path,
        nargs="?",
        help="photographs, at any depth (default: JPEG files are generated)",
    )
    parser.add_argument(
        "--jobs",
        default=",".join(DEFAULT_JOBS),
        metavar="JOB,...",
        help=f"of {', '.join(JOBS)} (default: %(default)s)",
    )
    choices = (
        ("device", ("auto", "cpu", "cuda"), "where both sides run"),
        ("feed", FEEDS, "ktfast's feed"),
        ("way", WAYS, "how ktfast runs the network"),
    )
    for name, values, text in choices:
        parser.add_argument(
            f"--{name}", choices=values, default="auto", help=f"{text} (default: %(default)s)"
        )
    numbers = (
        ("threads", 0, "CPU threads that compute, and as many that decode; 0: one a core"),
        ("rounds", 2, "times that both sides take their turn"),
        ("images", 0, f"at most so many images; 0: {IMAGES}, on a GPU {GPU_BATCHES} batches"),
        ("batch", 0, "images in a batch; 0: each job's own"),
        ("steps", 0, "timed steps; 0: each job's own"),
    )
    for name, default, text in numbers:
        parser.add_argument(
            f"--{name}", type=_natural, default=default, help=f"{text} (default: %(default)s)"
        )
    parser.add_argument(
        "--timeout",
        type=float,
        default=600.0,
        metavar="SECONDS",
        help="stop a process after this long (default: %(default)s)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("bench/train"), help="folder (default: %(default)s)"
    )


def _natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must not be negative, got {value}")
    return value


def run(options: argparse.Namespace) -> int:
    """Measure, print and save the table; returns the exit status."""
    options.out.mkdir(parents=True, exist_ok=True)  # or it would be known only after minutes
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
    folder : photographs, at any depth; None: JPEG files are generated.
    jobs : names in `JOBS`.
    device : "auto", "cpu" or "cuda".
    feed : of ktfast's side: "auto" (DALI where it is installed), "dali" or "torch".
    way : how ktfast's side runs the network, one of `WAYS`.
    threads : that compute, and as many that decode; 0: one for each core.
    rounds : times that both sides take their turn.
    images, batch, steps : images in all and in a batch, timed steps; 0: the job's own.
    timeout : seconds until a process is ended.

    Returns
    -------
    the figures as JSON, a row for each job and side in ``rows`` (`train_rows`).

    Raises
    ------
    InputError : a job, device, feed or way is unknown, or the images are too few.
    DataError : an image cannot be decoded, or both sides did not do the same work.
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
        index = ImageIndex.scan(folder or Path(place) / "files", labels="none")
        rows = np.unique(np.linspace(0, index.n - 1, images).astype(np.int64))
        index = index.take(rows)
        record: dict[str, Any] = {
            "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            "command": shlex.join(["ktfast", *sys.argv[1:]]),
            "machine": machine(PACKAGES),
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
    """How many images are used if nobody says so."""
    if given.device == "cpu":
        return IMAGES
    return GPU_BATCHES * max((given.batch or JOBS[name].batches[1] for name in jobs), default=1)


def _assignment(name: str, n: int, given: Assignment) -> Assignment:
    """What both sides are to do; the options that were left open are the job's."""
    job, on_gpu = JOBS[name], given.device == "cuda"
    batch = given.batch or job.batches[on_gpu]
    steps, warm_up = given.steps or job.steps[on_gpu], job.warm_up[on_gpu]
    if job.work == "features":  # each image is read once
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
    """What the processes of both sides found, a list for each side."""
    images = {
        "plain": [str(index.root / path) for path in index.paths],
        "ktfast": str(_prepared(index, place, JOBS[assignment.job])),
    }
    # As the command line sets it for every training.
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


def _prepared(index: ImageIndex, place: Path, job: Job) -> Path:
    """Shards of the images as the job wants them, made once."""
    folder = place / f"side-{job.short_side}"
    shards = prepare(index, folder, short_side=job.short_side)
    if shards.skipped:
        image = shards.skipped[0]
        raise DataError(
            f"{len(shards.skipped)} of the images cannot be decoded, the first is {image.path}"
            f" ({image.reason}); choose another folder"
        )
    return folder
