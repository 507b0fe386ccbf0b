"""The parameters of a clustering, as `faiss.ClusteringParameters` holds them."""

from typing import Any

import numpy as np

from ktfast.errors import InputError
from ktfast.kmeans.faiss.inputs import check_options

ClusteringInitMethod_RANDOM = 0
ClusteringInitMethod_KMEANS_PLUS_PLUS = 1

METHODS = {
    ClusteringInitMethod_RANDOM: "random",
    ClusteringInitMethod_KMEANS_PLUS_PLUS: "k-means++",
}
DEFAULTS: dict[str, Any] = {
    "niter": 25,
    "nredo": 1,
    "verbose": False,
    "spherical": False,
    "seed": 1234,
    "max_points_per_centroid": None,
    "min_points_per_centroid": 39,
    "init_method": ClusteringInitMethod_RANDOM,
}


class ClusteringParameters:
    """Parameters of `Clustering` and `Kmeans`, as `faiss.ClusteringParameters`.

    Each attribute is an option of `Kmeans`. Setting an option that ktfast lacks raises an error.
    """

    def __init__(self) -> None:
        vars(self).update(DEFAULTS)

    def __setattr__(self, name: str, value: Any) -> None:
        set_parameter(self, name, value)


class ParametersOf:
    """The parameters of a `Kmeans` or `Clustering`, to read and to change.

    Parameters
    ----------
    owner : Kmeans or Clustering
        The object that holds the parameters.
    """

    def __init__(self, owner: Any) -> None:
        object.__setattr__(self, "_owner", owner)

    def __getattr__(self, name: str) -> Any:
        if name not in DEFAULTS:
            raise AttributeError(f"the parameters have no {name!r}, only {', '.join(DEFAULTS)}")
        return getattr(self._owner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        set_parameter(self._owner, name, value)


def set_parameter(owner: Any, name: str, value: Any) -> None:
    """Set a parameter of faiss; refuse one that ktfast lacks or faiss does not know."""
    if name in DEFAULTS:
        object.__setattr__(owner, name, value)
    else:
        check_options({name: value})


def check_settings(owner: Any) -> None:
    """Check the parameters of a `Kmeans`.

    Raises
    ------
    InputError
        A parameter is out of range.
    """
    if owner.init_method not in METHODS:
        raise InputError(
            f"init_method must be ClusteringInitMethod_RANDOM (0) or "
            f"ClusteringInitMethod_KMEANS_PLUS_PLUS (1), got {owner.init_method!r}"
        )
    for name in ("d", "k", "niter", "nredo"):
        _check_integer(owner, name, 1)
    if owner.max_points_per_centroid is not None:
        _check_integer(owner, "max_points_per_centroid", 1, none="None or ")
    _check_integer(owner, "min_points_per_centroid", 0)
    _check_integer(owner, "seed", -(2**31), 2**32 - 1)
    spherical = owner.spherical
    if isinstance(spherical, str) or np.ndim(spherical) or spherical not in (False, True):
        raise InputError(f"spherical must be True or False, got {owner.spherical!r}")


def _check_integer(
    owner: Any, name: str, least: int, most: int | None = None, none: str = ""
) -> None:
    """Check that a parameter is an integer within limits, and store it as an int."""
    value = getattr(owner, name)
    is_number = isinstance(value, int | float) or hasattr(value, "__index__")
    is_number = is_number and np.ndim(value) == 0
    if is_number and value == value // 1 and least <= value and (most is None or value <= most):
        setattr(owner, name, int(value))
        return
    limits = f"of at least {least}" if most is None else f"from {least} to {most}"
    raise InputError(f"{name} must be {none}an integer {limits}, got {value!r}")
