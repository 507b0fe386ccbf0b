"""Times per iteration, rates and ratios, from the times of an engine's fits."""

from collections.abc import Iterable, Iterator

from ktfast.bench.core.table import spread
from ktfast.bench.kmeans.engines import Row

FIT_METHOD = """\
A fit is the given number of Lloyd iterations (assignment and update), the last assignment, and all
preparation of the data by the engine. Time per iteration is a fit's time divided by its iterations:
median and range of the repeats. Operations per iteration are 2nkd, also for engines that skip a
part of the distances. Ratio is the engine's time per iteration divided by ktfast's."""


def rates(row: Row, n: int, d: int, k: int, peak: float | None) -> Row:
    """What follows from the times of an engine.

    Parameters
    ----------
    row : dict
        The row, with "seconds" of each fit and the "iterations" of a fit.
    n, d, k : int
        Rows, features and clusters.
    peak : float or None
        Operations per second that the machine can do; None if unknown.

    Returns
    -------
    found : dict
        "seconds_per_iteration" (median), "range", "flops" (operations per second) and
        "share_of_peak".
    """
    each = spread([seconds / row["iterations"] for seconds in row["seconds"]])
    flops = 2 * n * k * d / each.median
    return {
        "seconds_per_iteration": each.median,
        "range": [each.least, each.most],
        "flops": flops,
        "share_of_peak": None if peak is None else flops / peak,
    }


def with_ratios(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield rows with the "ratio" of their time to ktfast's time, if ktfast's row comes first."""
    base = 0.0
    for row in rows:
        if "problem" not in row:
            each = row["seconds_per_iteration"]
            base = each if row["engine"] == "ktfast" else base
            if base:
                row["ratio"] = each / base
        yield row
