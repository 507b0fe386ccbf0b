"""Where K-means starts: initial centres for `fit`, and the first state of `partial_fit`."""

from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from ktfast.errors import InputError
from ktfast.kmeans.array_types import Float64
from ktfast.kmeans.containers import host_matrix
from ktfast.kmeans.data.moments import Moments
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.distributed.leader import led
from ktfast.kmeans.inputs import given_centers
from ktfast.kmeans.minibatch import MiniBatchState
from ktfast.kmeans.progress import Progress
from ktfast.kmeans.seeding import initial_centers


def start_centers(
    estimator: Any,
    X: Any,
    rows: Rows,
    weight: Float64 | None,
    moments: Moments,
    random_state: Any,
    progress: Progress,
) -> Float64:
    """Choose the initial centres float64 [k, d] that the `init` of a `KMeans` asks for."""
    init, n_clusters = estimator.init, estimator.n_clusters
    if isinstance(init, str):
        return led(
            rows,
            weight,
            lambda every, weights: initial_centers(
                init, every, n_clusters, weights, moments, random_state, progress
            ),
        )
    if callable(init):
        if rows.ranks.size == 1:
            init = init(X, n_clusters, random_state=random_state)
        else:  # the arrays of rank 0 may lie on a GPU, so they are sent as an array of NumPy
            init = rows.ranks.decided(
                lambda: host_matrix(init(X, n_clusters, random_state=random_state), "init")
            )
    return rows.ranks.agreed(lambda: given_centers(rows, init, n_clusters))


def start_state(
    estimator: Any, X: Any, rows: Rows, weight: Float64 | None, moments: Moments
) -> MiniBatchState:
    """Return the state that `KMeans.partial_fit` continues from.

    This is the state after the last batch. Before the first batch, the state is made from the
    centres of `fit`, or from initial centres if the estimator is not fitted. Centres that the user
    has set since then have no weight yet.

    Raises
    ------
    InputError
        `n_clusters` was changed since the last batch.
    """
    if hasattr(estimator, "counts_") and len(estimator.counts_) != estimator.n_clusters:
        raise InputError(
            f"n_clusters is {estimator.n_clusters}, but there are {len(estimator.counts_)} centers "
            f"to go on from; set n_clusters to {len(estimator.counts_)}, or start with a clone of "
            "the estimator"
        )
    random_state = check_random_state(estimator.random_state)
    stored = getattr(estimator, "cluster_centers_", None)
    if stored is None:
        progress = Progress(estimator.max_iter, estimator.verbose)
        centers = start_centers(estimator, X, rows, weight, moments, random_state, progress)
        counts = np.zeros(estimator.n_clusters)
    elif hasattr(estimator, "_batches"):
        state: MiniBatchState = estimator._batches
        if np.array_equal(host_matrix(stored, "cluster_centers_"), state.centers):
            return state.scaled(rows.exponent)
        random_state = state.random_state
        centers = given_centers(rows, stored, estimator.n_clusters)
        counts = np.zeros(estimator.n_clusters)
    else:
        centers = given_centers(rows, stored, estimator.n_clusters)
        # Centres that the user stored without a fit have no weight yet.
        counts = np.array(getattr(estimator, "counts_", np.zeros(estimator.n_clusters)))
    return MiniBatchState(centers, centers * counts[:, None], counts, random_state)
