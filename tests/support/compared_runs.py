"""Run folders with full records of their stages and made-up accuracies, to be compared."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from ktfast.durable import write_sealed
from ktfast.manifest import describe

LAYERS = ("conv1", "conv2", "conv3")
CLASSES, PER_CLASS = 5, 40
LABELS = np.repeat(np.arange(CLASSES), PER_CLASS).astype(np.int32)


def digest(*parts: object) -> str:
    """A fingerprint of anything."""
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()


def guesses(accuracy: float, seed: int) -> np.ndarray:
    """Predictions that are right for a share of the images of each class, int32 [n].

    Better networks are right wherever worse ones are, but for one image in twenty.
    """
    rng = np.random.default_rng(seed)
    guess = LABELS.copy()
    for number in range(CLASSES):
        rows = np.flatnonzero(number == LABELS)
        wrong = rows[: round((1 - accuracy) * len(rows))]
        guess[wrong] = (number + 1) % CLASSES
    swapped = rng.permutation(len(LABELS))[: len(LABELS) // 20]
    guess[swapped] = rng.integers(0, CLASSES, len(swapped))
    return guess


def measured(guess: np.ndarray) -> float:
    """Mean per-class accuracy of predictions."""
    return float(np.mean([np.mean(guess[c == LABELS] == c) for c in range(CLASSES)]))


def make_compared_run(
    folder: Path,
    *,
    source: str = "pretext",
    seed: int = 0,
    width: float = 0.25,
    accuracy: float = 0.5,
    random: float = 0.3,
    test: str = "test",
    epochs: int = 30,
    predictions: bool = True,
    held_out: bool = True,
    objective: str = "",
    n_clusters: int = 60,
    detection: dict[str, float] | None = None,
    short_sides: tuple[int, ...] = (600,),
) -> Path:
    """Write a finished run. The student is best at conv3, and random weights are at conv2.

    Without an objective, the run is one of an earlier version of ktfast, which had clusters only.
    With `detection`, a detector of the student was tested: the score by the scales of the test.
    """
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(f"seed = {seed}\n")
    images = _stage(folder, "prepare/pretext", {"short_side": 128}, {"images": "photographs"})
    tested = _stage(
        folder, "prepare/test", {"short_side": 128}, {"images": test}, {"images": len(LABELS)}
    )
    features: dict[str, tuple[str, str]] = {"images": ("prepare/pretext", images)}
    if source == "pretext":
        puzzle = _stage(
            folder, "pretext", {"seed": seed, "trunk": "vgg16"},
            {"images": ("prepare/pretext", images)}, seconds=300.0,
        )  # fmt: skip
        features["weights"] = ("pretext", puzzle)
    stored = _stage(folder, "features/pretext", {"source": source}, features)
    learnt = {"features": ("features/pretext", stored)}
    if objective in ("", "clusters"):
        clusters = _stage(
            folder, "cluster", {"seed": seed, "n_clusters": n_clusters},
            {**learnt, "label_images": ("prepare/pretext", images)},
        )  # fmt: skip
        learnt = {"labels": ("cluster", clusters)}
    _weights(folder / "transfer" / "weights.safetensors", round(64 * width))
    student = {"target": "alexnet", "width": width, "crop": 112}
    student |= {"objective": objective} if objective else {}
    trained = _stage(
        folder, "transfer", {"seed": seed, **student, "training": {"epochs": 20}},
        {"images": ("prepare/pretext", images), **learnt}, seconds=60.0,
    )  # fmt: skip
    rows = {"transfer": (accuracy, (0.7, 0.9, 1.0)), "random": (random, (0.8, 1.0, 0.9))}
    _evaluate(folder, rows, seed, {
        "train": ("prepare/pretext", images),
        "test": ("prepare/test", tested),
        "transfer": ("transfer", trained),
    }, epochs, predictions=predictions, held_out=held_out)  # fmt: skip
    if detection is not None:
        settings = {"seed": seed, "models": ["transfer"], "short_sides": short_sides}
        inputs = {"train": "trainval", "test": "voc", "transfer": ("transfer", trained)}
        first, *more = (
            {"score": score, "classes": {}, "steps": 10, "protocol": {"test": scales}}
            for scales, score in detection.items()
        )
        first["tests"] = dict(zip(list(detection)[1:], more, strict=True))
        summary = {
            "measure": "mean average precision (11 points, overlap 0.5)",
            "models": {"transfer": first},
            "images": {"train": 90, "test": 38},
        }
        _stage(folder, "voc/detection", settings, inputs, summary)
    return folder


def _evaluate(
    folder: Path,
    rows: dict[str, tuple[float, tuple[float, ...]]],
    seed: int,
    inputs: dict[str, Any],
    epochs: int,
    *,
    predictions: bool,
    held_out: bool,
) -> None:
    place = folder / "evaluate"
    place.mkdir()
    linear: dict[str, dict[str, float]] = {}
    for number, (model, (best, shares)) in enumerate(rows.items()):
        arrays = {"labels": LABELS}
        for layer, share in zip(LAYERS, shares, strict=True):
            guess = guesses(best * share, seed + 10 * number)
            arrays |= {f"linear_{layer}": guess, f"knn_{layer}": guess}
            linear.setdefault(model, {})[layer] = measured(guess)
        if predictions:
            np.savez(place / f"predictions-{model}.npz", **arrays)
    summary: dict[str, Any] = {
        "metric": "mean per-class accuracy",
        "models": list(rows),
        **dict.fromkeys(("linear", "linear_top1", "knn"), linear),
        "protocol": {"optimiser": "sgd", "epochs": epochs},
    }
    if held_out:
        summary |= {"linear_held_out": linear, "knn_held_out": linear}
    settings = {"seed": seed, "probe_epochs": epochs, "baselines": ["random"], "retrain": []}
    _stage(folder, "evaluate", settings, inputs, summary)


def _stage(
    folder: Path,
    name: str,
    settings: dict[str, Any],
    inputs: dict[str, Any],
    summary: dict[str, Any] | None = None,
    *,
    seconds: float = 5.0,
) -> str:
    """Write the result of a stage and return its fingerprint; an input is (stage, fingerprint)."""
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    made = {key: value for key, value in inputs.items() if isinstance(value, tuple)}
    read = {key: value[1] if key in made else digest(value) for key, value in inputs.items()}
    fingerprint = digest(name.partition("/")[0], settings, read)
    result = {
        "stage": name, "version": "0", "config": settings, "inputs": read, "named": {},
        "from": {key: value[0] for key, value in made.items()}, "fingerprint": fingerprint,
        "started": 1.77e9, "seconds": seconds, "throughput": None, "outputs": {},
        "summary": summary or {}, "files": describe(place, lambda file: file.endswith(".json")),
    }  # fmt: skip
    write_sealed(place / "result.json", result)
    return fingerprint


def _weights(path: Path, channels: int) -> None:
    """Write a safetensors file with one convolution and a classifier."""
    from safetensors.numpy import save_file

    path.parent.mkdir(parents=True)
    tensors = {
        "features.0.weight": np.zeros((channels, 3, 5, 5), np.float32),
        "features.0.bias": np.zeros(channels, np.float32),
        "features.1.running_mean": np.zeros(channels, np.float32),
        "classifier.1.weight": np.zeros((60, channels), np.float32),
    }
    save_file(tensors, path)
