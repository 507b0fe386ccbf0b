"""What the parameters of `HierarchicalKMeans` ask for, checked."""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ktfast.kmeans.parameters import ParameterError, check_each
from ktfast.kmeans.seeding import METHODS

# "auto" finds at least this many clusters group by group.
_MANY = 10_000
_PLAIN = (
    "max_iter", "tol", "random_state", "spherical", "n_threads", "memory_budget",
)  # fmt: skip


class Plan(NamedTuple):
    """The levels of a hierarchy, from the finest to the coarsest.

    Attributes
    ----------
    n_clusters : tuple of int
        Number of clusters of each level.
    n_groups : int
        Number of groups in which the clusters of the finest level are found.
    n_resamples : tuple of int
        Number of resampling steps of each level.
    resample_size : tuple of (int or None)
        Rows per cluster in a resampling step of each level; None means half the mean size.
    """

    n_clusters: tuple[int, ...]
    n_groups: int
    n_resamples: tuple[int, ...]
    resample_size: tuple[int | None, ...]


def plan_of(estimator: Any) -> Plan:
    """Check the parameters of a `HierarchicalKMeans`.

    Parameters
    ----------
    estimator : HierarchicalKMeans
        The estimator, with the parameters that the user gave.

    Returns
    -------
    plan : Plan
        The levels that the parameters ask for.

    Raises
    ------
    ParameterError
        A parameter has a wrong type or is out of range.
    """
    check_each(estimator, _PLAIN)
    if not (isinstance(estimator.init, str) and estimator.init in METHODS):
        names = ", ".join(f'"{name}"' for name in METHODS)
        raise ParameterError(f"init must be one of {names}, got {estimator.init!r}")
    n_clusters = _levels(estimator.n_clusters)
    above = len(n_clusters) - 1
    resamples = estimator.n_resamples
    if _is_count(resamples, 0):
        resamples = (0, *[resamples] * above)
    size = estimator.resample_size
    if size == "auto" or _is_count(size, 2):
        size = [None if size == "auto" else size] * (above + 1)
    return Plan(
        n_clusters,
        _groups(estimator.n_groups, n_clusters[0]),
        _per_level("n_resamples", resamples, above + 1, 0, "an integer of at least 0"),
        _per_level("resample_size", size, above + 1, 2, '"auto", an integer of at least 2'),
    )


def _is_count(value: Any, least: int) -> bool:
    is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return is_integer and int(value) >= least


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes)


def _levels(given: Any) -> tuple[int, ...]:
    """The numbers of clusters; an integer k stands for (k, sqrt(k))."""
    if _is_count(given, 1):
        coarse = math.ceil(math.sqrt(int(given)))
        return (int(given), coarse) if coarse < int(given) else (int(given),)
    fits = _is_sequence(given) and len(given) > 0 and all(_is_count(k, 1) for k in given)
    if not fits or any(a <= b for a, b in itertools.pairwise(given)):
        raise ParameterError(
            "n_clusters must be an integer of at least 1, or such integers in descending order, "
            f"from the finest level to the coarsest, got {given!r}"
        )
    return tuple(int(k) for k in given)


def _groups(given: Any, n_clusters: int) -> int:
    """The number of groups of the finest level."""
    if isinstance(given, str) and given == "auto":
        return math.ceil(math.sqrt(n_clusters)) if n_clusters >= _MANY else 1
    if not _is_count(given, 1) or int(given) > n_clusters:
        raise ParameterError(
            'n_groups must be "auto" or an integer from 1 to the number of clusters of the finest '
            f"level ({n_clusters}), got {given!r}"
        )
    return int(given)


def _per_level(name: str, given: Any, levels: int, least: int, what: str) -> tuple[Any, ...]:
    """One value for each level."""
    fits = _is_sequence(given) and len(given) == levels
    if not fits or not all(value is None or _is_count(value, least) for value in given):
        raise ParameterError(
            f"{name} must be {what} or a list with one such integer per level ({levels}), from the "
            f"finest level to the coarsest, got {given!r}"
        )
    return tuple(None if value is None else int(value) for value in given)
