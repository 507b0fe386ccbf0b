"""Short trainings and K-means of features in one process; a section of measure.py.

The section shows that a whole run works on the device, in little time. `train.py` measures the same
trainings longer, beside plain scripts.
"""

import functools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from compare import Job, Row
from device import Device
from train import write_views

JOBS, DRY_JOBS = ("jigsaw", "alexnet"), ("alexnet-tiny",)
IMAGES, DRY_IMAGES = 1024, 24
STEPS, WARM_UP = 3, 2
CLUSTERS, DRY_CLUSTERS = 100, 3
SIDE, DRY_SIDE = 255, 96
POOL = 4


def end_to_end(device: Device, folder: Path | None) -> Iterator[Job]:
    """A training per job, and a fit of features, on the photographs of a folder or on views."""
    with tempfile.TemporaryDirectory(prefix="ktfast-photographs-") as made:
        if folder is None:
            folder = Path(made)
            write_views(folder, DRY_IMAGES if device.small else IMAGES)
        for job in DRY_JOBS if device.small else JOBS:
            yield {"job": job}, functools.partial(train, device, folder, job)
        yield {"job": "K-means of features"}, functools.partial(cluster, device, folder)


def train(device: Device, folder: Path, name: str) -> list[Row]:
    """A few steps of a training by ktfast.bench.train, without compilation."""
    from ktfast.bench.core.photographs import prepared, sample
    from ktfast.bench.train import ours
    from ktfast.bench.train.jobs import JOBS as ALL
    from ktfast.bench.train.jobs import Assignment
    from ktfast.native.threads import usable_cores

    job = ALL[name]
    batch = 4 if device.small else job.batches[1]
    steps = 1 if device.small else STEPS
    index = sample(folder, DRY_IMAGES if device.small else IMAGES)
    with tempfile.TemporaryDirectory(prefix="ktfast-shards-") as shards:
        prepared(index, Path(shards), short_side=job.short_side)
        work = Assignment(
            name, shards, device.name, "torch", "plain", usable_cores(), batch, steps, WARM_UP
        )
        found = ours.run(**work._asdict())
    rate = found["images"] / found["seconds"]
    row: Row = {"batch": batch, "steps": steps, "images_per_s": rate}
    row["share_of_peak"] = rate * found["image_flops"] / found["peak_flops"]
    return [row | {key: found[key] for key in ("precision", "way", "feed")}]


def cluster(device: Device, folder: Path) -> list[Row]:
    """K-means of features of VGG-16's trunk, beside the fit of the same features on the CPU."""
    from ktfast import KMeans

    began = time.perf_counter()
    x = features(device, folder)
    made = time.perf_counter()
    k = DRY_CLUSTERS if device.small else CLUSTERS
    precision = "float16" if device.on_gpu else "exact"
    fits = [
        KMeans(k, init=rows[:k], max_iter=10, tol=0, precision=name).fit(rows)
        for rows, name in ((x, precision), (x.cpu(), "exact"))
    ]
    labels, twins = (torch.as_tensor(model.labels_).cpu() for model in fits)
    row: Row = {"rows": len(x), "features": x.shape[1], "clusters": k}
    row |= {"features_s": made - began, "iterations": fits[0].n_iter_}
    row["ms"] = 1e3 * sum(step["seconds"] for step in fits[0].history_) / fits[0].n_iter_
    return [row | {"inertia": fits[0].inertia_, "equal": float((labels == twins).double().mean())}]


def features(device: Device, folder: Path) -> torch.Tensor:
    """Pooled features float32 [n, d] of the last layer of a trunk with random weights."""
    from PIL import Image

    from ktfast.config import PretextConfig
    from ktfast.features.teachers import trunk_teacher
    from ktfast.models import initialize
    from ktfast.pipeline.steps.networks import pretext_trunk

    torch.manual_seed(0)
    trunk = pretext_trunk(PretextConfig(width=0.25 if device.small else 1.0))
    initialize(trunk)
    trunk.to(device.name).eval()
    teacher = trunk_teacher(trunk, trunk.layers[-1], pool=POOL, pooling="max")
    side = DRY_SIDE if device.small else SIDE
    found = []
    files = sorted(folder.rglob("*.jpg"))[: DRY_IMAGES if device.small else IMAGES]
    for first in range(0, len(files), 128):
        views = [
            np.asarray(Image.open(path).convert("RGB").crop((0, 0, side, side)))
            for path in files[first : first + 128]
        ]
        with torch.inference_mode():
            images = torch.from_numpy(np.stack(views)).to(device.name)
            found.append(teacher(images).float().flatten(1))
    return torch.cat(found).clone()
