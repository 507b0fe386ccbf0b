"""Checks of the parameters of `ktfast.KMeans`, by scikit-learn's rules."""

import os
import re
import warnings
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

from sklearn.utils._param_validation import (
    Interval,
    InvalidParameterError,
    StrOptions,
    make_constraint,
)

from ktfast.errors import InputError
from ktfast.kmeans.distributed.communicator import Communicator
from ktfast.kmeans.seeding import METHODS
from ktfast.ops.kmeans_assign import PRECISIONS


class ParameterError(InputError, InvalidParameterError):  # type: ignore[misc]
    """A parameter has a wrong type or value: a ValueError and a TypeError, as in scikit-learn."""


def _quoted(names: tuple[str, ...]) -> str:
    return ", ".join(f'"{name}"' for name in names)


_COUNT = Interval(Integral, 1, None, closed="left")
_INIT_NAMES = tuple(METHODS)
# Per parameter: what scikit-learn's constraints allow, and the same in words.
_RULES: dict[str, tuple[list[Any], str]] = {
    "n_clusters": ([_COUNT], "an integer of at least 1"),
    "init": (
        [StrOptions(set(_INIT_NAMES)), callable, "array-like"],
        f"{_quoted(_INIT_NAMES)}, an array or a callable",
    ),
    "n_init": ([StrOptions({"auto"}), _COUNT], '"auto" or an integer of at least 1'),
    "max_iter": ([_COUNT], "an integer of at least 1"),
    "tol": ([Interval(Real, 0, None, closed="left")], "a number of at least 0"),
    "verbose": (["verbose"], "an integer of at least 0 or a bool"),
    "random_state": (
        ["random_state"],
        "None, an integer from 0 to 2**32 - 1, or a numpy.random.RandomState",
    ),
    "copy_x": (["boolean"], "True or False"),
    "algorithm": ([StrOptions({"lloyd"})], '"lloyd"'),
    "spherical": (["boolean"], "True or False"),
    "precision": ([StrOptions(set(PRECISIONS))], f"one of {', '.join(PRECISIONS)}"),
    "n_threads": ([_COUNT, None], "None or an integer of at least 1"),
    "memory_budget": ([_COUNT, None], "None or a number of bytes (an integer of at least 1)"),
    "size_min": ([_COUNT, None], "None or an integer of at least 1"),
    "size_max": ([_COUNT, None], "None or an integer of at least 1"),
    "distributed": (
        [StrOptions({"torch"}), Communicator, None],
        'None, "torch" or an object with the methods of ktfast.kmeans.distributed.Communicator',
    ),
    "checkpoint": ([str, os.PathLike, None], "None or the path of a file"),
    "checkpoint_seconds": (
        [Interval(Real, 0, None, closed="left")],
        "a number of seconds of at least 0",
    ),
}
_MAY_BE_BOOL = {"copy_x", "spherical", "verbose"}


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
    ParameterError
        A parameter has a wrong type or is out of range.
    """
    check_each(estimator, _RULES)
    _check_combinations(estimator)
    return _n_runs(estimator.init, estimator.n_init)


def check_each(estimator: Any, names: Iterable[str]) -> None:
    """Check the parameters with these names one by one, and `device`.

    Raises
    ------
    ParameterError
        A parameter has a wrong type or is out of range.
    """
    for name in names:
        constraints, allowed = _RULES[name]
        value = getattr(estimator, name)
        fits = any(make_constraint(constraint).is_satisfied_by(value) for constraint in constraints)
        if not fits or (isinstance(value, bool) and name not in _MAY_BE_BOOL):
            raise ParameterError(f"{name} must be {allowed}, got {value!r}")
    device = estimator.device
    if device is not None and not re.fullmatch(r"cpu|cuda(:[0-9]+)?", str(device)):
        raise ParameterError(f'device must be None, "cpu", "cuda" or "cuda:N", got {device!r}')


def _check_combinations(estimator: Any) -> None:
    """Refuse parameters that exclude each other."""
    bounded = estimator.size_min is not None or estimator.size_max is not None
    for name in ("distributed", "checkpoint"):
        if bounded and getattr(estimator, name) is not None:
            raise ParameterError(
                f"{name} was given together with size_min or size_max; leave out {name} or the "
                "bounds"
            )
    if estimator.checkpoint is not None and estimator.precision == "fast":
        raise ParameterError(
            'checkpoint was given together with precision="fast", whose labels depend on earlier '
            'iterations; pass precision="exact", or leave out checkpoint'
        )


def warn_of_one_run(estimator: Any) -> None:
    """Warn, as scikit-learn does, that given centres are tried once whatever `n_init` says."""
    init, n_init = estimator.init, estimator.n_init
    if not isinstance(init, str) and not callable(init) and n_init not in ("auto", 1):
        warnings.warn(
            "Explicit initial center position passed: performing only one init in "
            f"{type(estimator).__name__} instead of n_init={n_init}.",
            RuntimeWarning,
            stacklevel=3,
        )


def _n_runs(init: Any, n_init: Any) -> int:
    """Number of runs: given centres are tried once."""
    if not isinstance(init, str) and not callable(init):
        return 1
    if n_init == "auto":
        return 10 if callable(init) or init == "random" else 1
    return int(n_init)
