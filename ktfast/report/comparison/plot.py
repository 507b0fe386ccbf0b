"""Draw scores against cost: one point per row, with the spread over the seeds."""

from collections.abc import Callable

from ktfast.report.comparison.table import Row, Table, short_count, short_time
from ktfast.report.plots import COLORS, panel

_SPREAD_OF_LOG = 20.0  # a cost axis is logarithmic if the costs differ by more than this factor


def cost_plots(table: Table, name: str) -> list[str]:
    """Draw the scores against time, and against the number of weights if the rows differ in size.

    Parameters
    ----------
    table : Table
        The rows.
    name : str
        Name of the table, which makes the ids in the SVGs unique.

    Returns
    -------
    plots : list of str
        The plots as SVG, each with a text for readers who cannot see the plot.
    """
    timed = [row for row in table.rows if row.seconds is not None and not row.group.stale]
    measure = table.unit.replace("accuracy", "Accuracy")
    plots = []
    if len({row.seconds for row in timed}) > 1:
        title = f"{measure} against time"
        plots.append(_plot(timed, f"{name}-time", title, "seconds", _seconds, _time_text))
    sized = [row for row in table.rows if row.parameters and not row.group.stale]
    if len({row.parameters for row in sized}) > 1:
        title = f"{measure} against size"
        plots.append(_plot(sized, f"{name}-size", title, "weights", _weights, _size_text))
    return plots


def _seconds(row: Row) -> float:
    return row.seconds or 0.0


def _weights(row: Row) -> float:
    return float(row.parameters or 0)


def _time_text(row: Row) -> str:
    return short_time(row.seconds)


def _size_text(row: Row) -> str:
    return f"{short_count(row.parameters)} weights"


def _plot(
    rows: list[Row],
    name: str,
    title: str,
    unit: str,
    cost: Callable[[Row], float],
    spelled: Callable[[Row], str],
) -> str:
    points = [f"{row.group.name}: {100 * row.mean:.1f} % at {spelled(row)}" for row in rows]
    words = f"{title}. {'; '.join(points)}."
    with panel(name, 2.9, words) as (axes, svgs):
        costs = [cost(row) for row in rows]
        positive = [value for value in costs if value > 0]
        for number, row in enumerate(rows, 1):
            axes.errorbar(
                cost(row), 100 * row.mean, yerr=100 * (row.spread or 0.0), marker="o",
                markersize=5, capsize=2, linewidth=1.2, color=COLORS.get(row.group.model),
                clip_on=False,  # random weights lie on the axis
            )  # fmt: skip
            axes.annotate(
                str(number), (cost(row), 100 * row.mean), xytext=(6, 4),
                textcoords="offset points", fontsize=8.5,
            )  # fmt: skip
        if positive and max(positive) > _SPREAD_OF_LOG * min(positive):
            axes.set_xscale("symlog", linthresh=min(positive))
        axes.set_xlim(left=0)
        axes.margins(y=0.15)
        axes.set(title=title, xlabel=unit, ylabel="%")
    return svgs[0]
