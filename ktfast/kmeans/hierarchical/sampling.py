"""Balanced samples: every cluster of a level gives equally many rows, as far as it has them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ktfast.kmeans.array_types import Float64, Int64


def balanced_rows(labels: Sequence[Any], n: int, keys: Float64, random: Any) -> Int64:
    """Draw rows so that the clusters of each level are represented equally.

    The wanted number of rows is divided among the clusters of the coarsest level, then the number
    of each cluster among its clusters of the level below, and so on.

    Parameters
    ----------
    labels : sequence of array, int [m]
        Per level, from the finest to the coarsest: the cluster of each row (finest level) or of
        each cluster of the level below.
    n : int
        Number of rows to draw; at most the number of rows.
    keys : array, float64 [number of rows]
        Within a cluster of the finest level, the rows with the smallest keys are drawn.
    random : numpy.random.RandomState
        Chooses the clusters that give one row more than others.

    Returns
    -------
    rows : array, int64 [n]
        Numbers of the drawn rows in ascending order.

    Notes
    -----
    Vo et al., "Automatic data curation for self-supervised learning" (2024), section 3.4.
    """
    sizes = [np.bincount(labels[0])]
    for parents in labels[1:]:
        sizes.append(np.bincount(parents[: len(sizes[-1])], weights=sizes[-1]).astype(np.int64))
    wanted = allotted(sizes[-1], n, random)
    for level in range(len(labels) - 1, 0, -1):
        below = np.zeros(len(sizes[level - 1]), np.int64)
        parents = labels[level][: len(below)]
        order = np.argsort(parents, kind="stable")
        ends = np.searchsorted(parents[order], np.arange(len(wanted) + 1))
        for cluster in np.flatnonzero(wanted):
            children = order[ends[cluster] : ends[cluster + 1]]
            below[children] = allotted(sizes[level - 1][children], int(wanted[cluster]), random)
        wanted = below
    order = np.lexsort((keys, labels[0]))
    starts = np.cumsum(sizes[0]) - sizes[0]
    rank = np.arange(len(order)) - starts[labels[0][order]]
    return np.sort(order[rank < wanted[labels[0][order]]])


def allotted(sizes: Int64, n: int, random: Any) -> Int64:
    """Divide n rows equally among clusters, of which none gives more rows than it has.

    Parameters
    ----------
    sizes : array, int64 [k]
        Number of rows of each cluster.
    n : int
        Number of rows, at most the sum of the sizes.
    random : numpy.random.RandomState
        Chooses the clusters that give one row more than others.

    Returns
    -------
    wanted : array, int64 [k]
        Number of rows that each cluster gives. The sum is n.
    """
    low, high = 0, int(sizes.max(initial=0))
    while low < high:  # the largest limit with at most n rows
        middle = (low + high + 1) // 2
        if int(np.minimum(sizes, middle).sum()) <= n:
            low = middle
        else:
            high = middle - 1
    wanted = np.minimum(sizes, low)
    rest = n - int(wanted.sum())
    if rest:
        wanted[random.choice(np.flatnonzero(sizes > low), rest, replace=False)] += 1
    return wanted
