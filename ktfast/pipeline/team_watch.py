"""A thread that ends the work of a process when another process of the run has ended or failed.

A process that exchanges data with the others notices their end by itself. A process that works
alone for hours does not: it gets SIGTERM from this thread, so that a training saves a checkpoint.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable

LOOK_SECONDS = 0.5
"""Time between two looks for a reason to end."""
GRACE_SECONDS = 5.0
"""Time in which a process may notice by itself that it must end."""


class TeamWatch:
    """Look for a reason to end the work of this process, in a thread.

    Parameters
    ----------
    find : callable
        Returns the reason to end the work, or an empty text.
    limit : float
        Seconds from SIGTERM to the hard end of a process that does not react, because it waits for
        a GPU or for the network.
    """

    def __init__(self, find: Callable[[], str], limit: float) -> None:
        self._find, self._limit = find, limit
        self._end = threading.Event()
        self.reason = ""
        """Why the thread has sent SIGTERM; empty: it has not."""
        threading.Thread(target=self._run, name="ktfast-watch", daemon=True).start()

    def stop(self) -> None:
        """End the thread."""
        self._end.set()

    def _run(self) -> None:
        while not self._end.wait(LOOK_SECONDS):
            reason = self._find()
            if reason and not self._end.wait(GRACE_SECONDS):
                self.reason = reason
                os.kill(os.getpid(), signal.SIGTERM)
                if not self._end.wait(self._limit):
                    if sys.__stderr__ is not None:
                        print(f"ktfast: {reason}", file=sys.__stderr__, flush=True)
                    os._exit(1)
                return
