"""Rank the rows of a comparison: means over seeds, paired differences, ranks with ties, costs."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ktfast.evaluation.paired import Interval, by_images, by_seeds
from ktfast.report.comparison.cells import MEASURES, PROBES, UNITS, Cell
from ktfast.report.comparison.parts import Group, Part

HELD_OUT = "held-out training images"
_ROLES = {
    "transfer": "student",
    "random": "control",
    "pretext": "control",
    "labels": "trained on the true labels",
    "teacher": "ceiling",
}


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes
    ----------
    group : Group
        The networks.
    layer : str
        Layer whose accuracy is shown.
    values : list of float
        Accuracy of each seed.
    mean : float
        Mean over the seeds.
    spread : float or None
        Standard deviation over the seeds; None with one seed.
    rank : int or None
        Rank; None for a stale row, for a teacher, and for a network that was trained on the true
        labels.
    tied : bool
        Whether another row has the same rank.
    behind : Interval or None
        Difference to the first row of the table; None if no seeds and no images can be paired.
    leads : bool
        Whether the row is the first row of the table.
    seconds : float or None
        Mean time of the stages that made the network from prepared images.
    parameters : int or None
        Number of weights of the network without its classifier.
    """

    group: Group
    layer: str
    values: list[float]
    mean: float
    spread: float | None
    rank: int | None
    tied: bool
    behind: Interval | None
    seconds: float | None
    parameters: int | None
    leads: bool = False

    @property
    def role(self) -> str:
        """What the row is: "student", "control", "ceiling" or "trained on the true labels"."""
        if self.group.cells[0].network.control:
            return "control"
        return _ROLES.get(self.group.model, "student")


@dataclass(frozen=True)
class Table:
    """The rows of one part by one measure.

    Attributes
    ----------
    measure : str
        Name of the measure, a key of `MEASURES`.
    title : str
        Measure and split in words.
    layers : str
        How the layer of each row was chosen; empty if there was no choice.
    rows : list of Row
        The rows by descending mean; stale rows at the end.
    differences : list of tuple
        Names of two rows and their difference, for all rows whose seeds or images can be paired.
    left_out : list of str
        Names of the rows of the part that lack the measure, or the layer that was asked for.
    """

    measure: str
    title: str
    layers: str
    rows: list[Row]
    differences: list[tuple[str, str, Interval]]
    left_out: list[str]

    @property
    def unit(self) -> str:
        """Short name of the measure: "accuracy", "mAP" or "mIoU"."""
        return UNITS.get(self.measure, "accuracy")


def table_of(part: Part, measure: str, layer: str | None = None) -> Table | None:
    """Make the table of one part by one measure.

    Parameters
    ----------
    part : Part
        Rows that may be compared.
    measure : str
        A key of `MEASURES`.
    layer : str, optional
        Layer whose accuracy is shown. None: for each row the layer with the highest accuracy on
        held-out training images. If a run of the part does not record this accuracy, the last
        probed layer of each row. Scores on PASCAL VOC have no choice of layers.

    Returns
    -------
    table : Table or None
        None if no row has the measure.
    """
    choose, rule = _layer_rule(part, measure, layer)
    rows, left_out = [], []
    for group in part.groups:
        chosen = choose(group)
        if chosen and all(chosen in cell.scores.get(measure, {}) for cell in group.cells):
            rows.append(_row(group, measure, chosen))
        else:
            left_out.append(group.name)
    if not rows:
        return None
    rows.sort(key=lambda row: (bool(row.group.stale), -row.mean))
    fresh = [row for row in rows if not row.group.stale]
    pairs = _Pairs(measure)
    ranked = [row for row in fresh if row.group.model not in ("labels", "teacher")]
    ranks = _ranks(ranked, pairs)
    first = ranked[0] if ranked else None
    return Table(
        measure=measure,
        title=f"{MEASURES[measure]}, test images",
        layers=rule,
        rows=[_placed(row, ranks, first, pairs) for row in rows],
        differences=[
            (a.group.name, b.group.name, found)
            for number, a in enumerate(fresh)
            for b in fresh[number + 1 :]
            if (found := pairs.of(a, b)) is not None
        ],
        left_out=left_out,
    )


def _layer_rule(part: Part, measure: str, layer: str | None) -> tuple[Callable[[Group], str], str]:
    """Choose the rule by which each row gets its layer, and describe the rule."""
    if measure not in PROBES:
        return (lambda group: next(iter(group.cells[0].scores.get(measure, {})), "")), ""
    if layer is not None:
        return (lambda _: layer), f"layer {layer}, as asked for"
    if all(cell.held_out.get(measure) for group in part.groups for cell in group.cells):
        return partial(_best_held_out, measure), f"each row at its best layer on {HELD_OUT}"
    return _last_layer, (
        f"each row at the last probed layer, because a run does not record accuracies on {HELD_OUT}"
    )


def _best_held_out(measure: str, group: Group) -> str:
    rows = [cell.held_out[measure] for cell in group.cells]
    shared = [layer for layer in rows[0] if all(layer in row for row in rows)]
    means = {layer: statistics.fmean(row[layer] for row in rows) for layer in shared}
    return max(means, key=lambda layer: means[layer], default="")


def _last_layer(group: Group) -> str:
    return next(reversed(group.cells[0].scores.get("linear", {})), "")


def _row(group: Group, measure: str, layer: str) -> Row:
    values = [cell.scores[measure][layer] for cell in group.cells]
    costs = [cell.network.seconds for cell in group.cells]
    times = [seconds for seconds in costs if seconds is not None]
    return Row(
        group=group,
        layer=layer,
        values=values,
        mean=statistics.fmean(values),
        spread=statistics.stdev(values) if len(values) > 1 else None,
        rank=None,
        tied=False,
        behind=None,
        seconds=statistics.fmean(times) if times else None,
        parameters=group.cells[0].network.parameters,
    )


class _Pairs:
    """Paired differences of two rows, computed once for each pair."""

    def __init__(self, measure: str) -> None:
        self.measure = measure
        self._known: dict[tuple[str, str], Interval | None] = {}

    def of(self, a: Row, b: Row) -> Interval | None:
        """Difference of the rows; None if they are stale or have no seeds or images to pair."""
        if a.group.stale or b.group.stale or a is b:
            return None
        key = a.group.name, b.group.name
        if key not in self._known:
            self._known[key] = self._difference(a, b)
        return self._known[key]

    def _difference(self, a: Row, b: Row) -> Interval | None:
        shared = [(x, y) for x in a.group.cells for y in b.group.cells if x.seed == y.seed]
        shared = [pair for pair in shared if pair[0].seed is not None]
        gaps = [
            x.scores[self.measure][a.layer] - y.scores[self.measure][b.layer] for x, y in shared
        ]
        if len(gaps) >= 2 and (found := by_seeds(gaps)) is not None:
            return found
        x, y = shared[0] if shared else (a.group.cells[0], b.group.cells[0])
        return self._by_images(x, a.layer, y, b.layer)

    def _by_images(self, x: Cell, layer: str, y: Cell, other: str) -> Interval | None:
        ours, theirs = x.predictions(self.measure, layer), y.predictions(self.measure, other)
        if ours is None or theirs is None or len(ours["labels"]) < 2:
            return None
        if not np.array_equal(ours["labels"], theirs["labels"]):
            return None
        return by_images(
            ours["labels"],
            ours["guess"],
            theirs["guess"],
            per_class=self.measure != "linear_top1",
        )


def _ranks(rows: Sequence[Row], pairs: _Pairs) -> dict[str, tuple[int, bool]]:
    """Rank rows that are sorted by their mean; give each row its rank and whether others share it.

    The first row of each rank leads the rank. A row is tied with a leader if the interval of their
    difference contains zero, or if the two rows cannot be paired. A row gets the best rank whose
    leader it is tied with. A row that is tied with no leader leads a new rank.
    """
    ranks: dict[str, int] = {}
    leaders: list[Row] = []
    for position, row in enumerate(rows, 1):
        gaps = [(leader, pairs.of(row, leader)) for leader in leaders]
        alike = [leader for leader, gap in gaps if gap is None or not gap.separates]
        if alike:
            ranks[row.group.name] = ranks[alike[0].group.name]
        else:
            leaders.append(row)
            ranks[row.group.name] = position
    shared = list(ranks.values())
    return {name: (value, shared.count(value) > 1) for name, value in ranks.items()}


def _placed(row: Row, ranks: dict[str, tuple[int, bool]], first: Row | None, pairs: _Pairs) -> Row:
    rank, tied = ranks.get(row.group.name, (None, False))
    behind = None if first is None else pairs.of(row, first)
    return replace(row, rank=rank, tied=tied, behind=behind, leads=row is first)


def short_time(seconds: float | None) -> str:
    """Seconds in at most five characters: 4.2s, 12m, 3.5h, 2.1d; a dash if unknown."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    for limit, unit, size in ((60, "s", 1), (3600, "m", 60), (86400, "h", 3600)):
        if seconds < limit:
            value = seconds / size
            return f"{value:.0f}{unit}" if value >= 10 or value == 0 else f"{value:.1f}{unit}"
    return f"{seconds / 86400:.1f}d"


def short_count(value: int | None) -> str:
    """A number in at most five characters: 950, 12k, 3.7M; a dash if unknown."""
    if value is None:
        return "–"
    for limit, unit, size in ((1000, "", 1), (1_000_000, "k", 1000), (10**9, "M", 10**6)):
        if value < limit:
            found = value / size
            return f"{found:.0f}{unit}" if found >= 10 or size == 1 else f"{found:.1f}{unit}"
    return f"{value / 10**9:.1f}G"
