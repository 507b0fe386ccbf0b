"""Draw the learning curves that `bench_plateau.py` recorded: one panel per folder and setting.

    python benchmarks/plot_plateau.py puzzles-1.jsonl puzzles-8.jsonl \
        --panel "garments" clothing 100 --panel "Caltech-101" caltech 100 \
        --plot docs/images/plateau.svg

A panel has the curves of one folder and one number of permutations, in the setting "plain". A thin
line is one seed: the mean accuracy of the last 50 training steps. The colour tells the number of
puzzles per image (`pretext.puzzles_per_image`). A dotted line marks the accuracy of guessing.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from bench_plateau import read_results

COLORS = {1: "#c2410c", 8: "#1d4ed8"}
NAMES = {1: "1 puzzle per image (the paper)", 8: "8 puzzles per image (tiny_cpu)"}
WINDOW = 5
"""Number of recorded points, of 10 steps each, that a line averages."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("results", type=Path, nargs="+", help="files that bench_plateau.py wrote")
    parser.add_argument(
        "--panel", nargs=3, action="append", required=True,
        metavar=("TITLE", "FOLDER", "PERMUTATIONS"), help="a panel, from the left",
    )  # fmt: skip
    parser.add_argument("--steps", type=int, default=600, help="length of the trainings")
    parser.add_argument("--plot", type=Path, required=True, help="file of the picture")
    arguments = parser.parse_args()
    rows = [row for path in arguments.results for row in read_results(path)]
    draw(rows, arguments.panel, arguments.steps, arguments.plot)


def puzzles_of(row: dict[str, Any]) -> int:
    """Number of puzzles per image of a training."""
    return int(row["options"].get("pretext.puzzles_per_image", 1))


def trainings_of(
    rows: list[dict[str, Any]], folder: str, permutations: int, steps: int
) -> list[dict[str, Any]]:
    """Select the trainings of a panel; those with most puzzles per image come last."""
    found = [
        row
        for row in rows
        if (row["folder"], row["setting"], row["steps"]) == (folder, "plain", steps)
        and round(1 / row["chance"]) == permutations
        and puzzles_of(row) in NAMES
    ]
    return sorted(found, key=puzzles_of)


def running_mean(row: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Steps, and the mean accuracy in percent of the last `WINDOW` points up to each step."""
    steps = np.array([point["step"] for point in row["curve"]])
    values = 100 * np.array([point["accuracy"] for point in row["curve"]])
    sums = np.cumsum(np.concatenate([[0.0], values]))
    first = np.maximum(0, np.arange(1, len(sums)) - WINDOW)
    return steps, (sums[1:] - sums[first]) / (np.arange(1, len(sums)) - first)


def draw(rows: list[dict[str, Any]], panels: list[list[str]], steps: int, path: Path) -> None:
    """Draw the panels side by side."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.lines import Line2D

    matplotlib.rcParams |= {"svg.hashsalt": "plateau", "font.size": 9}
    figure, every = pyplot.subplots(
        1, len(panels), figsize=(2.9 * len(panels), 3.5), layout="constrained", squeeze=False
    )
    for axes, (title, folder, permutations) in zip(every[0], panels, strict=True):
        found = trainings_of(rows, folder, int(permutations), steps)
        if not found:
            raise SystemExit(f"no training of {folder} with {permutations} permutations is known")
        for row in found:
            axes.plot(*running_mean(row), color=COLORS[puzzles_of(row)], linewidth=1.2)
        axes.axhline(100 / int(permutations), color="#555555", linestyle=":", linewidth=1)
        axes.annotate(
            "guessing", (steps, 100 / int(permutations)), xytext=(0, 3), color="#555555",
            textcoords="offset points", ha="right", va="bottom", fontsize=8,
        )  # fmt: skip
        axes.set(title=title, xlabel="training step", xlim=(0, steps), ylim=(0, None))
        axes.spines[["top", "right"]].set_visible(False)
    every[0, 0].set_ylabel("training puzzles solved (%)")
    lines = [Line2D([], [], color=COLORS[key], label=NAMES[key]) for key in NAMES]
    figure.legend(handles=lines, loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


if __name__ == "__main__":
    main()
