"""How many CPU threads an op uses, and how many cores this process may use."""

import os

__all__ = ["n_threads", "usable_cores"]

_MOST_THREADS = 64


def usable_cores() -> int:
    """The number of CPU cores that this process may use; its CPU affinity counts."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def n_threads(requested: int | None = None) -> int:
    """The number of CPU threads that an op uses.

    The number is at most 64, or the number of cores if that is larger. Without this limit, OpenMP
    would end the process when the system cannot start the threads.

    The number is 1 in a forked child of a process whose ops ran in several threads. The fork does
    not copy OpenMP's threads, and an op with several threads would wait for them for ever.

    Parameters
    ----------
    requested : int, optional
        Number of threads, at least 1. None reads the environment variable OMP_NUM_THREADS, or
        uses every core of this process if the variable is not set.

    Returns
    -------
    int
        Number of threads, at least 1.

    Raises
    ------
    ValueError
        `requested` is less than 1.
    """
    if requested is not None and requested < 1:
        raise ValueError(f"n_threads must be at least 1, got {requested}")
    variable = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if requested is None and variable.isdigit() and int(variable) > 0:
        requested = int(variable)
    if _openmp.lost:
        return 1
    cores = usable_cores()
    chosen = cores if requested is None else min(int(requested), max(_MOST_THREADS, cores))
    _openmp.started |= chosen > 1
    return chosen


class _OpenMPThreads:
    """Whether this process started threads of OpenMP, and whether a fork lost them."""

    def __init__(self) -> None:
        self.started = False
        self.lost = False

    def after_fork(self) -> None:
        self.lost = self.started


_openmp = _OpenMPThreads()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_openmp.after_fork)
