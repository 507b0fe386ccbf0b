"""A run folder as a finished run leaves it, filled with real photographs and made-up figures."""

import json
import math
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

CELL, TILE, GRID = 60, 44, 3
N_CLUSTERS = 60
LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5")
LINEAR = {
    "transfer": (0.172, 0.241, 0.268, 0.259, 0.231),
    "random": (0.151, 0.189, 0.186, 0.171, 0.148),
    "pretext": (0.168, 0.228, 0.247, 0.236, 0.198),
    "labels": (0.201, 0.322, 0.418, 0.457, 0.471),
}

# The layers that held-out training images choose. That of transfer is not the best on test images.
CHOSEN = {"transfer": "conv4", "random": "conv2", "pretext": "conv3", "labels": "conv5"}


def photographs(n: int, side: int, seed: int) -> np.ndarray:
    """Random squares of several photographs, resized, uint8 [n, side, side, 3]."""
    sources = [
        skimage.data.astronaut(),
        skimage.data.coffee(),
        skimage.data.chelsea(),
        skimage.data.rocket(),
        skimage.data.hubble_deep_field(),
    ]
    generator = np.random.default_rng(seed)
    pictures = []
    for k in range(n):
        source = sources[k % len(sources)]
        edge = int(generator.integers(min(source.shape[:2]) // 2, min(source.shape[:2])))
        y, x = (int(generator.integers(size - edge + 1)) for size in source.shape[:2])
        cut = Image.fromarray(source[y : y + edge, x : x + edge])
        pictures.append(np.asarray(cut.resize((side, side), Image.Resampling.BILINEAR)))
    return np.stack(pictures)


def puzzle_arrays(n: int = 6, seed: int = 0) -> dict[str, np.ndarray]:
    """Puzzles cut from photographs, with every choice that was made."""
    generator = np.random.default_rng(seed)
    side, n_tiles = CELL * GRID, GRID**2
    images = photographs(n, side, seed)
    cells = np.stack([generator.permutation(n_tiles) for _ in range(n)]).astype(np.int32)
    offsets = np.repeat(generator.integers(0, CELL - TILE - 2, (n, n_tiles, 1, 2)), 3, 2)
    offsets = (offsets + generator.integers(0, 3, offsets.shape)).astype(np.int32)
    occluded = np.zeros((n, n_tiles), np.uint8)
    gray = (np.arange(n) % 2).astype(np.uint8)
    tiles = np.empty((n, n_tiles, TILE, TILE, 3), np.uint8)
    for b in range(n):
        occluded[b, generator.permutation(n_tiles)[: b % 3]] = 1
        for slot, cell in enumerate(cells[b]):
            source = images[(b + 1) % n] if occluded[b, slot] else images[b]
            for channel in range(3):
                y, x = np.array(divmod(cell, GRID)) * CELL + offsets[b, slot, channel]
                tiles[b, slot, ..., channel] = source[y : y + TILE, x : x + TILE, channel]
    tiles[gray == 1] = tiles[gray == 1].mean(-1, keepdims=True).astype(np.uint8)
    wide = tiles.astype(np.float32)
    mean, std = wide.mean((2, 3, 4), keepdims=True), wide.std((2, 3, 4), keepdims=True)
    tiles = np.clip((wide - mean) / np.maximum(std, 1) * 63.75 + 127.5, 0, 255).astype(np.uint8)
    return {
        "tiles": tiles,
        "labels": generator.integers(0, 701, n),
        "images": images,
        "cells": cells,
        "offsets": offsets,
        "occluded": occluded,
        "gray": gray,
    }


def make_run(folder: Path) -> Path:
    """Fill a folder like a run of all stages."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(CONFIG)
    write(folder / "environment.json", ENVIRONMENT)
    skipped = [
        ["accordion/image_0031.jpg", "empty file"],
        ["watch/zifferblatt <b>öffnen & schließen</b>.jpg", "image file is truncated (12 bytes)"],
        ["weird/" + "very_long_name_" * 12 + ".png", "cannot identify image file"],
    ]
    prepared = {"folder": "/data/caltech101/train", "images": 5784, "classes": 101}
    result(folder, "prepare/pretext", 31.2, ("images/s", 185.3), {**prepared, "skipped": skipped})
    prepared = {"folder": "/data/caltech101/test", "images": 2845, "classes": 101}
    result(folder, "prepare/test", 15.9, ("images/s", 178.9), {**prepared, "skipped": []})
    _pretext(folder)
    result(
        folder, "features/pretext", 44.0, ("images/s", 131.5),
        {"rows": 5784, "dim": 2048, "dtype": "float16", "source": "pretext"},
    )  # fmt: skip
    _cluster(folder)
    result(folder, "transfer", 1684.0, ("images/s", 251.0), {"accuracy": 0.71, "loss": 1.02})
    result(folder, "baseline_pretext", 1409.0, ("images/s", 302.0), {"accuracy": 0.55})
    result(folder, "baseline_labels", 1655.0, ("images/s", 255.4), {"accuracy": 0.93})
    result(folder, "evaluate", 312.4, None, evaluation())
    for protocol in ("classification", "detection", "segmentation"):
        result(folder, f"voc/{protocol}", 880.0, None, voc(protocol))
    rows = curve("pretext", 1500, math.log(701), 1.35, 0.71)
    rows += curve("transfer", 900, math.log(N_CLUSTERS), 0.9, 0.74)
    rows += curve("baseline_pretext", 700, math.log(701), 2.1, 0.55)
    rows += curve("retrain_random_conv5", 900, math.log(101), 4.1, 0.12)
    rows += curve("voc_detection_transfer", 900, 3.0, 0.8, 0.8)
    rows += curve("baseline_labels", 900, math.log(101), 0.3, 0.93)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def evaluation() -> dict[str, object]:
    """Summary of the evaluate stage."""
    linear = {name: dict(zip(LAYERS, row, strict=True)) for name, row in LINEAR.items()}
    knn = {name: {key: 0.82 * value for key, value in row.items()} for name, row in linear.items()}
    return {
        "metric": "mean per-class accuracy",
        "models": list(linear),
        "linear": linear,
        "linear_top1": {
            name: {key: value + 0.11 for key, value in row.items()} for name, row in linear.items()
        },
        "knn": knn,
        "low_label": [
            {
                "fraction": 0.01,
                "images": 101,
                "linear": {
                    name: {key: value / 3 for key, value in row.items()}
                    for name, row in linear.items()
                },
            }
        ],
        "retrained": {
            name: {key: value + 0.1 for key, value in row.items()} for name, row in linear.items()
        },
        "protocol": {"normalisation": "standardise", "optimiser": "sgd", "epochs": 30, "crops": 1},
        "retrained_protocol": {"epochs": 20, "epoch_reported": "last", "crops": 1},
        "random_clusters": {"nmi": 0.371, "purity": 0.142},
        "linear_held_out": {
            name: {key: value + 0.02 for key, value in row.items()} | {CHOSEN[name]: 0.9}
            for name, row in linear.items()
        },
        "knn_held_out": knn,
    }


def voc(protocol: str) -> dict[str, object]:
    """Summary of a protocol of the stage voc."""
    start = {"classification": 0.699, "detection": 0.55, "segmentation": 0.4}[protocol]
    names = ("aeroplane", "bicycle", "bird", "boat", "person", "train")
    models = {}
    for name, loss in (("transfer", 0.0), ("random", 0.166), ("labels", -0.1)):
        values: dict[str, float | None] = {
            key: start - loss + 0.03 * k - 0.08 for k, key in enumerate(names)
        }
        values["boat"] = None
        options = {"proposals": "windows", "short_sides": [480, 600]}
        area = {} if protocol == "segmentation" else {"mean_area": start - loss + 0.02}
        models[name] = {
            "score": start - loss,
            "classes": values,
            **area,
            "areas": {key: value and value + 0.02 for key, value in values.items()} if area else {},
            "steps": 80000,
            "protocol": options if protocol == "detection" else {"test_crops": 10},
        }
    return {"measure": f"mean of {protocol}", "models": models, "images": {"train": 9, "test": 8}}


def curve(stage: str, steps: int, start: float, end: float, accuracy: float) -> list[dict]:
    """Noisy rows of metrics.jsonl, one every ten steps."""
    generator = np.random.default_rng(steps)
    rows = []
    for step in range(10, steps + 1, 10):
        done = 1 / (1 + math.exp(-9 * (step / steps - 0.35)))
        rows.append(
            {
                "time": 1.77e9 + step,
                "stage": stage,
                "step": step,
                "epoch": step / 90,
                "loss": start + (end - start) * done + float(generator.normal(0, 0.09)),
                "accuracy": float(np.clip(accuracy * done + generator.normal(0, 0.02), 0, 1)),
                "learning_rate": 0.05,
                "images_per_second": 180 + float(generator.normal(0, 6)),
                "loader_wait": 0.021,
            }
        )
    return rows


def result(
    folder: Path, stage: str, seconds: float, rate: tuple[str, float] | None, summary: dict
) -> None:
    """Write a stage's result.json."""
    (folder / stage).mkdir(parents=True, exist_ok=True)
    value = {
        "stage": stage,
        "started": 1.77e9,
        "seconds": seconds,
        "throughput": rate and {"unit": rate[0], "value": rate[1]},
        "summary": summary,
    }
    write(folder / stage / "result.json", value)


def write(path: Path, value: object) -> None:
    """Write JSON."""
    path.write_text(json.dumps(value))


def _pretext(folder: Path) -> None:
    summary = {"accuracy": 0.706, "chance": 1 / 701, "loss": 1.34, "n_permutations": 701}
    result(folder, "pretext", 2410.0, ("images/s", 181.0), summary)
    np.savez_compressed(folder / "pretext/examples.npz", **puzzle_arrays())


def _cluster(folder: Path) -> None:
    generator = np.random.default_rng(1)
    shares = generator.gamma(3, size=N_CLUSTERS)
    labels = generator.choice(N_CLUSTERS, 5784, p=shares / shares.sum())
    sizes = np.bincount(labels, minlength=N_CLUSTERS)
    summary = {
        "n_clusters": N_CLUSTERS,
        "used": int((sizes > 0).sum()),
        "largest": int(sizes.max()),
        "smallest": int(sizes.min()),
        "median": float(np.median(sizes)),
        "inertia": 3518.42,
        "n_iter": 34,
        "nmi": 0.412,
        "purity": 0.198,
    }
    result(folder, "cluster", 12.8, ("iterations/s", 3.1), summary)
    np.savez(folder / "cluster/labels.npz", sample_ids=np.arange(5784), labels=labels)
    history = [{"inertia": 3518.4 * (1 + 0.35 / (1 + k) ** 1.3), "shift": 0.1} for k in range(34)]
    write(folder / "cluster/history.json", history)
    chosen = np.argsort(-sizes)[:: N_CLUSTERS // 8][:8]
    images = photographs(80, 64, 5).reshape(8, 10, 64, 64, 3)
    np.savez_compressed(
        folder / "cluster/montage.npz", images=images, clusters=chosen, sizes=sizes[chosen]
    )
    rows = [f"class {k}/<img> {c} & {k}.jpg,{c}\n" for c in chosen for k in range(10)]
    (folder / "cluster/montage.csv").write_text("path,cluster\n" + "".join(rows))


CONFIG = """seed = 0
device = "cpu"

[data]
pretext = "/data/caltech101/train"
test = "/data/caltech101/test"

[pretext]
trunk = "vgg16"
width = 0.25
tile_size = 44

[cluster]
n_clusters = 60
"""
ENVIRONMENT = {
    "ktfast": "0.1.0",
    "python": "3.11.2",
    "platform": "Linux-6.1.0-x86_64-with-glibc2.36",
    "processor": "AMD EPYC 9B45 128-Core Processor",
    "threads": 2,
    "device": "cpu",
    "packages": {"numpy": "2.4.0", "scikit-learn": "1.9.1", "torch": "2.15.0+cu132"},
}
