"""How the processes of a fit exchange data: the interface, and the communicator of one process."""

from typing import Protocol, runtime_checkable

from ktfast.kmeans.array_types import Int64


class CommunicationError(RuntimeError):
    """The processes of a fit cannot exchange data, or data changed on the way.

    The message says what happened and what to do.
    """


@runtime_checkable
class Communicator(Protocol):
    """Exchanges bytes and sums between the processes of a fit.

    Every process calls the same methods in the same order. A method returns when this process has
    its result. `ktfast.KMeans` verifies all received data, so an implementation needs no check
    sums.

    Attributes
    ----------
    rank : int
        Number of this process, from 0 to ``size - 1``.
    size : int
        Number of processes.
    """

    rank: int
    size: int

    def sum(self, array: Int64) -> Int64:
        """Add up arrays of all processes, element by element.

        Parameters
        ----------
        array : array, int64 [m]
            The array of this process. All processes give arrays of one length.

        Returns
        -------
        total : array, int64 [m]
            The sum, on every process. The sum may be written into the memory of `array`. Sums
            beyond the range of int64 wrap around.
        """

    def gather(self, message: bytes) -> list[bytes]:
        """Bring the messages of all processes to rank 0.

        Parameters
        ----------
        message : bytes
            The message of this process.

        Returns
        -------
        messages : list of bytes
            On rank 0, the messages in the order of the ranks. On other ranks, an empty list.
        """

    def broadcast(self, message: bytes, source: int) -> bytes:
        """Bring the message of one process to all processes.

        Parameters
        ----------
        message : bytes
            The message of this process. Only the message of the process `source` is sent.
        source : int
            Rank of the process that sends.

        Returns
        -------
        message : bytes
            The message of the process `source`.
        """

    def barrier(self) -> None:
        """Wait until every process has called this method."""

    def abort(self) -> None:
        """Tell the other processes that this process failed, if the implementation can.

        Processes that wait for this process then raise an exception soon.
        """

    def close(self) -> None:
        """Release what the communicator holds. No method is called after `close`."""


class Alone:
    """The communicator of a single process; see `Communicator`."""

    rank = 0
    size = 1

    def sum(self, array: Int64) -> Int64:
        """See `Communicator`."""
        return array

    def gather(self, message: bytes) -> list[bytes]:
        """See `Communicator`."""
        return [message]

    def broadcast(self, message: bytes, source: int) -> bytes:
        """See `Communicator`."""
        return message

    def barrier(self) -> None:
        """See `Communicator`."""

    def abort(self) -> None:
        """See `Communicator`."""

    def close(self) -> None:
        """See `Communicator`."""
