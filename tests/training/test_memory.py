"""Freed memory stays in the process for the length of the block, and no longer."""

import platform
import resource
import subprocess
import sys

import numpy as np
import pytest

from ktfast.training import memory as heap
from ktfast.training.memory import kept_heap

MEGABYTES = 200
PAGES = MEGABYTES * 2**20 // resource.getpagesize()

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="there is no glibc here")


def faults_of_a_block() -> int:
    """Page faults of filling and freeing memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(MEGABYTES << 20, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    """Pages of memory that the process holds."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])


def check() -> None:
    """The checks of the next test, which runs them in a new process with its own heap."""
    # Huge pages, which NumPy requests by default, would hide most faults.
    held = resident()
    with kept_heap():
        first, again = faults_of_a_block(), faults_of_a_block()
        kept = resident() - held
    given_back = resident() - held
    assert again < first / 10, (first, again)
    assert kept > 0.9 * PAGES
    assert given_back < 0.1 * PAGES
    assert faults_of_a_block() > first / 2
    assert resident() - held < 0.1 * PAGES


@glibc
def test_freed_memory_is_used_again_and_then_given_back():
    code = "import sys; sys.path[:0] = sys.argv[1:]; import test_memory; test_memory.check()"
    folders = [str(path) for path in sys.path if path]
    done = subprocess.run(
        [sys.executable, "-c", code, *folders, __file__.rpartition("/")[0]],
        env={"NUMPY_MADVISE_HUGEPAGE": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@glibc
def test_memory_is_given_back_after_an_error_too():
    def fail() -> None:
        with kept_heap():
            faults_of_a_block()
            raise RuntimeError

    held = resident()
    with pytest.raises(RuntimeError):
        fail()
    assert resident() - held < 0.1 * PAGES


def test_without_glibc_nothing_happens(monkeypatch):
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda _: object())
    with kept_heap():
        pass
