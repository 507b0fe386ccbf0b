"""The processes that work on one run: rank 0 leads, and the other processes help.

Rank 0 runs the pipeline as a single process does: it holds the lock of the run folder, decides
which stages are up to date, and writes every file but the shards of features. Where work can be
shared, rank 0 calls a function on all processes. Between two calls the helpers wait.

Orders, errors and the exit status travel through the key-value store of torch.distributed. Data
travels over gloo.
"""

import contextlib
import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

from ktfast.errors import ConfigError
from ktfast.kmeans.distributed.communicator import CommunicationError, Communicator
from ktfast.kmeans.distributed.pulse import limit_seconds
from ktfast.kmeans.distributed.ranks import ALONE, Ranks, portable
from ktfast.pipeline.team_watch import TeamWatch
from ktfast.training.signals import Interrupted

POLL_SECONDS = 0.05
"""Time between two looks of a waiting helper into the store."""
PATIENCE_SECONDS = 10.0
"""Longest wait for the reason why another process has failed, and for helpers at the end."""

_VARIABLES = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
_END, _FAILURE = "end", "failure"


class Team:
    """A single process, which works alone; the base class of several processes.

    Attributes
    ----------
    ranks : Ranks
        The processes, for collective operations.
    """

    ranks: Ranks = ALONE

    @property
    def leads(self) -> bool:
        """Whether this process is rank 0."""
        return self.ranks.leads

    @property
    def communicator(self) -> Communicator | None:
        """Connects the processes for K-means; None if this process works alone."""
        return None

    @property
    def size(self) -> int:
        """Number of processes."""
        return self.ranks.size

    def call(self, function: Callable[..., None], *arguments: Any) -> None:
        """Let every helper call ``function(team, *arguments)``; only rank 0 calls this method.

        Rank 0 must do its own part of the work afterwards, because the helpers wait for rank 0.

        Parameters
        ----------
        function : callable
            A function of a module.
        *arguments : object
            Values that can be pickled.
        """

    @contextlib.contextmanager
    def explaining(self) -> Iterator[None]:
        """Raise the error of the process that failed first, instead of a lost connection."""
        yield

    def device(self, device: str) -> str:
        """Choose the device of this process, given the device of the run."""
        return device

    def board(self) -> str:
        """Give the name of a new list of jobs; only rank 0 calls this method."""
        return ""

    def take(self, board: str) -> int:
        """Take the next job of a list: 0, 1, 2, ... on whichever process asks."""
        raise NotImplementedError

    def put(self, board: str, job: int, result: Any) -> None:
        """Send the result of a job to rank 0."""
        raise NotImplementedError

    def wait_for(self, board: str, job: int) -> Any:
        """Wait for the result of a job of a helper; only rank 0 calls this method."""
        raise NotImplementedError

    def dismiss(self, status: int) -> None:
        """Let the helpers end with an exit status; only rank 0 calls this method."""


class TorchTeam(Team):
    """Processes that torchrun, or another launcher with its variables, has started.

    Every process must make the object.
    """

    def __init__(self) -> None:
        import torch.distributed

        from ktfast.kmeans.distributed import TorchCommunicator

        self._communicator = TorchCommunicator()
        self.ranks = Ranks(self._communicator)
        # torchrun keeps one store over all restarts of the processes.
        prefix = f"ktfast/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
        distributed: Any = torch.distributed
        default = distributed.distributed_c10d._get_default_store()
        self._store: Any = distributed.PrefixStore(prefix, default)
        self._calls = self._boards = 0
        self._watch = TeamWatch(self._problem, limit_seconds())

    def _problem(self) -> str:
        """Say why this process must end although it works alone; empty if it need not."""
        try:
            self._communicator.check()
            news = _FAILURE if self.leads else _END
            return "another process has failed" if self._store.check([news]) else ""
        except CommunicationError as error:
            return str(error)
        except RuntimeError as error:  # the store of a dead process
            return f"process 0 has stopped or cannot be reached ({error})"

    @property
    def communicator(self) -> Communicator:
        """See `Team`."""
        return self._communicator

    def call(self, function: Callable[..., None], *arguments: Any) -> None:
        """See `Team`."""
        try:
            order = pickle.dumps((function, arguments))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ConfigError(
                f"the work cannot be sent to the other processes ({error}): start one process, or "
                "define every class and function of the task at the top of a module"
            ) from error
        self._store.set(f"call/{self._calls}", "")
        self._calls += 1
        self.ranks.broadcast(order)

    def serve(self) -> int:
        """Help rank 0 until it dismisses this process.

        Returns
        -------
        status : int
            Exit status of rank 0.

        Raises
        ------
        CommunicationError
            Rank 0 has died.
        Interrupted
            A signal came to this process.
        """
        try:
            while True:
                status = self._next_status(f"call/{self._calls}")
                if status is not None:
                    return status
                self._calls += 1
                self._help()
        except RuntimeError as error:  # the store of a dead process
            raise CommunicationError(
                f"process 0 has stopped or cannot be reached ({error}); start all processes again"
            ) from error
        except KeyboardInterrupt as stop:
            if reason := self._watch.reason:
                return self._last_status(reason)
            self._tell(int(getattr(stop, "signal", signal.SIGINT)))
            self._go()
            raise

    def _next_status(self, call: str) -> int | None:
        """Wait for a call, or for the end, whose status is returned."""
        while not self._store.check([call]):
            if self._store.check([_END]):
                return self._last_status("")
            self._communicator.check()
            time.sleep(POLL_SECONDS)
        return None

    def _last_status(self, reason: str) -> int:
        """Give the exit status of rank 0; raise `CommunicationError` if rank 0 is lost."""
        self._watch.stop()
        try:
            if self._store.check([_END]):
                status = int(self._store.get(_END))
                self._go()
                return status
        except RuntimeError as error:
            reason = reason or str(error)
        raise CommunicationError(f"{reason}; start all processes again")

    def _help(self) -> None:
        """Run the function that rank 0 calls. Rank 0 tells of an error of this function."""
        try:
            function, arguments = pickle.loads(self.ranks.broadcast(b""))
            function(self, *arguments)
        except CommunicationError:
            pass  # rank 0 has failed, or will find out who has
        except Exception as error:
            self._tell(portable(error))
        else:
            return
        # The connections are lost, so the next news is the end.
        self._communicator.abort()
        self._calls = -1

    def _tell(self, failure: Any) -> None:
        """Tell rank 0 why this process fails: an error, or the number of a signal."""
        with contextlib.suppress(RuntimeError):
            self._store.set(_FAILURE, pickle.dumps((self.ranks.rank, failure)))
        self._communicator.abort()

    def _go(self) -> None:
        """Tell rank 0 that this helper needs the store no more."""
        self._watch.stop()
        with contextlib.suppress(RuntimeError):
            self._store.set(f"gone/{self.ranks.rank}", "")

    @contextlib.contextmanager
    def explaining(self) -> Iterator[None]:
        """See `Team`."""
        try:
            yield
        except (CommunicationError, KeyboardInterrupt) as error:
            if isinstance(error, KeyboardInterrupt) and not self._watch.reason:
                raise
            self._watch.stop()  # this process ends by itself
            until = time.monotonic() + PATIENCE_SECONDS
            while not self._store.check([_FAILURE]):
                if time.monotonic() > until:
                    if isinstance(error, CommunicationError):
                        raise
                    raise CommunicationError(self._watch.reason) from error
                time.sleep(POLL_SECONDS)
            rank, failure = pickle.loads(self._store.get(_FAILURE))
            if not isinstance(failure, Exception):
                raise Interrupted(failure) from error
            note: Any = getattr(failure, "add_note", None)  # Python 3.11
            if note is not None:
                note(f"The error was raised by process {rank} of {self.size}.")
            raise failure from error

    def device(self, device: str) -> str:
        """Give each process of a machine a GPU of its own, if the run uses GPUs without a number.

        If a machine has fewer GPUs than processes, processes share GPUs.
        """
        import torch

        if device not in ("auto", "cuda") or not torch.cuda.is_available():
            return device
        local = int(os.environ.get("LOCAL_RANK", self.ranks.rank))
        return f"cuda:{local % torch.cuda.device_count()}"

    def board(self) -> str:
        """See `Team`."""
        self._boards += 1
        return f"jobs/{self._boards}"

    def take(self, board: str) -> int:
        """See `Team`."""
        return int(self._store.add(board, 1)) - 1

    def put(self, board: str, job: int, result: Any) -> None:
        """See `Team`."""
        self._store.set(f"{board}/{job}", pickle.dumps(result))

    def wait_for(self, board: str, job: int) -> Any:
        """See `Team`."""
        while not self._store.check([f"{board}/{job}"]):
            if self._store.check([_FAILURE]):
                raise CommunicationError("another process has failed")
            self._communicator.check()
            time.sleep(POLL_SECONDS)
        return pickle.loads(self._store.get(f"{board}/{job}"))

    def dismiss(self, status: int) -> None:
        """See `Team`."""
        self._watch.stop()
        # torchrun sends SIGTERM to this process if a helper ends first.
        with contextlib.suppress(RuntimeError, KeyboardInterrupt):
            self._store.set(_END, str(status))
            self._communicator.abort()  # a helper may wait for rank 0 in a collective operation
            until = time.monotonic() + PATIENCE_SECONDS
            for rank in range(1, self.size):
                while not self._store.check([f"gone/{rank}"]) and time.monotonic() < until:
                    time.sleep(POLL_SECONDS)


ONE = Team()
"""This process alone."""


def started_by_launcher() -> bool:
    """Whether a launcher such as torchrun has started this process as one of several."""
    return os.environ.keys() >= _VARIABLES and os.environ["WORLD_SIZE"] != "1"


def processes_here() -> int:
    """Give the number of processes that a launcher has started on this machine."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
