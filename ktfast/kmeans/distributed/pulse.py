"""Signs of life: each process counts in a store, and notices when another process stops counting.

A process that dies closes its connections, so the others notice at once. A machine that loses its
power, or hangs, closes nothing. The signs of life find such a machine in a given time, however long
a single pass over the rows takes.
"""

import contextlib
import os
import threading
import time
from datetime import timedelta
from typing import Any

from ktfast.errors import InputError
from ktfast.kmeans.distributed.communicator import CommunicationError

VARIABLE = "KTFAST_PROCESS_TIMEOUT"
"""Environment variable: seconds without a sign of life after which a process counts as dead."""
LIMIT_SECONDS = 60.0
"""The limit if the variable is not set."""
# Signs of life per limit. A few may come late on a busy machine.
_SIGNS = 6


def limit_seconds() -> float:
    """Read the limit from the environment.

    Returns
    -------
    limit : float
        Seconds without a sign of life after which a process counts as dead.

    Raises
    ------
    InputError
        The variable holds no positive number.
    """
    text = os.environ.get(VARIABLE, "")
    try:
        limit = float(text) if text else LIMIT_SECONDS
    except ValueError:
        limit = 0.0
    if not 0 < limit < float("inf"):
        raise InputError(
            f"{VARIABLE} is {text!r}, but it must be a positive number of seconds, such as 60; "
            "after this time without a sign of life, a process counts as dead"
        )
    return limit


class Pulse:
    """Give signs of life in a thread, and watch those of the other processes.

    Parameters
    ----------
    store : torch.distributed.Store
        A connection that only this object uses. Every process has set its key before `start`.
    rank, size : int
        Number of this process, and number of processes.
    limit : float
        Seconds without a sign of life after which a process counts as dead.
    """

    def __init__(self, store: Any, rank: int, size: int, limit: float) -> None:
        self._store, self._own, self._limit = store, str(rank), limit
        self._keys = [str(other) for other in range(size) if other != rank]
        self._step = limit / _SIGNS
        self._silence = dict.fromkeys(self._keys, 0.0)
        self._problem = ""
        self._end = threading.Event()
        store.set_timeout(timedelta(seconds=limit))
        store.set(self._own, "0")
        self._thread = threading.Thread(target=self._run, name="ktfast-pulse", daemon=True)

    def start(self) -> None:
        """Begin to give signs of life, after every process has made its object."""
        if self._keys:
            self._thread.start()

    def stop(self) -> None:
        """Give no more signs of life."""
        self._end.set()

    @property
    def has_lost(self) -> bool:
        """Whether another process gives no signs of life."""
        return bool(self._problem)

    def check(self) -> None:
        """Raise `CommunicationError` if another process gives no signs of life."""
        if self._problem:
            raise CommunicationError(self._problem)

    def _run(self) -> None:
        last: list[bytes] = []
        count, before = 0, time.monotonic()
        while not self._end.wait(self._step) and not self._problem:
            count += 1
            try:
                self._store.set(self._own, str(count))
                found = self._store.multi_get(self._keys)
            except RuntimeError as error:
                self._note(f"the store of the processes cannot be reached ({error})")
                return
            now = time.monotonic()
            # If this process was suspended, the time in which it slept says nothing about others.
            passed, before = min(now - before, 2 * self._step), now
            for number, key in enumerate(self._keys):
                is_new = not last or last[number] != found[number]
                self._silence[key] = 0.0 if is_new else self._silence[key] + passed
                if self._silence[key] > self._limit:
                    self._note(f"process {key} has given no sign of life for {self._limit:g} s")
            last = found

    def _note(self, problem: str) -> None:
        if not self._end.is_set():
            self._problem = (
                f"{problem}; look at its machine, and start all processes again. A run, and a fit "
                f"with `checkpoint`, go on from the last checkpoint. {VARIABLE} sets the time in "
                "seconds"
            )


def pulse_of(default_store: Any, name: str, rank: int, size: int, limit: float) -> Pulse:
    """Make the signs of life of one group of processes; every process calls this function.

    Parameters
    ----------
    default_store : torch.distributed.Store
        The store of torch.distributed.
    name : str
        Name of the group, the same on all processes, and another one for each group.
    rank, size : int
        Number of this process, and number of processes.
    limit : float
        Seconds without a sign of life after which a process counts as dead.

    Returns
    -------
    pulse : Pulse
        The signs of life, not yet started.
    """
    import torch.distributed

    distributed: Any = torch.distributed
    own = default_store
    with contextlib.suppress(AttributeError, RuntimeError):  # a store that has no copies is shared
        own = default_store.clone()
    return Pulse(distributed.PrefixStore(name, own), rank, size, limit)
