"""Short trainings on real photographs; a section of gpu_measure.py, on top of ktfast.bench.train.

Photographs come with the call (--images), or are cut from those that ship with scikit-image and
scikit-learn. The torch feed reads them: a machine of this kind may lack DALI.
"""

import functools
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from gpu_compare import Job, Row
from gpu_device import Device

JOBS = ("jigsaw", "alexnet", "features")
DRY_JOBS = ("alexnet-tiny",)
JOB_SECONDS = 120.0  # of one process, which may compile the network
IMAGES, DRY_IMAGES = 2048, 12
WIDTH, HEIGHT = 500, 375  # px, as photographs of ImageNet and VOC
SKIMAGE = ("astronaut", "chelsea", "coffee", "retina", "rocket")
SKLEARN = ("china.jpg", "flower.jpg")


def training(device: Device, folder: Path | None) -> Iterator[Job]:
    with tempfile.TemporaryDirectory(prefix="ktfast-photographs-") as made:
        if folder is None:
            folder = Path(made)
            write_views(folder, DRY_IMAGES if device.small else IMAGES)
        for job in DRY_JOBS if device.small else JOBS:
            yield {"job": job}, functools.partial(measure, device, folder, job)


def write_views(folder: Path, count: int) -> None:
    """Views of real photographs, as many JPEG files."""
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
    """A row of the bench as one of the session's: medians alone, ktfast's problems are errors."""
    row: Row = {}
    for key, value in found.items():
        if isinstance(value, str | int | float):
            row[key] = value
        elif isinstance(value, list | tuple) and value and isinstance(value[0], int | float):
            row[key] = value[0]
        elif isinstance(value, dict) and "median" in value:
            row[key] = value["median"]
    if "problem" in row:
        row["error" if row.get("side") == "ktfast" else "instead"] = row.pop("problem")
    return row
