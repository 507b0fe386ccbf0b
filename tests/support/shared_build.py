"""Build something once for all processes of a test run (pytest-xdist starts several)."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest


def built_once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], Path]) -> Path:
    """Return what `build` returned in the first process that asked; the others wait for it."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # the folder of the whole test run, not of one process
    result = base / f"{name}.built"
    with open(base / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not result.exists():
            folder = base / name
            folder.mkdir(exist_ok=True)
            result.write_text(str(build(folder)))
    return Path(result.read_text())
