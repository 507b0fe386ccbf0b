"""Keep freed memory in the process, so that every step of a training reuses it.

glibc gives large blocks back to the system as soon as they are freed. A training on a CPU would
therefore take its activations from new pages at every step. 32 images of AlexNet cause 100,000
page faults, and each page fault clears a page.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

# Parameters of mallopt, from malloc.h, and the values with which glibc starts.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_NEVER = -1
_DEFAULT_TRIM, _DEFAULT_MMAPS = 128 << 10, 65536
# glibc raises this threshold by itself up to this value, until a program sets the threshold.
_LARGEST_MMAP_THRESHOLD = 32 << 20


@contextmanager
def kept_heap() -> Iterator[None]:
    """Keep freed memory in the process for the length of a block, then give the memory back.

    This makes training on CPUs faster, because torch allocates the activations of every step anew
    and a fresh page costs a fault of the operating system. Without glibc this does nothing.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        yield
        return
    libc.mallopt(_MMAP_MAX, 0)  # the heap serves blocks of any size ...
    libc.mallopt(_TRIM_THRESHOLD, _NEVER)  # ... and keeps the free memory at its end
    try:
        yield
    finally:
        libc.mallopt(_MMAP_MAX, _DEFAULT_MMAPS)
        libc.mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        libc.mallopt(_TRIM_THRESHOLD, _DEFAULT_TRIM)
        libc.malloc_trim(0)
