"""SHA-256 hashes of ktfast's results from one seed, to compare before and after a refactoring.

Equal lines mean equal bits. The script hashes Jigsaw++ tiles, the centres and labels of K-means,
and the artifacts of `ktfast demo`: weights, features, centres, pseudo-labels and accuracies. It
leaves out times and paths. Compare hashes of one machine only, because torch chooses its kernels by
the processor.

    python benchmarks/result_hashes.py          # about three minutes on two cores
    python benchmarks/result_hashes.py --quick  # tiles and K-means only
    python benchmarks/result_hashes.py --demo F # run the demo in the folder F and keep it
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import ktfast

MEASURES = ("accuracy", "linear", "linear_top1", "knn", "low_label", "nmi", "purity", "inertia")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="leave out the demo")
    parser.add_argument(
        "--demo", type=Path, help="run folder of the demo; a finished one is not run"
    )
    arguments = parser.parse_args()
    for name, digest in hashes(quick=arguments.quick, demo=arguments.demo):
        print(f"{digest[:16]}  {name}", flush=True)


def hashes(*, quick: bool, demo: Path | None) -> Iterator[tuple[str, str]]:
    """Name and SHA-256 of every result."""
    yield from tile_hashes()
    yield from kmeans_hashes()
    if demo is not None:
        yield from demo_hashes(demo)
    elif not quick:
        with tempfile.TemporaryDirectory() as folder:
            yield from demo_hashes(Path(folder) / "demo")


def tile_hashes() -> Iterator[tuple[str, str]]:
    """The permutation set, and the tiles and labels of random images."""
    images = np.random.default_rng(0).integers(0, 256, (16, 255, 255, 3), dtype=np.uint8)
    permutations = ktfast.permutation_set(701)
    yield "permutations", digest_of(permutations)
    cases: tuple[dict[str, Any], ...] = (
        {},
        {"dtype": "float16", "channels_last": True},
        {"statistics": "channel", "tile_size": 50},
    )
    for options in cases:
        tiles, labels = ktfast.ops.jigsaw_tiles(
            images, permutations, sample_ids=np.arange(16), seed=3, epoch=2, **options
        )
        yield f"tiles {options}", digest_of(tiles, labels)


def kmeans_hashes() -> Iterator[tuple[str, str]]:
    """The centres and labels of K-means in several types and with several options."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(150, 96)) * 2
    rows = centers[rng.integers(0, 150, 30_000)] + rng.normal(size=(30_000, 96))
    weight = rng.random(30_000)
    for dtype in ("float32", "float64", "float16"):
        for options in ({"init": "k-means||"}, {"init": "k-means++"}, {"spherical": True}):
            x = rows.astype(dtype)
            fitted = ktfast.KMeans(120, random_state=1, max_iter=40, **options).fit(x)
            yield f"KMeans {dtype} {options}", digest_of(fitted.cluster_centers_, fitted.labels_)
    fitted = ktfast.KMeans(120, random_state=1).fit(rows, sample_weight=weight)
    yield "KMeans weighted", digest_of(fitted.cluster_centers_, fitted.labels_)
    for start in range(0, 30_000, 5_000):
        fitted.partial_fit(rows[start : start + 5_000])
    yield "KMeans.partial_fit", digest_of(fitted.cluster_centers_, fitted.labels_)


def demo_hashes(folder: Path) -> Iterator[tuple[str, str]]:
    """The artifacts of `ktfast demo`, run in a folder."""
    subprocess.run([*COMMAND, "demo", "--run", str(folder)], check=True, capture_output=True)
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name.startswith("prepare/") or path.name.startswith("checkpoint-"):
            continue  # prepared images are inputs; checkpoints record times
        if path.suffix in (".safetensors", ".npy"):
            yield name, hashlib.sha256(path.read_bytes()).hexdigest()
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                yield name, digest_of(*(arrays[key] for key in sorted(arrays.files)))
        elif path.name == "result.json":
            measures = list(measured(json.loads(path.read_text())))
            if measures:
                yield name, hashlib.sha256(json.dumps(measures).encode()).hexdigest()


COMMAND = [sys.executable, "-m", "ktfast"]


def measured(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The accuracies and other measures in a result, with their paths in it."""
    if isinstance(value, dict):
        for key in sorted(value):
            if key in MEASURES:
                yield f"{prefix}{key}", value[key]
            else:
                yield from measured(value[key], f"{prefix}{key}.")


def digest_of(*arrays: npt.NDArray[Any]) -> str:
    """SHA-256 of the types, shapes and contents of arrays."""
    digest = hashlib.sha256()
    for array in map(np.ascontiguousarray, arrays):
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    main()
