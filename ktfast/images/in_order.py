"""Threads that compute results ahead of a consumer, who gets the results in order."""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from ktfast.native.threads import usable_cores

Result = TypeVar("Result")

AHEAD = 4
"""Number of results that each thread may compute ahead, to hide a slow image in bounded memory."""


@contextlib.contextmanager
def in_order(
    function: Callable[[int], Result], n: int, n_threads: int | None
) -> Iterator[Callable[[int], Iterator[tuple[int, Result]]]]:
    """Apply a function to the rows 0 to n - 1 in threads, a bounded number of rows ahead.

    Parameters
    ----------
    function : callable
        Function of a row.
    n : int
        Number of rows.
    n_threads : int or None
        Number of threads. None: one per core of this process.

    Yields
    ------
    callable
        Function that takes the first row and iterates over (row, result) in order. A consumer can
        leave the iterator early and start another one at a later row.
    """
    pool = ThreadPoolExecutor(n_threads or usable_cores(), thread_name_prefix="ktfast")
    window = AHEAD * (n_threads or usable_cores())
    ahead: deque[tuple[int, Future[Result]]] = deque()

    def results(first: int) -> Iterator[tuple[int, Result]]:
        if ahead and ahead[0][0] != first:
            ahead.clear()
        following = ahead[-1][0] + 1 if ahead else first
        while ahead or following < n:
            while len(ahead) < window and following < n:
                ahead.append((following, pool.submit(function, following)))
                following += 1
            row, future = ahead.popleft()
            yield row, future.result()

    try:
        yield results
    finally:
        pool.shutdown(cancel_futures=True)
