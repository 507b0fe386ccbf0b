"""Lloyd's iterations: assign, update, relocate what became empty, until nothing moves."""

import logging
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ktfast.kmeans_assigner import Assigner, make_assigner
from ktfast.kmeans_rows import Float64, Rows, to_host
from ktfast.kmeans_sums import make_sums

_logger = logging.getLogger(__name__)


class Run(NamedTuple):
    """The outcome of one initialisation.

    centers : float64 [k, d].
    labels : int32 [n], of these centres.
    inertia : sum of the (weighted) squared distances.
    history : per iteration inertia, moved, shift, relocated, skipped and seconds.
    """

    centers: Float64
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
    observe: Callable[[Run], None] | None = None,
) -> Run:
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
    observe : is called with what was reached after each iteration.
    """
    history: list[dict[str, float]] = []
    run: Run | None = None
    assigner = make_assigner(rows, mean, len(centers), precision=precision)
    sums = make_sums(rows, len(centers), weight)
    for _ in range(max_iter):
        started = time.perf_counter()
        labels, distances = assigner.assign(centers)
        inertia = inertia_of(distances, weight)
        moved = rows.n if run is None else int((labels != run.labels).sum())
        # Rounding alone can move rows without a gain: keep what was as good.
        if run is not None and not inertia < run.inertia and moved > 0:
            return run
        run = Run(centers, _copy(labels), inertia, history)
        centers, shift, relocated = sums.centers(labels, distances, centers)
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
            return run
        if shift <= tolerance and not relocated:
            break
    return _finished(assigner, centers, weight, run)


def inertia_of(distances: Any, weight: Float64 | None) -> float:
    """Sum in NumPy's fixed order, which no thread count changes."""
    host = to_host(distances)
    return float(host.sum() if weight is None else (host * weight).sum())


def _copy(labels: Any) -> Any:
    return labels.copy() if isinstance(labels, np.ndarray) else labels


def _finished(assigner: Assigner, centers: Float64, weight: Float64 | None, run: Any) -> Run:
    """The run with the centres of its last update, unless these are no better."""
    labels, distances = assigner.assign(centers, last=True)
    inertia = inertia_of(distances, weight)
    if inertia > run.inertia:
        return Run(*run)
    return Run(centers, _copy(labels), inertia, run.history)
