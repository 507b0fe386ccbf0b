"""One budget of memory for all threads that decode images at the same time.

Without the budget, every thread may hold a large image at the same time. A budget of bytes lets
many threads decode photographs of usual size, but only a few threads decode huge images.
"""

import contextlib
import ctypes
import os
import threading
from collections.abc import Iterator

DECODING_BYTES = 2 << 30
"""Bytes that the images which are being decoded may take, over all threads of the process."""
TRIM_BYTES = 64 << 20
"""After a thread has held this number of bytes, memory is given back to the system."""


class DecodeMemory:
    """A budget of bytes that threads share.

    A thread takes bytes once per block. Threads that hold bytes never wait for more bytes, so
    threads cannot wait for each other.

    Parameters
    ----------
    limit : int
        Number of bytes. An image that needs more bytes is decoded alone.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._reset()
        # A child process has none of the threads that hold bytes in the parent process.
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._free = threading.Condition()
        self._taken = 0
        self._own = threading.local()

    @contextlib.contextmanager
    def block(self) -> Iterator[None]:
        """Hold the bytes that this thread takes in the block until the outermost block ends.

        Use a block around everything that keeps a decoded image: decoding and resizing.
        """
        own = self._own
        own.depth = getattr(own, "depth", 0) + 1
        try:
            yield
        finally:
            own.depth -= 1
            held = getattr(own, "held", 0)
            if own.depth == 0 and held:
                own.held = 0
                if held >= TRIM_BYTES:
                    _give_freed_memory_back()
                with self._free:
                    self._taken -= held
                    self._free.notify_all()

    def take(self, n: int) -> None:
        """Wait until `n` bytes are free, and take them until the thread's block ends.

        If the thread holds bytes already, the call does not wait.
        """
        own = self._own
        held = getattr(own, "held", 0)
        n = min(n, self.limit)
        if n <= held:
            return
        with self._free:
            if not held:
                self._free.wait_for(lambda: self._taken + n <= self.limit)
            self._taken += n - held
            own.held = n


def _give_freed_memory_back() -> None:
    """Let glibc return freed memory. Otherwise glibc keeps the memory of an image per thread."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


DECODING = DecodeMemory(DECODING_BYTES)
"""The budget of this process."""
