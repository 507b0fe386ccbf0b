"""Short trainings on real photographs by ktfast.bench.train; a section of measure.py.

The photographs are those of --images, or views of the photographs that scikit-image and
scikit-learn bring. The torch feed reads the photographs, because DALI may be missing.
"""

import functools
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from compare import Job, Row
from device import Device

JOBS = ("jigsaw", "alexnet", "features")
DRY_JOBS = ("alexnet-tiny",)
JOB_SECONDS = 120.0  # limit of one process, which may compile the network
IMAGES, DRY_IMAGES = 2048, 12
WIDTH, HEIGHT = 500, 375  # pixels, as most photographs of ImageNet and VOC
SKIMAGE = ("astronaut", "chelsea", "coffee", "retina", "rocket")
SKLEARN = ("china.jpg", "flower.jpg")


def training(device: Device, folder: Path | None) -> Iterator[Job]:
    """A training or an extraction per job, on the photographs of a folder or on made views."""
    with tempfile.TemporaryDirectory(prefix="ktfast-photographs-") as made:
        if folder is None:
            folder = Path(made)
            write_views(folder, DRY_IMAGES if device.small else IMAGES)
        for job in DRY_JOBS if device.small else JOBS:
            yield {"job": job}, functools.partial(measure, device, folder, job)


def write_views(folder: Path, count: int) -> None:
    """Write views of real photographs as JPEG files."""
    from PIL import Image
    from skimage import data
    from sklearn.datasets import load_sample_image

    photographs = [getattr(data, name)() for name in SKIMAGE]
    photographs += [load_sample_image(name) for name in SKLEARN]

    def write(number: int) -> None:
        rng = np.random.default_rng(number)
        image = Image.fromarray(photographs[number % len(photographs)]).convert("RGB")
        scale = rng.uniform(0.5, 1.0) * min(image.width / WIDTH, image.height / HEIGHT)
        width, height = scale * WIDTH, scale * HEIGHT
        x, y = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
        view = image.resize((WIDTH, HEIGHT), box=(x, y, x + width, y + height))
        view.save(folder / f"view-{number:04d}.jpg", quality=90)

    with ThreadPoolExecutor() as threads:
        list(threads.map(write, range(count)))


def measure(device: Device, folder: Path, job: str) -> list[Row]:
    from ktfast.bench.train.command import measure as bench

    record = bench(
        folder=folder,
        jobs=(job,),
        device=device.name,
        feed="torch",
        rounds=1,
        images=DRY_IMAGES if device.small else IMAGES,
        steps=1 if device.small else 0,
        batch=4 if device.small else 0,
        timeout=JOB_SECONDS,
    )
    return [row_of(found) for found in record["rows"]]


def row_of(found: Row) -> Row:
    """A row for the session: medians only, and an error if ktfast's side failed."""
    row: Row = {}
    for key, value in found.items():
        if isinstance(value, str | int | float):
            row[key] = value
        elif isinstance(value, list | tuple) and value and isinstance(value[0], int | float):
            row[key] = value[0]
    if "problem" in row:
        row["error" if row.get("side") == "ktfast" else "instead"] = row.pop("problem")
    return row
