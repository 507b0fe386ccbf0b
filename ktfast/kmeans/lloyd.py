"""Lloyd's iterations: assign, update, relocate what became empty, until nothing moves."""

import logging
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from ktfast.kmeans.assigner import Assigner, make_assigner
from ktfast.kmeans.rows import Float64, Rows
from ktfast.kmeans.sums import make_sums

_logger = logging.getLogger(__name__)


class LloydResult(NamedTuple):
    """The outcome of one initialisation.

    centers : float64 [k, d], where the rows are worked on: NumPy, or on a GPU.
    labels : int32 [n], of these centres, alike.
    inertia : sum of the (weighted) squared distances.
    history : per iteration inertia, moved, shift, relocated, skipped and seconds.
    """

    centers: Any
    labels: Any
    inertia: float
    history: list[dict[str, float]]


def lloyd(
    rows: Rows,
    centers: Float64,
    weight: Float64 | None,
    *,
    mean: Float64,
    max_iter: int,
    tolerance: float,
    precision: str = "exact",
    memory_budget: int | None = None,
    observe: Callable[[LloydResult], None] | None = None,
) -> LloydResult:
    """Run Lloyd's algorithm from `centers`; the labels are those of the centres it returns.

    Parameters
    ----------
    rows : the data [n, d].
    centers : float64 [k, d], as `rows.rounded` gives them.
    weight : float64 [n] or None: all 1.
    mean : float64 [d], of the rows.
    max_iter : the most iterations.
    tolerance : stop once the centres' squared moves add up to at most this.
    precision : see `ktfast.ops.kmeans_assign`.
    memory_budget : bytes of a GPU's memory, see `ktfast.KMeans`.
    observe : is called with what was reached after each iteration.
    """
    history: list[dict[str, float]] = []
    run: LloydResult | None = None
    sums = make_sums(rows, len(centers), weight)
    assigner = make_assigner(
        rows, mean, len(centers), sums, precision=precision, memory_budget=memory_budget
    )
    current = rows.to_device(centers)
    for _ in range(max_iter):
        started = time.perf_counter()
        labels, distances = assigner.assign(current)
        before = None if run is None else run.labels
        inertia, moved = rows.totals(distances, weight, before, labels)
        moved = rows.n if run is None else moved
        # Rounding alone can move rows without a gain: keep what was as good.
        if run is not None and not inertia < run.inertia and moved > 0:
            return _exact(rows, assigner, weight, run)
        run = LloydResult(current, _kept(rows, labels), inertia, history)
        current, shift, relocated = sums.centers(run.labels, distances, current)
        history.append(
            {
                "inertia": inertia,
                "moved": moved,
                "shift": shift,
                "relocated": relocated,
                "skipped": assigner.skipped,
                "seconds": time.perf_counter() - started,
            }
        )
        if observe is not None:
            observe(run)
        if shift == 0:
            return _exact(rows, assigner, weight, run)
        if shift <= tolerance and not relocated:
            break
    return _finished(rows, assigner, current, weight, run)


def _kept(rows: Rows, labels: Any) -> Any:
    """Labels that the next call of the assigner leaves as they are."""
    return labels if rows.on_gpu else labels.copy()


def _exact(rows: Rows, assigner: Assigner, weight: Float64 | None, run: LloydResult) -> LloydResult:
    """The run with exact labels and inertia."""
    if assigner.is_exact:
        return run
    labels, distances = assigner.assign(run.centers, last=True)
    return LloydResult(run.centers, labels, rows.totals(distances, weight)[0], run.history)


def _finished(
    rows: Rows, assigner: Assigner, centers: Any, weight: Float64 | None, run: Any
) -> LloydResult:
    """The run with the centres of its last update, unless these are no better."""
    labels, distances = assigner.assign(centers, last=True)
    inertia, _ = rows.totals(distances, weight)
    if inertia > run.inertia and assigner.is_exact:
        return LloydResult(*run)
    return LloydResult(centers, _kept(rows, labels), inertia, run.history)
