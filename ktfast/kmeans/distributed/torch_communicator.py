"""Processes that torch.distributed connects, over gloo."""

import datetime
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ktfast.kmeans.array_types import Int64
from ktfast.kmeans.distributed.communicator import CommunicationError
from ktfast.kmeans.distributed.pulse import limit_seconds, pulse_of

# Largest message of gloo, bytes.
_PIECE = 1 << 28
# How long processes wait for each other at the start; torch's own default for gloo.
_START = datetime.timedelta(minutes=30)
# An operation may take as long as the slowest process computes: the signs of life find a process
# that is dead.
_NO_LIMIT = datetime.timedelta(days=30)
# Time between two looks at the signs of life.
_LOOK = datetime.timedelta(seconds=0.5)
_groups = itertools.count()


class TorchCommunicator:
    """Communicator of one process among those of torch.distributed; see `Communicator`.

    The communicator uses a gloo group of its own, so that it works beside NCCL. If
    torch.distributed is not initialised but torchrun has set its variables, the constructor
    initialises torch.distributed with gloo. Every process must construct the communicator.

    Parameters
    ----------
    timeout : float, optional
        Seconds without a sign of life after which a process counts as dead. None: the environment
        variable KTFAST_PROCESS_TIMEOUT, or 60. The limit may be shorter than a pass over the rows,
        because a thread of each process gives the signs of life. The limit matters if a machine
        hangs: if a process dies, its connections close, and the others notice at once.

    Raises
    ------
    CommunicationError
        torch.distributed is not initialised, and the variables of torchrun are not set.
    InputError
        KTFAST_PROCESS_TIMEOUT is no positive number.
    ModuleNotFoundError
        torch is not installed.
    """

    def __init__(self, timeout: float | None = None) -> None:
        import torch
        import torch.distributed as distributed

        self._torch = distributed
        limit = limit_seconds() if timeout is None else timeout
        if not distributed.is_initialized():
            if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
                raise CommunicationError(
                    'distributed="torch" needs several processes, but torch.distributed is not '
                    "initialised; start the script with torchrun, or call "
                    "torch.distributed.init_process_group"
                )
            with _failures():
                distributed.init_process_group("gloo", timeout=_START)
        internals: Any = distributed.distributed_c10d
        # torchrun keeps one store over all restarts of the processes.
        restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)
        name = f"ktfast/pulse/{restart}/{next(_groups)}"
        self.rank = int(distributed.get_rank())
        self.size = int(distributed.get_world_size())
        with _failures():
            store = internals._get_default_store()
            self._pulse = pulse_of(store, name, self.rank, self.size, limit)
            # Making the group is a barrier, so every process has given its first sign of life.
            group: Any = distributed.new_group(backend="gloo", timeout=_START)
            self._group: Any = group
            gloo = group._get_backend(torch.device("cpu"))
            gloo._set_default_timeout(_NO_LIMIT)
        self._pulse.start()

    def __deepcopy__(self, memo: Any) -> "TorchCommunicator":
        """Return the communicator itself, so that scikit-learn can clone an estimator."""
        return self

    def close(self) -> None:
        """See `Communicator`. The process group of the user stays open."""
        self._pulse.stop()
        if self._group is None:
            return
        group, self._group = self._group, None
        if not self._pulse.has_lost:  # to destroy a group waits for its unfinished operations
            with _failures():
                self._torch.destroy_process_group(group)

    def check(self) -> None:
        """Raise `CommunicationError` if another process gives no signs of life."""
        self._pulse.check()

    def sum(self, array: Int64) -> Int64:
        """See `Communicator`."""
        total = _tensor(np.ascontiguousarray(array))
        self._wait(lambda: self._torch.all_reduce(total, group=self._group, async_op=True))
        return np.asarray(total.numpy())

    def gather(self, message: bytes) -> list[bytes]:
        """See `Communicator`."""
        sizes = np.zeros(self.size, np.int64)
        sizes[self.rank] = len(message)
        sizes = self.sum(sizes)
        parts: list[list[Any]] = [[] for _ in range(self.size)]
        content = np.frombuffer(message, np.uint8)
        # Rank 0 keeps its own message. The others send pieces, all of them at a time.
        for start in range(0, int(sizes[1:].max(initial=0)), _PIECE):
            lengths = np.clip(sizes - start, 0, _PIECE)
            lengths[0] = 0
            piece = content[start : start + int(lengths[self.rank])]
            own = [int(lengths[self.rank]), *[0] * (self.size - 1)]
            received = self._exchange(piece, own, lengths.tolist() if self.rank == 0 else None)
            for source, part in enumerate(received):
                parts[source].append(part.tobytes())
        if self.rank != 0:
            return []
        return [message, *(b"".join(each) for each in parts[1:])]

    def broadcast(self, message: bytes, source: int) -> bytes:
        """See `Communicator`."""
        size = _tensor(np.array([len(message)], np.int64))
        self._wait(lambda: self._torch.broadcast(size, source, group=self._group, async_op=True))
        if self.rank == source:
            content = np.frombuffer(message, np.uint8).copy()
        else:
            content = np.empty(int(size[0]), np.uint8)
        for piece in _pieces(_tensor(content)):
            self._wait(
                lambda piece=piece: self._torch.broadcast(  # type: ignore[misc]
                    piece, source, group=self._group, async_op=True
                )
            )
        return content.tobytes()

    def exchange(self, table: Any) -> Any:
        """See `ktfast.kmeans.distributed.ranks.Ranks.exchange`."""
        flat = _tensor(np.ascontiguousarray(table)).reshape(self.size, -1)
        step = max(1, _PIECE // (self.size * flat.element_size()))
        received = flat.new_empty(flat.shape)
        for start in range(0, flat.shape[1], step):
            piece = flat[:, start : start + step].contiguous()
            into = piece.new_empty(piece.shape)
            self._to_all(into, piece)
            received[:, start : start + step] = into
        return received.numpy().reshape(table.shape)

    def _exchange(self, piece: Any, own: list[int], sent: list[int] | None) -> list[Any]:
        """Send `own` bytes of a piece to each process; return what each process has sent.

        `sent` holds how many bytes each process sends to this process; None: none sends any.
        """
        lengths = [0] * self.size if sent is None else sent
        into = _tensor(np.empty(sum(lengths), np.uint8))
        self._to_all(into, _tensor(piece.copy()), lengths, own)
        return np.split(into.numpy(), np.cumsum(lengths)[:-1])

    def _to_all(self, into: Any, piece: Any, *lengths: list[int]) -> None:
        self._wait(
            lambda: self._torch.all_to_all_single(
                into, piece, *lengths, group=self._group, async_op=True
            )
        )

    def _wait(self, begin: Callable[[], Any]) -> None:
        """Begin an operation and wait for its end, or for a process to give no signs of life."""
        with _failures():
            work = begin()
            while work is not None:  # None: an operation on nothing
                try:
                    work.wait(_LOOK)
                    return
                except RuntimeError as error:
                    if "Operation timed out" not in str(error):
                        raise
                self._pulse.check()

    def barrier(self) -> None:
        """See `Communicator`."""
        self.sum(np.zeros(1, np.int64))

    def abort(self) -> None:
        """See `Communicator`."""
        self.close()


def _tensor(array: Any) -> Any:
    import torch

    return torch.from_numpy(array)


def _pieces(tensor: Any) -> Iterator[Any]:
    """Divide a message into parts that gloo can send; an empty message has no parts."""
    for start in range(0, len(tensor), _PIECE):
        yield tensor[start : start + _PIECE]


@contextmanager
def _failures() -> Iterator[None]:
    """Turn the errors of torch.distributed into one error that says what to do."""
    try:
        yield
    except CommunicationError:
        raise
    except (RuntimeError, ValueError) as error:
        raise CommunicationError(
            f"another process of this fit has stopped or cannot be reached ({error}); start all "
            "processes again. With `checkpoint`, the fit continues from its last checkpoint"
        ) from error
