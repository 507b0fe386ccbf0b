"""Processes that torch.distributed connects, over gloo."""

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ktfast.kmeans.array_types import Int64
from ktfast.kmeans.distributed.communicator import CommunicationError

# Largest message of gloo, bytes.
_PIECE = 1 << 28
# Seconds; torch's own default for gloo.
_TIMEOUT = 1800.0


class TorchCommunicator:
    """Communicator of one process among those of torch.distributed; see `Communicator`.

    The communicator uses a gloo group of its own, so that it works beside NCCL. If
    torch.distributed is not initialised but torchrun has set its variables, the constructor
    initialises torch.distributed with gloo. Every process must construct the communicator.

    Parameters
    ----------
    timeout : float, default 1800.0
        Seconds that a process waits for the others in one operation. The limit must be longer than
        the slowest pass over the rows. It only matters if a machine hangs: if a process dies, its
        connections close, and the others notice at once.

    Raises
    ------
    CommunicationError
        torch.distributed is not initialised, and the variables of torchrun are not set.
    ModuleNotFoundError
        torch is not installed.
    """

    def __init__(self, timeout: float = _TIMEOUT) -> None:
        import torch.distributed as distributed

        self._torch = distributed
        self._limit = datetime.timedelta(seconds=timeout)
        if not distributed.is_initialized():
            if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
                raise CommunicationError(
                    'distributed="torch" needs several processes, but torch.distributed is not '
                    "initialised; start the script with torchrun, or call "
                    "torch.distributed.init_process_group"
                )
            with _failures():
                distributed.init_process_group("gloo", timeout=self._limit)
        with _failures():
            self._group: Any = distributed.new_group(backend="gloo", timeout=self._limit)
        self.rank = int(distributed.get_rank())
        self.size = int(distributed.get_world_size())

    def __deepcopy__(self, memo: Any) -> "TorchCommunicator":
        """Return the communicator itself, so that scikit-learn can clone an estimator."""
        return self

    def close(self) -> None:
        """See `Communicator`. The process group of the user stays open."""
        if self._group is not None:
            with _failures():
                self._torch.destroy_process_group(self._group)
            self._group = None

    def sum(self, array: Int64) -> Int64:
        """See `Communicator`."""
        total = _tensor(np.ascontiguousarray(array))
        with _failures():
            self._torch.all_reduce(total, group=self._group)
        return np.asarray(total.numpy())

    def gather(self, message: bytes) -> list[bytes]:
        """See `Communicator`."""
        sizes = np.zeros(self.size, np.int64)
        sizes[self.rank] = len(message)
        sizes = self.sum(sizes)
        if self.rank != 0:
            with _failures():
                for piece in _pieces(_tensor(np.frombuffer(message, np.uint8).copy())):
                    self._torch.send(piece, 0, group=self._group)
            return []
        messages = [message]
        for source in range(1, self.size):
            received = np.empty(int(sizes[source]), np.uint8)
            with _failures():
                for piece in _pieces(_tensor(received)):
                    self._torch.recv(piece, source, group=self._group)
            messages.append(received.tobytes())
        return messages

    def broadcast(self, message: bytes, source: int) -> bytes:
        """See `Communicator`."""
        size = _tensor(np.array([len(message)], np.int64))
        with _failures():
            self._torch.broadcast(size, source, group=self._group)
        if self.rank == source:
            content = np.frombuffer(message, np.uint8).copy()
        else:
            content = np.empty(int(size[0]), np.uint8)
        with _failures():
            for piece in _pieces(_tensor(content)):
                self._torch.broadcast(piece, source, group=self._group)
        return content.tobytes()

    def exchange(self, table: Any) -> Any:
        """See `ktfast.kmeans.distributed.ranks.Ranks.exchange`."""
        flat = _tensor(np.ascontiguousarray(table)).reshape(self.size, -1)
        step = max(1, _PIECE // (self.size * flat.element_size()))
        received = flat.new_empty(flat.shape)
        for start in range(0, flat.shape[1], step):
            piece = flat[:, start : start + step].contiguous()
            into = piece.new_empty(piece.shape)
            with _failures():
                self._torch.all_to_all_single(into, piece, group=self._group)
            received[:, start : start + step] = into
        return received.numpy().reshape(table.shape)

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
    except (RuntimeError, ValueError) as error:
        raise CommunicationError(
            f"another process of this fit has stopped or cannot be reached ({error}); start all "
            "processes again. With `checkpoint`, the fit continues from its last checkpoint"
        ) from error
