"""Lloyd's iterations: assign, update, relocate what became empty, until nothing moves."""

import logging
import time
from typing import Any, NamedTuple

import numpy as np

from ktfast.kmeans_relocation import relocate_empty
from ktfast.kmeans_rows import Float64, Rows, to_host

_logger = logging.getLogger(__name__)


class Run(NamedTuple):
    """The outcome of one initialisation."""

    centers: Float64
    labels: Any
    inertia: float
    history: list[dict[str, float]]


def lloyd(
    rows: Rows,
    centers: Float64,
    weight: Float64 | None,
    *,
    max_iter: int,
    tolerance: float,
    verbose: int = 0,
) -> Run:
    """Run Lloyd's algorithm from `centers`; the labels are those of the centres it returns.

    Parameters
    ----------
    rows : the data [n, d].
    centers : float64 [k, d], rounded to `rows.center_dtype`.
    weight : float64 [n] or None: all 1.
    max_iter : the most iterations.
    tolerance : stop once the centres' squared moves add up to at most this.
    verbose : above 0 logs each iteration at level INFO.
    """
    history: list[dict[str, float]] = []
    run: Run | None = None
    for iteration in range(max_iter):
        started = time.perf_counter()
        labels, distances = rows.assign(centers)
        inertia = inertia_of(distances, weight)
        moved = rows.n if run is None else int((labels != run.labels).sum())
        # Rounding alone can move rows without a gain: keep what was as good.
        if run is not None and not inertia < run.inertia and moved > 0:
            return run
        run = Run(centers, labels, inertia, history)
        sums, counts = rows.update(labels, len(centers), weight)
        relocated = relocate_empty(rows, labels, distances, weight, sums, counts)
        following = centers.copy()
        filled = counts > 0
        following[filled] = sums[filled] / counts[filled, None]
        following = rounded(following, rows.center_dtype)
        shift = float(((following - centers) ** 2).sum())
        history.append(
            {
                "inertia": inertia,
                "moved": moved,
                "shift": shift,
                "seconds": time.perf_counter() - started,
            }
        )
        _logger.log(
            logging.INFO if verbose else logging.DEBUG,
            "k-means iteration %d: inertia %.9g, %d rows moved, shift %.3g",
            iteration + 1,
            inertia,
            moved,
            shift,
        )
        if shift == 0:
            return run
        centers = following
        if shift <= tolerance and not relocated:
            break
    return _finished(rows, centers, weight, run)


def rounded(centers: Float64, dtype: str) -> Float64:
    """Centres as the result's dtype holds them, in float64, so that labels match the result."""
    return centers.astype(dtype).astype(np.float64)


def inertia_of(distances: Any, weight: Float64 | None) -> float:
    """Sum in NumPy's fixed order, which no thread count changes."""
    host = to_host(distances)
    return float(host.sum() if weight is None else (host * weight).sum())


def _finished(rows: Rows, centers: Float64, weight: Float64 | None, run: Any) -> Run:
    """The run with the centres of its last update, unless these are no better."""
    labels, distances = rows.assign(centers)
    inertia = inertia_of(distances, weight)
    return Run(centers, labels, inertia, run.history) if inertia <= run.inertia else run
