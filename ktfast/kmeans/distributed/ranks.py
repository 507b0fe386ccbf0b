"""The collective operations of a fit, built from a communicator.

Every message carries a check sum, and every sum of integers carries the sum of its elements. A bit
that flips in the network or in a reduction therefore raises an error, and cannot change the result.
"""

import contextlib
import pickle
import zlib
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from ktfast.errors import InputError
from ktfast.kmeans.array_types import Int64
from ktfast.kmeans.distributed.communicator import Alone, CommunicationError, Communicator

T = TypeVar("T")

_CRC_BYTES = 4


class Ranks:
    """The processes of a fit, from the view of one process.

    Parameters
    ----------
    communicator : Communicator
        Exchanges bytes and sums.
    is_owned : bool, default False
        Whether the fit opened the communicator and therefore closes it.

    Attributes
    ----------
    rank, size : int
        Number of this process, and number of processes.
    """

    def __init__(self, communicator: Communicator, *, is_owned: bool = False) -> None:
        self._communicator = communicator
        self._is_owned = is_owned
        self._agreed_error: BaseException | None = None
        self.rank = communicator.rank
        self.size = communicator.size

    @property
    def leads(self) -> bool:
        """Whether this process is rank 0, which decides for all processes."""
        return self.rank == 0

    def broadcast(self, value: T, source: int = 0) -> T:
        """Return the value of one process, on every process."""
        if self.size == 1:
            return value
        own = _packed(value) if self.rank == source else b""
        message = self._communicator.broadcast(own, source)
        # The sender also verifies its message: a communicator may damage the memory that it sends.
        received: T = _unpacked(message)
        return value if self.rank == source else received

    def gather(self, value: T) -> list[T]:
        """On rank 0, return the values of all processes in the order of the ranks; elsewhere []."""
        if self.size == 1:
            return [value]
        return [_unpacked(message) for message in self._communicator.gather(_packed(value))]

    def gather_to_all(self, value: T) -> list[T]:
        """Return the values of all processes in the order of the ranks, on every process."""
        return self.broadcast(self.gather(value))

    def all(self, flag: bool) -> bool:
        """Whether a flag is true on every process."""
        return all(self.gather_to_all(bool(flag)))

    def sum(self, array: Int64) -> Int64:
        """Add up int64 arrays [m] of all processes, element by element."""
        if self.size == 1:
            return array
        # int64 sums wrap around in any order of additions, so undamaged sums are always equal.
        total = self._communicator.sum(np.append(array, array.sum(dtype=np.int64)))
        if total[:-1].sum(dtype=np.int64) != total[-1]:
            raise CommunicationError(
                "a sum over all processes has arrived with changed bits; check the memory and the "
                "network of the machines, and start the fit again"
            )
        return total[:-1]

    def exchange(self, table: Any) -> Any:
        """Send each process one row of a table, and return the rows that all processes sent.

        Parameters
        ----------
        table : array [size, ...]
            Row i goes to process i. All processes pass tables of one shape and dtype.

        Returns
        -------
        received : array [size, ...]
            Row i came from process i.

        Raises
        ------
        CommunicationError
            The communicator has no method `exchange`.
        """
        if self.size == 1:
            return table
        exchange = getattr(self._communicator, "exchange", None)
        if exchange is None:
            raise CommunicationError(
                f"{type(self._communicator).__name__} has no method exchange(table), which sends "
                "row i of an array to process i; use TorchCommunicator"
            )
        return exchange(table)

    def fold(self, add: Callable[[T], T], start: T) -> T:
        """Let each process in turn add its part to the result of the processes before it.

        The parts are added in the order of the ranks, so floating-point sums have the bits of a
        single process. Each process waits for the process before it.
        """
        if self.size == 1:
            return add(start)
        state = start
        for source in range(self.size):
            own = add(state) if self.rank == source else state
            state = self.broadcast(own, source)
        return state

    def agreed(self, work: Callable[[], T]) -> T:
        """Run a function on every process; if one raises an exception, all processes raise it."""
        if self.size == 1:
            return work()
        result: Any = None
        own: Exception | None = None
        try:
            result = work()
        except Exception as error:
            own = error
        errors = self.gather_to_all(portable(own))
        if own is not None:
            raise self.agreed_on(own)
        for rank, other in enumerate(errors):
            if other is not None:
                note: Any = getattr(other, "add_note", None)  # Python 3.11
                if note is not None:
                    note(f"The error was raised by process {rank} of {self.size}.")
                raise self.agreed_on(other)
        return result  # type: ignore[no-any-return]

    def agreed_on(self, error: Exception) -> Exception:
        """Record that all processes raise this error, for `leave`; return the error."""
        self._agreed_error = error
        return error

    def gather_answers(self, answer: Callable[[], Any]) -> list[Any]:
        """On rank 0, return the answers of all processes, or raise the error of any process."""
        try:
            own = True, answer()
        except Exception as error:
            own = False, portable(error)
        answers = self.gather(own)
        for is_whole, value in answers:
            if not is_whole:
                raise value
        return [value for _, value in answers]

    def decided(self, decide: Callable[[], T]) -> T:
        """Run a function on rank 0; every process returns its result or raises its exception."""
        result = self.agreed(lambda: decide() if self.leads else None)
        return self.broadcast(result)  # type: ignore[return-value]

    def leave(self, error: BaseException | None = None) -> None:
        """End the fit on this process, and tell the others if it failed alone.

        Parameters
        ----------
        error : BaseException, optional
            The error that ends the fit. The others are not told of an `InputError`: all processes
            raise the same one, because it follows from what all processes know.
        """
        if self.size == 1:
            return
        alone = error is not None and error is not self._agreed_error
        with contextlib.suppress(CommunicationError):
            if alone and not isinstance(error, InputError):
                self._communicator.abort()
            elif self._is_owned:
                self._communicator.close()


ALONE = Ranks(Alone())
"""A single process."""


def _packed(value: Any) -> bytes:
    content = pickle.dumps(value, protocol=5)
    return zlib.crc32(content).to_bytes(_CRC_BYTES, "little") + content


def _unpacked(message: bytes) -> Any:
    content = memoryview(message)[_CRC_BYTES:]
    if zlib.crc32(content) != int.from_bytes(message[:_CRC_BYTES], "little"):
        raise CommunicationError(
            "a message of another process has arrived with changed bits; check the memory and the "
            "network of the machines, and start the fit again"
        )
    return pickle.loads(content)


def portable(error: Exception | None) -> Exception | None:
    """Return the error. If it cannot be pickled, return a RuntimeError with its text."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
