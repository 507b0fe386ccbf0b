"""First centres for K-means: k-means++ drawn in batches, at the price of one assignment."""

import logging
import math
from typing import Any

import numpy as np

from ktfast.kmeans_rows import Float64, Int64, Rows, to_host
from ktfast.ops.kmeans_assign import kmeans_assign

_logger = logging.getLogger(__name__)

# Candidates whose distances to one another are computed at a time.
_CHUNK = 32
# Give up on a batch once this many candidates per wanted centre were refused: a fresh pass over the
# rows is then cheaper.
_DRAWS_PER_CENTER = 8
# With few centres one unlucky draw costs much, so the best of several seedings is taken.
_REPEATED_BELOW = 256


def kmeans_plus_plus(
    rows: Rows, n_clusters: int, weight: Float64 | None, random_state: Any
) -> Int64:
    """Choose rows as first centres, each in proportion to weight times squared distance.

    The distance is that to the nearest centre chosen before it.

    Parameters
    ----------
    rows : n >= n_clusters rows.
    n_clusters : k.
    weight : float64 [n] or None.
    random_state : numpy.random.RandomState.

    Returns
    -------
    int64 [k], distinct row numbers. Where the rows have fewer than k distinct values, the last ones
    are arbitrary.

    Notes
    -----
    Arthur and Vassilvitskii, "k-means++: the advantages of careful seeding" (2007). The centres of
    a batch are drawn by rejection: a candidate comes from the distribution before the batch and is
    kept with the probability by which its distance shrank since, which gives exactly the
    distribution of one draw after the other. As a batch doubles the centres, the rows are
    passed over about log2(k) times instead of k times. Below 256 clusters the best of 2 + ln(k)
    seedings is taken, in place of scikit-learn's several trials for each centre.
    """
    repeats = 2 + int(math.log(n_clusters)) if 1 < n_clusters < _REPEATED_BELOW else 1
    best, least = _seed_once(rows, n_clusters, weight, random_state)
    for _ in range(repeats - 1):
        chosen, potential = _seed_once(rows, n_clusters, weight, random_state)
        if potential < least:
            best, least = chosen, potential
    return best


def _seed_once(
    rows: Rows, n_clusters: int, weight: Float64 | None, random_state: Any
) -> tuple[Int64, float]:
    """One seeding, and the potential (the inertia) that it reaches."""
    first = np.ones(rows.n) if weight is None else weight
    chosen = [int(_draw(np.cumsum(first), 1, random_state)[0])]
    distances = to_host(rows.assign(rows.take(np.array(chosen)))[1])
    while True:
        mass = distances if weight is None else distances * weight
        cumulative = np.cumsum(mass)
        potential = float(cumulative[-1])
        wanted = min(n_clusters - len(chosen), len(chosen))
        if wanted == 0:
            return np.array(chosen), potential
        if not potential > 0:  # every row lies on a centre
            rest = np.setdiff1d(np.arange(rows.n), chosen)
            filler = random_state.choice(rest, n_clusters - len(chosen), replace=False)
            return np.concatenate([np.array(chosen, dtype=np.int64), filler]), 0.0
        batch = _draw_batch(rows, distances, cumulative, wanted, random_state)
        chosen.extend(batch)
        distances = np.minimum(distances, to_host(rows.assign(rows.take(np.array(batch)))[1]))
        _logger.debug("k-means++: %d of %d centres", len(chosen), n_clusters)


def _draw(cumulative: Float64, n: int, random_state: Any) -> Int64:
    """Row numbers with probability proportional to the steps of `cumulative`; never a zero step."""
    points = random_state.random_sample(n) * cumulative[-1]
    drawn = np.searchsorted(cumulative, points, side="right")
    last = int(np.searchsorted(cumulative, cumulative[-1], side="left"))
    return np.asarray(np.minimum(drawn, last), dtype=np.int64)


def _draw_batch(
    rows: Rows, distances: Float64, cumulative: Float64, wanted: int, random_state: Any
) -> list[int]:
    """Between 1 and `wanted` further centres, by rejection from the present distribution."""
    batch: list[int] = []  # its first candidate is kept for sure: nothing shrank before it
    kept = np.empty((wanted, rows.d))
    for _ in range(max(1, _DRAWS_PER_CENTER * wanted // _CHUNK)):
        candidates = _draw(cumulative, min(_CHUNK, 4 * wanted), random_state)
        chances = random_state.random_sample(len(candidates))
        points = rows.take(candidates)
        nearest = distances[candidates]
        if batch:
            to_batch = kmeans_assign(
                points, kept[: len(batch)], n_threads=rows.n_threads, distance_dtype="float64"
            )[1]
            nearest = np.minimum(nearest, to_batch)
        for i, candidate in enumerate(candidates):
            if nearest[i] == 0 or chances[i] * distances[candidate] > nearest[i]:
                continue
            kept[len(batch)] = points[i]
            batch.append(int(candidate))
            if len(batch) == wanted:
                return batch
            nearest = np.minimum(nearest, _squared_distances(points, points[i]))
    return batch


def _squared_distances(points: Float64, point: Float64) -> Float64:
    difference = points - point
    return np.asarray(np.einsum("nd,nd->n", difference, difference))
