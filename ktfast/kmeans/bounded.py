"""K-means with bounded cluster sizes: Lloyd's algorithm with a bounded assignment.

`ktfast.KMeans` imports this module only if `size_min` or `size_max` is given.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ktfast.errors import InputError
from ktfast.kmeans.array_types import Float64, Int32
from ktfast.kmeans.balance import Bounds, bounded_labels
from ktfast.kmeans.data.passes import inertia_of
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.data.workspace import float64_on_host
from ktfast.kmeans.lloyd import LloydResult
from ktfast.kmeans.sums import make_sums

# Float64 values of the rows that are compared with their centres at a time.
_BLOCK_VALUES = 1 << 20


def bounds_of(estimator: Any, rows: Rows, weight: Float64 | None) -> Bounds:
    """Check `size_min` and `size_max` of a `KMeans` against the rows.

    Parameters
    ----------
    estimator : KMeans
        The estimator. At least one of its two bounds is given.
    rows : Rows
        The data [n, d].
    weight : array, float64 [n], optional
        Weights of the rows.

    Returns
    -------
    bounds : Bounds
        Fewest and most rows of a cluster. A missing `size_min` is 1, a missing `size_max` is n.

    Raises
    ------
    InputError
        No division of the rows keeps the bounds, the rows have weights, or a GPU processes them.
    """
    k, n = estimator.n_clusters, rows.n
    low = 1 if estimator.size_min is None else int(estimator.size_min)
    high = n if estimator.size_max is None else int(estimator.size_max)
    if weight is not None:
        raise InputError(
            "sample_weight was given together with size_min or size_max, which count rows; leave "
            "out sample_weight, or both bounds"
        )
    if rows.on_gpu:
        raise InputError(
            'size_min and size_max need a CPU, but a GPU processes the rows; pass device="cpu"'
        )
    if low > high:
        raise InputError(f"size_min={low} is larger than size_max={high}; exchange the bounds")
    if k * low > n:
        raise InputError(
            f"{k} clusters of at least size_min={low} rows need {k * low} rows, but X has {n}; "
            f"lower size_min to at most {n // k}"
        )
    if k * high < n:
        raise InputError(
            f"{k} clusters of at most size_max={high} rows hold {k * high} rows, but X has {n}; "
            f"raise size_max to at least {-(-n // k)}"
        )
    return Bounds(low, high)


def bounded_lloyd(
    rows: Rows,
    centers: Float64,
    bounds: Bounds,
    *,
    max_iter: int,
    tolerance: float,
    observe: Callable[[LloydResult], None] | None = None,
) -> LloydResult:
    """Alternate between a bounded assignment and the means of the clusters.

    Parameters
    ----------
    rows : Rows
        The data [n, d], processed by a CPU.
    centers : array, float64 [k, d]
        Initial centres, rounded by `rows.rounded`.
    bounds : Bounds
        Fewest and most rows of a cluster.
    max_iter : int
        Most iterations.
    tolerance : float
        The run ends one iteration after the squared movements of the centres sum to at most this
        value.
    observe : callable, optional
        Called with the present result after each iteration.

    Returns
    -------
    result : LloydResult
        The labels with the lowest inertia. The centres are the means of these clusters.

    Notes
    -----
    Bradley, Bennett and Demiriz, "Constrained k-means clustering" (2000), state the problem. They
    solve each assignment as a linear program; see `ktfast.kmeans.balance` for the method here.
    """
    history: list[dict[str, float]] = []
    result: LloydResult | None = None
    sums = make_sums(rows, len(centers), None)
    prices = np.zeros(len(centers))
    is_last = False
    for iteration in range(max_iter):
        started = time.perf_counter()
        before = None if result is None else result.labels
        labels = bounded_labels(rows, centers, bounds, prices, before)
        moved = rows.n if before is None else int(np.count_nonzero(labels != before))
        # No cluster is empty, so the means need no distances: no row is relocated.
        centers, shift, _ = sums.centers(labels, None, centers)
        inertia = inertia_of(rows, _own_distances(rows, centers, labels))
        # The assignment is not always the best one, so the inertia can rise.
        if result is not None and not inertia < result.inertia and moved > 0:
            return result
        history.append(
            {
                "inertia": inertia,
                "moved": moved,
                "shift": shift,
                "relocated": 0,
                "skipped": 0.0,
                "seconds": time.perf_counter() - started,
            }
        )
        result = LloydResult(centers, labels, inertia, history)
        if observe is not None:
            observe(result)
        if shift == 0 or is_last or iteration + 1 == max_iter:
            break
        is_last = shift <= tolerance
    assert result is not None  # max_iter is at least 1
    return result


def _own_distances(rows: Rows, centers: Float64, labels: Int32) -> Float64:
    """Squared distance float64 [n] of each row to the centre of its cluster."""
    distances = np.empty(rows.n)
    for place, block in rows.blocks(max(1, _BLOCK_VALUES // max(1, rows.d))):
        difference = float64_on_host(block) - centers[labels[place]]
        distances[place] = (difference * difference).sum(axis=1)
    return distances
