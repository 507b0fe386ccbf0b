"""The number of CPU threads that an op uses."""

import os

__all__ = ["n_threads"]

_MOST_THREADS = 64


def n_threads(requested: int | None = None) -> int:
    """The number of CPU threads an op uses.

    At most 64, or one per core if there are more: the OpenMP runtime ends the process where it
    cannot start what it is asked for. One in a forked child of a process whose ops ran in threads:
    these do not outlive the fork, and the runtime would wait for them for ever.

    Parameters
    ----------
    requested : at least 1; None: OMP_NUM_THREADS if set, else every core this process may use.

    Raises
    ------
    ValueError : `requested` is not positive.
    """
    if requested is not None and requested < 1:
        raise ValueError(f"n_threads must be at least 1, got {requested}")
    variable = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if requested is None and variable.isdigit() and int(variable) > 0:
        requested = int(variable)
    if _threads.lost:
        return 1
    chosen = _cores() if requested is None else min(int(requested), max(_MOST_THREADS, _cores()))
    _threads.started |= chosen > 1
    return chosen


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Threads:
    """Whether OpenMP's threads were started in this process, and whether a fork lost them."""

    started = False
    lost = False

    def fork(self) -> None:
        self.lost = self.started


_threads = _Threads()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.fork)
