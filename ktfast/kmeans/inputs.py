"""Checks of what users give to K-means: parameters, data, weights and initial centres."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils.validation import _check_feature_names, _check_sample_weight, validate_data

from ktfast.errors import InputError
from ktfast.kmeans.array_types import Float64
from ktfast.kmeans.data.memory_plan import GpuTarget
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.data.spherical import SphericalRows
from ktfast.kmeans.data.workspace import float64_on_host
from ktfast.kmeans.seeding import METHODS
from ktfast.native.arrays import device_of, library_of
from ktfast.native.gpu_memory import open_device
from ktfast.ops.kmeans_assign import PRECISIONS

# NumPy dtypes that the kernels read; all others are converted to float64.
_NUMPY_DTYPES = (np.float64, np.float32, np.float16, np.uint8, np.int8)


def check_parameters(estimator: Any) -> int:
    """Check the parameters of `ktfast.KMeans`.

    Parameters
    ----------
    estimator : KMeans
        The estimator, with the parameters that the user gave.

    Returns
    -------
    n_init : int
        Number of runs.

    Raises
    ------
    InputError
        A parameter is out of range.
    """
    for name in ("n_clusters", "max_iter"):
        value = getattr(estimator, name)
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise InputError(f"{name} must be an integer of at least 1, got {value!r}")
    if not estimator.tol >= 0:
        raise InputError(f"tol must be 0 or more, got {estimator.tol!r}")
    if estimator.algorithm != "lloyd":
        raise InputError(f'algorithm must be "lloyd", got {estimator.algorithm!r}')
    if estimator.precision not in PRECISIONS:
        raise InputError(
            f"precision must be one of {', '.join(PRECISIONS)}, got {estimator.precision!r}"
        )
    _check_device(estimator.device, estimator.memory_budget)
    return _check_initialisation(estimator.init, estimator.n_init)


def _check_initialisation(init: Any, n_init: Any) -> int:
    """Check `init` and `n_init`; return the number of runs."""
    if isinstance(init, str) and init not in METHODS:
        names = ", ".join(f'"{name}"' for name in METHODS)
        raise InputError(f"init must be {names}, an array or a callable, got {init!r}")
    if n_init == "auto":
        return 10 if callable(init) or (isinstance(init, str) and init == "random") else 1
    if isinstance(n_init, str) or n_init < 1:
        raise InputError(f'n_init must be "auto" or at least 1, got {n_init!r}')
    return int(n_init) if isinstance(init, str) or callable(init) else 1


def _check_device(device: Any, memory_budget: Any) -> None:
    if device is not None and not re.fullmatch(r"cpu|cuda(:[0-9]+)?", str(device)):
        raise InputError(f'device must be None, "cpu", "cuda" or "cuda:N", got {device!r}')
    if memory_budget is None:
        return
    is_number = isinstance(memory_budget, int | np.integer) and not isinstance(memory_budget, bool)
    if not is_number or memory_budget < 1:
        raise InputError(
            "memory_budget must be None or a number of bytes (an integer of at least 1), "
            f"got {memory_budget!r}"
        )


def restore(estimator: Any, state: dict[str, Any]) -> None:
    """Reset the attributes of an estimator to an earlier state."""
    vars(estimator).clear()
    vars(estimator).update(state)


def rows_of(estimator: Any, X: Any, *, reset: bool) -> Rows:
    """Check X and wrap it, without a copy if the kernels read its dtype.

    Parameters
    ----------
    estimator : KMeans
        The estimator. Its parameters say where and how the rows are processed.
    X : array or sequence of array
        See `ktfast.KMeans.fit`.
    reset : bool
        Whether to set `n_features_in_` and `feature_names_in_` of the estimator. If False, X is
        compared with them.

    Returns
    -------
    rows : Rows
        The rows of X.

    Raises
    ------
    ValueError
        X has no rows or no features, or another number of features than in `fit`. The matrices of
        X differ in dtype, features, library or device. X has more rows than `memory_budget` allows.
    RuntimeError
        `device` cannot be used.
    """
    shards = _as_shards(X)
    if shards is None:
        checked = validate_data(
            estimator, X, reset=reset, dtype=_NUMPY_DTYPES, ensure_all_finite=False, order=None
        )
        return _on_device(estimator, [checked])
    n, d = sum(len(shard) for shard in shards), int(shards[0].shape[1])
    if n == 0 or d == 0:
        raise InputError(
            f"Found array with {n} sample(s) and {d} feature(s) while a minimum of 1 is required."
        )
    rows = _on_device(estimator, shards)
    _check_feature_names(estimator, X, reset=reset)
    if reset:
        estimator.n_features_in_ = rows.d
    elif rows.d != estimator.n_features_in_:
        raise InputError(
            f"X has {rows.d} features, but {type(estimator).__name__} is expecting "
            f"{estimator.n_features_in_} features as input"
        )
    return rows


def _on_device(estimator: Any, shards: list[Any]) -> Rows:
    """Wrap matrices, to be processed on the device that the estimator names."""
    kind = SphericalRows if estimator.spherical else Rows
    like, device, target = shards[0], estimator.device, None
    lies, index = device_of(like)
    if device == "cpu" and lies == "cuda":
        shards = [shard.cpu() if library_of(shard) == "torch" else shard.get() for shard in shards]
    elif device not in (None, "cpu"):
        wanted = device.partition(":")[2]
        if lies == "cpu":
            gpu = open_device(int(wanted or 0))
            target = GpuTarget(gpu, estimator.memory_budget, estimator.n_clusters)
        elif wanted and int(wanted) != index:
            raise InputError(
                f"X is on CUDA device {index}, but device is {device!r}; move X, or leave "
                "device=None"
            )
    return kind(shards, n_threads=estimator.n_threads, target=target, like=like)


def weights_of(sample_weight: Any, n: int) -> Float64 | None:
    """Check the weights of n rows.

    Parameters
    ----------
    sample_weight : array, float or None
        Weights [n], or one weight for all rows.
    n : int
        Number of rows.

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
    if is_array(sample_weight):
        sample_weight = float64_on_host(sample_weight)
    elif not isinstance(sample_weight, int | float):
        sample_weight = np.asarray(sample_weight)
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
    centers = float64_on_host(given if is_array(given) else np.asarray(given))
    if centers.shape != (n_clusters, rows.d):
        raise InputError(
            f"The shape of the initial centers {centers.shape} does not match the number "
            f"of clusters and features {(n_clusters, rows.d)}."
        )
    if not np.isfinite(centers).all():
        raise InputError("init contains NaN or infinity; initial centers must be finite")
    if isinstance(rows, SphericalRows) and not centers.any(axis=1).all():
        raise InputError("init contains a row of zeros, which has no direction; replace this row")
    return rows.centers_of(centers, np.ones(n_clusters), centers)


def is_array(value: Any) -> bool:
    """Whether a value is an array of NumPy, torch or CuPy."""
    try:
        library_of(value)
    except TypeError:
        return False
    return True


def _as_shards(X: Any) -> list[Any] | None:
    """The matrices of X if the kernels read them in place; None if scikit-learn must check X."""
    if isinstance(X, Sequence) and len(X) > 0 and all(_is_matrix(part) for part in X):
        return list(X)
    if is_array(X) and (library_of(X) != "numpy" or isinstance(X, np.memmap)):
        return [X]
    return None


def _is_matrix(value: Any) -> bool:
    return is_array(value) and len(value.shape) == 2
