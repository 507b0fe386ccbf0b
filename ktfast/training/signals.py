"""SIGINT and SIGTERM as a question that a loop asks between two steps."""

import signal
import threading
from types import FrameType
from typing import Any


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM came; the training is saved and can be resumed.

    Attributes
    ----------
    signal : number of the signal; the shell's exit code is 128 + signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; run again to resume")
        self.signal = number


class Signals:
    """Note SIGINT and SIGTERM instead of dying of them, for the length of a block.

    The second signal is not held back: it raises KeyboardInterrupt at once. Outside the main
    thread, where Python allows no handlers, nothing is noted.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt(f"stopped at once by a second {signal.Signals(number).name}")
        self.received = number
