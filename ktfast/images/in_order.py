"""Threads that work ahead of a consumer who wants the results in order."""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from ktfast.native.threads import usable_cores

Result = TypeVar("Result")

AHEAD = 4
"""Results in work per thread: enough to hide a slow image, few enough to bound the memory."""


@contextlib.contextmanager
def in_order(
    function: Callable[[int], Result], n: int, n_threads: int | None
) -> Iterator[Callable[[int], Iterator[tuple[int, Result]]]]:
    """Apply `function` to rows 0 .. n - 1 in threads, a bounded number ahead.

    Yields
    ------
    a function of the first row that iterates over (row, result) in order; the iterator may be
    left early and the next one started where it stopped.
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
