"""K-means in plain float64 NumPy. The ops and the estimator must agree with these functions."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


class LloydResult(NamedTuple):
    """Result of `lloyd`.

    Attributes
    ----------
    centers : array, float64 [k, d]
        Centres after the last iteration.
    labels : array, int64 [n]
        Nearest of these centres for each row.
    inertia : list of float
        Sum of squared distances in each iteration.
    """

    centers: Array
    labels: npt.NDArray[np.int64]
    inertia: list[float]


def assign(x: npt.ArrayLike, centers: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], Array]:
    """Find the nearest centre of each row, and the squared distance to it.

    Parameters
    ----------
    x : array [n, d]
        Rows.
    centers : array [k, d]
        Centres.

    Returns
    -------
    labels : array, int64 [n]
        Index of the nearest centre; of equally near centres the lowest index.
    distances : array, float64 [n]
        Squared distances.
    """
    rows = np.asarray(x, dtype=np.float64)
    targets = np.asarray(centers, dtype=np.float64)
    distances = np.empty((len(rows), len(targets)))
    for k, center in enumerate(targets):
        distances[:, k] = ((rows - center) ** 2).sum(axis=1)
    labels = distances.argmin(axis=1)
    return labels, distances[np.arange(len(rows)), labels]


def update(
    x: npt.ArrayLike,
    labels: npt.ArrayLike,
    n_clusters: int,
    sample_weight: npt.ArrayLike | None = None,
) -> tuple[Array, Array]:
    """The sum [k, d] and the total weight [k] of the rows of each cluster."""
    rows = np.asarray(x, dtype=np.float64)
    weight = np.ones(len(rows)) if sample_weight is None else np.asarray(sample_weight, np.float64)
    sums = np.zeros((n_clusters, rows.shape[1]))
    counts = np.zeros(n_clusters)
    for row, label, w in zip(rows, np.asarray(labels), weight, strict=True):
        sums[label] += w * row
        counts[label] += w
    return sums, counts


def lloyd(x: npt.ArrayLike, centers: npt.ArrayLike, n_iterations: int) -> LloydResult:
    """Run Lloyd's algorithm from given centres; an empty cluster keeps its centre.

    Parameters
    ----------
    x : array [n, d]
        Rows.
    centers : array [k, d]
        Centres to start from.
    n_iterations : int
        Most iterations, each of one assignment and one update. The algorithm stops earlier if the
        centres do not change.

    Returns
    -------
    LloydResult
        Centres, labels and inertia.
    """
    current = np.array(centers, dtype=np.float64)
    inertia: list[float] = []
    for _ in range(n_iterations):
        labels, distances = assign(x, current)
        inertia.append(float(distances.sum()))
        sums, counts = update(x, labels, len(current))
        filled = counts > 0
        moved = current.copy()
        moved[filled] = sums[filled] / counts[filled, None]
        if np.array_equal(moved, current):
            break
        current = moved
    return LloydResult(current, assign(x, current)[0], inertia)
