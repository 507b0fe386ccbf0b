"""What the processes of a fit must agree on, and the communicator that a user chooses."""

import hashlib
from typing import Any

import numpy as np

from ktfast.errors import InputError
from ktfast.kmeans.array_types import Float64
from ktfast.kmeans.containers import host_matrix
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.distributed.communicator import Communicator
from ktfast.kmeans.distributed.ranks import ALONE, Ranks
from ktfast.kmeans.distributed.torch_communicator import TorchCommunicator

_PARAMETERS = ("n_clusters", "n_init", "max_iter", "tol", "algorithm", "spherical", "precision")


def ranks_of(distributed: Any) -> Ranks:
    """Find the processes that the parameter `distributed` of a `KMeans` names."""
    if distributed == "torch":
        return Ranks(TorchCommunicator(), is_owned=True)
    # `check_parameters` has refused every value that is no communicator.
    return Ranks(distributed) if isinstance(distributed, Communicator) else ALONE


def question_of(estimator: Any, rows: Rows, *, is_weighted: bool) -> dict[str, Any]:
    """Collect everything on which the result of a fit depends, except the values of the rows.

    Returns
    -------
    question : dict
        JSON values by name. No value depends on the number of processes.
    """
    question = {name: _plain(getattr(estimator, name)) for name in _PARAMETERS}
    question["init"] = _init_name(estimator.init)
    question["random_state"] = _random_name(estimator.random_state)
    question["size_min"] = _plain(estimator.size_min)
    question["size_max"] = _plain(estimator.size_max)
    question["number of features"] = rows.d
    question["dtype of X"] = rows.dtype
    question["use of sample_weight"] = is_weighted
    return question


def check_agreement(ranks: Ranks, estimator: Any, rows: Rows, *, is_weighted: bool) -> None:
    """Refuse processes that were given different parameters or different kinds of rows.

    Raises
    ------
    InputError
        Two processes differ. Every process raises the error, which names the parameter.
    """
    if ranks.size == 1:
        return
    question = ranks.agreed(lambda: question_of(estimator, rows, is_weighted=is_weighted))
    question["use of checkpoint"] = estimator.checkpoint is not None
    if estimator.precision == "fast":
        question["use of a GPU"] = rows.on_gpu  # labels may be approximate on a GPU only
    every = ranks.gather_to_all(question)
    for rank, other in enumerate(every):
        for name, value in every[0].items():
            if other.get(name) != value:
                raise InputError(
                    f"{name} is {value!r} on process 0, but {other.get(name)!r} on process {rank}; "
                    "give all processes of a fit the same parameters and the same kind of rows"
                )


def check_enough(rows: Rows, n_clusters: int) -> None:
    """Refuse the fit if all processes together have fewer rows than clusters."""
    if rows.total < n_clusters:
        raise InputError(f"n_samples={rows.total} should be >= n_clusters={n_clusters}.")


def check_any_weight(ranks: Ranks, weight: Float64) -> None:
    """Refuse the fit if all rows of all processes have weight zero."""
    if ranks.all(not weight.any()):
        raise InputError("Sample weights must contain at least one non-zero number.")


def _plain(value: Any) -> Any:
    """A parameter as a JSON value."""
    return value.item() if isinstance(value, np.generic) else value


def _init_name(init: Any) -> str:
    if isinstance(init, str):
        return init
    if callable(init):
        return f"the function {getattr(init, '__qualname__', type(init).__name__)}"
    centers = host_matrix(init, "init")
    digest = hashlib.sha256(centers.tobytes()).hexdigest()[:16]
    return f"an array of shape {centers.shape} with SHA-256 {digest}..."


def _random_name(random_state: Any) -> Any:
    """The seed, or "a generator": all processes use the random numbers of rank 0."""
    if random_state is None or isinstance(random_state, int | np.integer):
        return _plain(random_state)
    return "a generator"
