"""Hold back SIGINT, SIGTERM and SIGHUP, so that a training can save before it stops.

SIGHUP comes when a terminal or an SSH connection closes. A process that ignores SIGHUP from its
start, as `nohup` arranges, goes on ignoring SIGHUP.
"""

import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ktfast.kmeans.distributed.ranks import Ranks

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that ask the process to end."""


def is_ignored(number: int) -> bool:
    """Whether a signal is SIGHUP and the process ignores SIGHUP.

    Other signals are handled even if the process ignored them before.
    """
    return number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN


class Interrupted(KeyboardInterrupt):
    """SIGINT, SIGTERM or SIGHUP came. The training has been saved and can be resumed.

    Parameters
    ----------
    number : int
        Number of the signal.

    Attributes
    ----------
    signal : int
        Number of the signal. The exit code of the command is 128 + signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; run again to resume")
        self.signal = number


class Signals:
    """Note SIGINT, SIGTERM and SIGHUP for the length of a block, instead of ending the process.

    A second signal raises KeyboardInterrupt at once. Outside the main thread, where Python allows
    no handlers, signals are not noted.

    Attributes
    ----------
    received : int or None
        Number of the signal that came to this process, or on which the processes agreed.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._came = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            for number in ENDING:
                if not is_ignored(number):
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def agreed(self, ranks: "Ranks") -> int | None:
        """Give the number of a signal that came to any process; every process calls this.

        A signal that comes during the call counts in the next call, on all processes alike.
        """
        if ranks.size == 1:
            return self.received
        found = [number for number in ranks.gather_to_all(self.received) if number is not None]
        if not found:
            return None
        self.received = found[0]
        return self.received

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._came:
            raise KeyboardInterrupt(f"stopped at once by a second {signal.Signals(number).name}")
        self._came, self.received = True, number
