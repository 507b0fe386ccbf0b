"""The CPU-seconds of an assignment pass against the number of centres, with and without boxes.

    python benchmarks/bench_many_clusters.py FOLDER [--clusters 4096 16384 65536] [--plot FILE]

The vectors are patches of 16 x 16 pixels of the photographs in FOLDER: 768 numbers, or their
leading principal coordinates. The centres are patches, and other patches are assigned to them. Each
time is the CPU time of one pass on one thread. "first" is a pass without former labels, and "later"
a pass whose guesses are right. faiss searches a flat index, if faiss is installed.
"""

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ktfast.kmeans.assignment.boxes import Boxes
from ktfast.kmeans.assignment.screen import first_screen
from ktfast.kmeans.data.rows import Rows

Float32 = npt.NDArray[np.float32]
SIDE = 16
LEAST_CONTRAST = 8.0
"""Patches of a lower standard deviation are left out, because many of them are equal."""


def patches(folder: Path, count: int) -> Float32:
    """Distinct patches of the photographs below a folder, float32 [count, 768], in random order."""
    generator = np.random.default_rng(0)
    files = sorted(folder.rglob("*.jpg"))
    generator.shuffle(files)
    files, found, total = files[:1000], [], 0
    each = -(-2 * count // len(files))
    for file in files:
        image = np.asarray(Image.open(file).convert("RGB"))
        rows, columns = np.array(image.shape[:2]) - SIDE
        if min(rows, columns) < 1 or total >= 1.2 * count:
            continue
        corners = generator.integers(0, (rows, columns), (each, 2))
        cut = np.stack([image[r : r + SIDE, c : c + SIDE].ravel() for r, c in corners])
        found.append(cut[cut.std(axis=1) > LEAST_CONTRAST])
        total += len(found[-1])
    x = np.unique(np.concatenate(found), axis=0)
    generator.shuffle(x)
    if len(x) < count:
        raise SystemExit(f"{folder} gave {len(x)} of {count} patches; give more photographs")
    return x[:count].astype(np.float32)


def reduced(x: Float32, features: int) -> Float32:
    """Leading principal coordinates, float32 [n, features]."""
    shifted = x - x.mean(axis=0)
    sample = shifted[:10_000]
    vectors = np.linalg.eigh(sample.T @ sample)[1][:, ::-1]
    return np.ascontiguousarray(shifted @ vectors[:, :features], np.float32)


def seconds(call: Callable[[], object]) -> float:
    """CPU-seconds of a call."""
    started = time.process_time()
    call()
    return time.process_time() - started


def passes(x: Float32, centers: npt.NDArray[np.float64]) -> dict[str, float]:
    """CPU-seconds of a first and a later pass, without and with boxes."""
    mean = centers.mean(axis=0)
    labels, distances = np.zeros(len(x), np.int32), np.empty(len(x))
    rows = Rows([x], n_threads=1)
    screen = first_screen(rows, mean, centers, "exact")
    boxes = Boxes(rows, mean)

    def plain(*, guessed: bool) -> None:
        screen.assign(x, centers, screen.prepare(centers), labels, distances, guessed=guessed)

    def boxed(*, guessed: bool) -> None:
        prepared = screen.prepare(centers, boxes.group(centers))
        if not guessed:
            boxes.guess(rows, centers, labels)
        order = boxes.order(labels, None)
        screen.assign(
            x, centers, prepared, labels, distances,
            subset=order, places=boxes.places, guessed=True,
        )  # fmt: skip

    found = {"first": seconds(lambda: plain(guessed=False))}
    expected = labels.copy()
    found["first, boxes"] = seconds(lambda: boxed(guessed=False))
    found["later"] = seconds(lambda: plain(guessed=True))
    found["later, boxes"] = seconds(lambda: boxed(guessed=True))
    if (labels != expected).any():
        raise SystemExit("the labels with boxes differ")
    return found


def faiss_pass(x: Float32, centers: Float32) -> float | None:
    """CPU-seconds of faiss's exact search for the nearest centre; None without faiss."""
    try:
        import faiss
    except ImportError:
        return None
    faiss.omp_set_num_threads(1)
    index = faiss.IndexFlatL2(x.shape[1])
    index.add(centers)
    started = time.process_time()
    index.search(x, 1)
    return time.process_time() - started


def draw(path: Path, title: str, clusters: list[int], found: list[dict[str, float]]) -> None:
    """Draw the CPU-seconds of a later pass, and of faiss, against the number of centres."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "many-clusters"
    figure, axes = pyplot.subplots(figsize=(5.5, 3.8), layout="constrained")
    lines = {
        "faiss": ("faiss", "s--", "#757575"),
        "later": ("ktfast, all centres", "o-", "#00796b"),
        "later, boxes": ("ktfast, with boxes", "o-", "#d84315"),
    }
    for name, (label, style, color) in lines.items():
        if name in found[0]:
            seconds = [each[name] for each in found]
            axes.loglog(clusters, seconds, style, ms=4, color=color, label=label)
    axes.set(xlabel="clusters", ylabel="CPU-seconds of a later pass")
    axes.set_title(title, fontsize=10)
    axes.set_xticks(clusters, labels=[f"{k:,}" for k in clusters])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--features", type=int, default=128)
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--clusters", type=int, nargs="+", default=[4096, 16_384, 65_536])
    parser.add_argument("--plot", type=Path, help="file for a plot of the later passes")
    arguments = parser.parse_args()
    x = patches(arguments.folder, arguments.rows + max(arguments.clusters))
    if arguments.features < x.shape[1]:
        x = reduced(x, arguments.features)
    rows, measured = x[: arguments.rows], list[dict[str, float]]()
    for i, k in enumerate(arguments.clusters):
        centers = x[arguments.rows : arguments.rows + k]
        found = passes(rows, centers.astype(np.float64))
        peer = faiss_pass(rows, centers)
        if peer is not None:
            found["faiss"] = peer
        print(f"d {x.shape[1]}, k {k}: " + ", ".join(f"{n} {s:.3f}" for n, s in found.items()))
        if measured:
            growth = math.log(k / arguments.clusters[i - 1])
            slopes = (f"{n} {math.log(s / measured[-1][n]) / growth:.2f}" for n, s in found.items())
            print("  grows as k to the power of: " + ", ".join(slopes), flush=True)
        measured.append(found)
    if arguments.plot:
        title = f"{arguments.rows:,} patches x {x.shape[1]}"
        draw(arguments.plot, title, arguments.clusters, measured)


if __name__ == "__main__":
    main()
