"""How many CPU threads an op uses, and how many cores this process may use.

The kernels run in threads of ktfast's own, which `csrc/common/parallel.h` describes. The threads
sleep while there is no work, and a forked child starts its own.
"""

import contextlib
import functools
import os
import threading
from collections.abc import Iterator
from typing import Any

import threadpoolctl

from ktfast.native import _cpu
from ktfast.native.quota import quota_cores

__all__ = ["n_threads", "one_blas_thread", "thread_limit", "usable_cores"]

_MOST_THREADS = 64


def usable_cores() -> int:
    """Number of CPU cores that this process may use, by its affinity and its container's quota."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = quota_cores()
    return cores if quota is None else min(cores, quota)


def thread_limit() -> int | None:
    """The limit that `threadpoolctl.threadpool_limits` has set, or None without a limit."""
    limit = int(_cpu.thread_limit())
    return limit if limit > 0 else None


def n_threads(requested: int | None = None) -> int:
    """The number of CPU threads that an op uses.

    The number is at most 64, or the number of cores if that is larger. The number is also at most
    the limit of `threadpoolctl.threadpool_limits`, even if more threads are requested.

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
    cores = usable_cores()
    chosen = cores if requested is None else min(int(requested), max(_MOST_THREADS, cores))
    return min(chosen, thread_limit() or chosen)


class _KernelThreads(threadpoolctl.LibController):  # type: ignore[misc]
    """Lets `threadpoolctl` read and limit the threads of the kernels.

    The threads count as threads of "openmp", because a program that limits OpenMP wants to limit
    the threads that run its loops.
    """

    user_api = "openmp"
    internal_api = "ktfast"
    filename_prefixes = ("_cpu.",)
    check_symbols = ("ktfast_get_num_threads", "ktfast_set_num_threads")

    def get_num_threads(self) -> int:
        return int(self.dynlib.ktfast_get_num_threads())

    def set_num_threads(self, num_threads: int) -> Any:
        return self.dynlib.ktfast_set_num_threads(num_threads)

    def get_version(self) -> None:
        return None


threadpoolctl.register(_KernelThreads)


class _BlasLimit:
    """The limit of one thread for the BLAS of NumPy, while at least one block holds it.

    The number of threads belongs to the whole process. If each of two Python threads read and
    restored the number by itself, the later one could restore the limit of the other for good.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0
        self._limiter: Any = None

    def acquire(self) -> None:
        with self._lock:
            if self._holders == 0:
                self._limiter = _blas().limit(limits=1)
            self._holders += 1

    def release(self) -> None:
        with self._lock:
            self._holders -= 1
            if self._holders == 0:
                self._limiter.restore_original_limits()


@functools.cache
def _blas() -> threadpoolctl.ThreadpoolController:
    """Control the threads of NumPy's BLAS. The search for the BLAS takes milliseconds, once."""
    return threadpoolctl.ThreadpoolController().select(user_api="blas")


_blas_limit = _BlasLimit()


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let NumPy's BLAS use one thread for the length of a block.

    Idle threads of a BLAS wait actively on the cores that the kernels need. Blocks may nest, and
    may overlap in several Python threads. The end of the last block restores the number of threads.
    """
    _blas_limit.acquire()
    try:
        yield
    finally:
        _blas_limit.release()
