"""Checks of what users give to K-means: data, weights and initial centres."""

from typing import Any

import numpy as np
from sklearn.utils.validation import _check_feature_names, _check_sample_weight

from ktfast.errors import InputError
from ktfast.kmeans.array_types import Float64
from ktfast.kmeans.containers import host_matrix, is_array, matrices_of, named_part
from ktfast.kmeans.data.memory_plan import GpuTarget
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.data.spherical import SphericalRows
from ktfast.kmeans.data.workspace import float64_on_host
from ktfast.native.arrays import device_of, library_of
from ktfast.native.gpu_memory import open_device


def restore(estimator: Any, state: dict[str, Any]) -> None:
    """Reset the attributes of an estimator to an earlier state."""
    vars(estimator).clear()
    vars(estimator).update(state)


def rows_of(estimator: Any, X: Any, *, reset: bool, is_part: bool = False) -> Rows:
    """Check X and wrap it, without a copy if the kernels read its dtype.

    Parameters
    ----------
    estimator : KMeans
        The estimator. Its parameters say where and how the rows are processed.
    X : array or sequence of array
        See `ktfast.KMeans.fit`.
    reset : bool
        Whether to set `n_features_in_` and `feature_names_in_` of the estimator. If False, X is
        compared with them, or with `cluster_centers_` if the centres were set without a fit.
    is_part : bool, default False
        Whether other processes have further rows. X may then have no rows.

    Returns
    -------
    rows : Rows
        The rows of X.

    Raises
    ------
    ValueError
        X is not two-dimensional, has no rows or no features, or another number of features than in
        `fit`. The matrices of X differ in dtype, features, library or device. X has more rows than
        `memory_budget` allows.
    TypeError
        X is sparse.
    RuntimeError
        `device` cannot be used.
    """
    shards = matrices_of(X)
    _check_feature_names(estimator, named_part(X), reset=reset)
    n, d = sum(len(shard) for shard in shards), int(shards[0].shape[1])
    for count, what in ((n, "sample"), (d, "feature")):
        if count == 0 and not (is_part and what == "sample"):
            raise InputError(
                f"Found array with 0 {what}(s) (shape=({n}, {d})) while a minimum of 1 is required."
            )
    if reset:
        estimator.n_features_in_ = d
    expected = getattr(estimator, "n_features_in_", d)
    if d != expected:
        raise InputError(
            f"X has {d} features, but {type(estimator).__name__} is expecting {expected} features "
            "as input"
        )
    return wrapped(estimator, shards)


def stored_centers(estimator: Any, rows: Rows, centers: Any) -> Float64:
    """Check the centres [k, d] of a fit, or those that the user stored; copy them as float64.

    Raises
    ------
    InputError
        The centres are not finite, or have another number of features than the rows.
    """
    found = host_matrix(centers, "cluster_centers_")
    if found.shape[1] != rows.d:
        raise InputError(
            f"X has {rows.d} features, but {type(estimator).__name__} is expecting "
            f"{found.shape[1]} features as input"
        )
    return found


def wrapped(estimator: Any, shards: list[Any], like: Any = None) -> Rows:
    """Wrap matrices, to be processed on the device that the estimator names.

    Results belong to the library and device of `like` (None: of the matrices).
    """
    kind = SphericalRows if estimator.spherical else Rows
    like, target = shards[0] if like is None else like, None
    device = None if estimator.device is None else str(estimator.device)
    lies, index = device_of(shards[0])
    if device == "cpu" and lies == "cuda":
        shards = [shard.cpu() if library_of(shard) == "torch" else shard.get() for shard in shards]
    elif device not in (None, "cpu"):
        wanted = device.partition(":")[2]
        if lies == "cpu":
            gpu = open_device(int(wanted or 0))
            most = int(np.max(estimator.n_clusters))  # hierarchical K-means has several numbers
            target = GpuTarget(gpu, estimator.memory_budget, most)
        elif wanted and int(wanted) != index:
            raise InputError(
                f"X is on CUDA device {index}, but device is {device!r}; move X, or leave "
                "device=None"
            )
    return kind(shards, n_threads=estimator.n_threads, target=target, like=like)


def weights_of(sample_weight: Any, n: int, *, is_part: bool = False) -> Float64 | None:
    """Check the weights of n rows.

    Parameters
    ----------
    sample_weight : array, float or None
        Weights [n], or one weight for all rows.
    n : int
        Number of rows.
    is_part : bool, default False
        Whether other processes have further rows. All weights may then be zero.

    Returns
    -------
    weight : array, float64 [n], or None
        The weights on the host. None means that all weights are 1.

    Raises
    ------
    ValueError
        A weight is negative or not finite, all weights are zero, or there are not n weights.
    """
    if sample_weight is None:
        return None
    expected = f"sample_weight must be None, one number or numbers [{n}]"
    if not (is_array(sample_weight) or isinstance(sample_weight, int | float)):
        try:
            sample_weight = np.asarray(sample_weight)
        except ValueError as error:
            raise InputError(f"{expected}: {error}; join the weights of all rows") from error
    if isinstance(sample_weight, np.ndarray) and sample_weight.dtype.kind in "USMmVc":
        raise InputError(
            f"{expected}, got dtype {sample_weight.dtype}; convert the weights to float64"
        )
    if is_array(sample_weight):
        sample_weight = float64_on_host(sample_weight)
        if sample_weight.ndim == 0:
            sample_weight = float(sample_weight)
    if is_part and np.shape(sample_weight) in ((), (n,)) and not np.any(sample_weight):
        return np.zeros(n)
    return np.asarray(
        _check_sample_weight(
            sample_weight, np.empty((n, 1)), dtype=np.float64, ensure_non_negative=True
        )
    )


def given_centers(rows: Rows, given: Any, n_clusters: int) -> Float64:
    """Check initial centres that the user gives.

    Parameters
    ----------
    rows : Rows
        The data [n, d].
    given : array [k, d]
        The centres.
    n_clusters : int
        Number of clusters k.

    Returns
    -------
    centers : array, float64 [k, d]
        The centres on the host, rounded to the dtype of the result, of length one if spherical.

    Raises
    ------
    InputError
        The shape is wrong, a value is not finite, or a spherical centre is zero.
    """
    centers = host_matrix(given, "init")
    if centers.shape != (n_clusters, rows.d):
        raise InputError(
            f"The shape of the initial centers {centers.shape} does not match the number "
            f"of clusters and features {(n_clusters, rows.d)}."
        )
    if isinstance(rows, SphericalRows) and not centers.any(axis=1).all():
        raise InputError("init contains a row of zeros, which has no direction; replace this row")
    centers = np.ldexp(centers, rows.exponent)
    return rows.centers_of(centers, np.ones(n_clusters), centers)
