"""Set the runs of the tiny grids beside the paper's tables, and say what came out otherwise.

    ktfast compare rows_tiny --out runs/tables   # and k_tiny, cross_tiny
    python benchmarks/paper_tables.py runs/tables > tables.md

A comparison of the paper has a verdict: "as in the paper" or "opposite" if the 95 % interval of the
difference, paired over the seeds, excludes zero; else "not decided".
"""

import argparse
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ktfast.evaluation.paired import by_seeds
from ktfast.evaluation.paper import IMAGENET_LINEAR, PLACES_LINEAR
from ktfast.evaluation.results import EvaluationSummary
from ktfast.report.reading import RunReader

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5")
SET = "garments"


@dataclass(frozen=True)
class Row:
    """A row of the paper's tables, and where the tiny grids have it.

    Attributes
    ----------
    name : str
        Name in the paper.
    run : str
        Name of the run folders without the seed.
    model : str
        Network of the runs.
    paper : str
        Name in `ktfast.evaluation.paper`; empty: `name`.
    """

    name: str
    run: str
    model: str = "transfer"
    paper: str = ""


_VGG = "vgg-jigsaw++-student-k{}"
ROWS = (
    Row("true labels", _VGG.format(200), "labels", "ImageNet labels"),
    Row("random weights", _VGG.format(200), "random", "random"),
    Row("CC+untrained VGG", "untrained-student-k200"),
    Row("CC+HOG", "hog-student-k200"),
    Row("Jigsaw", "jigsaw-student-k200", "pretext"),
    Row("Jigsaw++", "jigsaw++-student-k200", "pretext"),
    Row("CC+Jigsaw", "jigsaw-student-k200"),
    Row("CC+Jigsaw++", "jigsaw++-student-k200"),
    Row("CC+vgg-Jigsaw++", _VGG.format(200)),
)
COUNTS = {50: 500, 100: 1000, 200: 2000, 400: 5000, 1000: 10000}
"""Number of clusters of k_tiny, and the paper's number in the same place of its table."""
K_PAPER = {500: 69.1, 1000: 69.5, 2000: 69.9, 5000: 69.9, 10000: 70.0}
K_ROWS = {k: Row(f"{k} clusters", _VGG.format(k)) for k in COUNTS}
CROSS_ROWS = {
    Row(f"centres {a}, labels {b}", f"centers-{a}-labels-{b}-student-k200"): paper
    for (a, b), paper in {
        ("caltech", "caltech"): 69.9,
        ("caltech", "garments"): 68.4,
        ("garments", "caltech"): 68.3,
    }.items()
}
_BY_NAME = {row.name: row for row in (*ROWS, *K_ROWS.values(), *CROSS_ROWS)}
CLAIMS = (
    ("true labels", "CC+vgg-Jigsaw++", "conv5: 50.5 and 34.6"),
    ("CC+vgg-Jigsaw++", "CC+Jigsaw++", "conv5: 34.6 and 32.2"),
    ("CC+Jigsaw++", "Jigsaw++", "conv5: 32.2 and 28.0"),
    ("Jigsaw++", "Jigsaw", "VOC2007 classification: 69.8 and 67.7"),
    ("CC+Jigsaw++", "CC+HOG", "conv5: 32.2 and 29.1"),
    ("CC+HOG", "random weights", "conv5: 29.1 and 14.1"),
    ("CC+vgg-Jigsaw++", "random weights", "conv5: 34.6 and 14.1"),
    ("CC+vgg-Jigsaw++", "CC+untrained VGG", "not in the paper"),
    ("200 clusters", "50 clusters", "VOC2007, 2000 and 500 clusters: 69.9 and 69.1"),
    ("1000 clusters", "200 clusters", "VOC2007, 10000 and 2000 clusters: 70.0 and 69.9"),
    (
        "centres caltech, labels caltech",
        "centres caltech, labels garments",
        "VOC2007, labels from Places: 69.9 and 68.4",
    ),
    (
        "centres caltech, labels caltech",
        "centres garments, labels caltech",
        "VOC2007, centres from Places: 69.9 and 68.3",
    ),
)
"""Two rows, of which the paper's first one is better, and the paper's figures, %."""


class Runs:
    """The finished runs below a folder of grids."""

    def __init__(self, folder: Path) -> None:
        self._summaries: dict[str, EvaluationSummary] = {}
        for stage in sorted(folder.glob("runs/*/evaluate")):  # a failed run lacks the stage
            summary = RunReader(stage.parent).evaluation()
            if summary is not None:
                self._summaries[stage.parent.name] = summary

    def values(self, row: Row, measure: str, layer: str, images: str = "") -> dict[int, float]:
        """Accuracy in % by seed; empty if no run is finished."""
        found = {}
        for name, summary in self._summaries.items():
            run, _, seed = name.rpartition("-seed")
            if run != row.run:
                continue
            on = summary.sets.get(images) if images else summary
            accuracy = {} if on is None else getattr(on, measure).get(row.model, {})
            if layer in accuracy:
                found[int(seed)] = 100 * accuracy[layer]
        return found


def _shown(values: Sequence[float]) -> str:
    if not values:
        return "–"
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{spread}"


def _layer_table(runs: Runs, measure: str, images: str) -> Iterator[str]:
    published = {row.name: row.accuracy for row in (PLACES_LINEAR if images else IMAGENET_LINEAR)}
    where = "Places" if images else "ImageNet"
    yield f"| row | seeds | {' | '.join(LAYERS)} | paper, {where}, conv1 to conv5 |"
    yield "|---" * (len(LAYERS) + 3) + "|"
    for row in ROWS:
        cells = [list(runs.values(row, measure, layer, images).values()) for layer in LAYERS]
        paper = " ".join(f"{value:.1f}" for value in published.get(row.paper or row.name, ()))
        texts = [row.name, str(len(cells[-1])), *map(_shown, cells), paper or "–"]
        yield f"| {' | '.join(texts)} |"


def _conv5_table(runs: Runs, rows: Sequence[tuple[Row, str]]) -> Iterator[str]:
    yield "| row | seeds | linear, conv5 | neighbours, conv5 | paper, VOC2007 classification |"
    yield "|---|---|---|---|---|"
    for row, paper in rows:
        linear, knn = (list(runs.values(row, m, "conv5").values()) for m in ("linear", "knn"))
        yield f"| {row.name} | {len(linear)} | {_shown(linear)} | {_shown(knn)} | {paper} |"


def _verdicts(runs: Runs) -> Iterator[str]:
    yield "| better in the paper | than | paper | linear, conv5 | neighbours, conv5 |"
    yield "|---|---|---|---|---|"
    for better, worse, paper in CLAIMS:
        cells = [_verdict(runs, _BY_NAME[better], _BY_NAME[worse], m) for m in ("linear", "knn")]
        yield f"| {better} | {worse} | {paper} | {' | '.join(cells)} |"


def _verdict(runs: Runs, better: Row, worse: Row, measure: str) -> str:
    ours, theirs = (runs.values(row, measure, "conv5") for row in (better, worse))
    gaps = [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]
    interval = by_seeds(gaps)
    if interval is None:
        return f"{gaps[0]:+.1f}, one seed: not decided" if len(gaps) == 1 else "–"
    half = interval.high - interval.difference
    word = "not decided"
    if interval.separates:
        word = "as in the paper" if interval.difference > 0 else "**opposite**"
    return f"{interval.difference:+.1f} ± {half:.1f}: {word}"


def tables(runs: Runs) -> Iterator[str]:
    """Lines of all tables in Markdown."""
    yield "## Verdicts\n"
    yield from _verdicts(runs)
    for title, measure, images in (
        ("Linear probe", "linear", ""),
        ("Nearest neighbours", "knn", ""),
        ("Linear probe on the garments, in the place of Places", "linear", SET),
    ):
        yield f"\n## {title}\n"
        yield from _layer_table(runs, measure, images)
    yield "\n## Number of clusters\n"
    counts = [(K_ROWS[k], f"{K_PAPER[n]} ({n} clusters)") for k, n in COUNTS.items()]
    yield from _conv5_table(runs, counts)
    yield "\n## Centres and labels from different data sets\n"
    yield from _conv5_table(runs, [(row, str(paper)) for row, paper in CROSS_ROWS.items()])


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="folder that ktfast compare --out named")
    for line in tables(Runs(parser.parse_args().folder)):
        print(line)


if __name__ == "__main__":
    main()
