"""Threads that act as the processes of a fit: for tests, and to simulate a cluster."""

import threading
from typing import Any

import numpy as np

from ktfast.kmeans.array_types import Int64
from ktfast.kmeans.distributed.communicator import CommunicationError


class _Meeting:
    """What the threads of one group share: a barrier, and one value per thread."""

    def __init__(self, size: int, timeout: float) -> None:
        self.barrier = threading.Barrier(size, timeout=timeout)
        self.places: list[Any] = [None] * size

    def wait(self) -> None:
        try:
            self.barrier.wait()
        except threading.BrokenBarrierError:
            raise CommunicationError(
                "another thread of this fit has failed, or did not answer in time; see the error "
                "of that thread"
            ) from None


class ThreadCommunicator:
    """Communicator of one thread among several threads of this process; see `Communicator`.

    `ThreadCommunicator.group` makes the communicators of all threads.

    Parameters
    ----------
    rank : int
        Number of this thread.
    size : int
        Number of threads.
    meeting : object
        Shared by all threads of the group.
    """

    def __init__(self, rank: int, size: int, meeting: Any) -> None:
        self.rank = rank
        self.size = size
        self._meeting = meeting

    @classmethod
    def group(cls, size: int, timeout: float = 600.0) -> "list[ThreadCommunicator]":
        """Make the communicators of a group of threads.

        Parameters
        ----------
        size : int
            Number of threads.
        timeout : float, default 600.0
            Seconds that a thread waits for the others before it raises `CommunicationError`.

        Returns
        -------
        communicators : list of ThreadCommunicator
            One communicator per thread.
        """
        meeting = _Meeting(size, timeout)
        return [cls(rank, size, meeting) for rank in range(size)]

    def __deepcopy__(self, memo: Any) -> "ThreadCommunicator":
        """Return the communicator itself, so that scikit-learn can clone an estimator."""
        return self

    def _exchange(self, value: Any) -> list[Any]:
        """Return the values of all threads, after every thread has read every value."""
        self._meeting.places[self.rank] = value
        self._meeting.wait()
        values = list(self._meeting.places)
        self._meeting.wait()
        return values

    def sum(self, array: Int64) -> Int64:
        """See `Communicator`."""
        # Every thread returns an array of its own, because the caller may change it.
        return np.asarray(np.sum(self._exchange(array.copy()), axis=0))

    def gather(self, message: bytes) -> list[bytes]:
        """See `Communicator`."""
        messages = self._exchange(message)
        return messages if self.rank == 0 else []

    def broadcast(self, message: bytes, source: int) -> bytes:
        """See `Communicator`."""
        received: bytes = self._exchange(message if self.rank == source else None)[source]
        return received

    def exchange(self, table: Any) -> Any:
        """See `ktfast.kmeans.distributed.ranks.Ranks.exchange`."""
        return np.stack([sent[self.rank] for sent in self._exchange(table.copy())])

    def barrier(self) -> None:
        """See `Communicator`."""
        self._meeting.wait()

    def abort(self) -> None:
        """See `Communicator`."""
        self._meeting.barrier.abort()

    def close(self) -> None:
        """See `Communicator`."""
