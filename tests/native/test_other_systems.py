"""Imports and fallbacks where functions of Linux are missing, as on macOS."""

import subprocess
import sys

# macOS has none of these functions, and no /proc.
LACKING = """
import builtins, errno, os, pathlib
for name in (
    "copy_file_range", "eventfd", "getrandom", "memfd_create", "pipe2", "posix_fadvise",
    "posix_fallocate", "sched_getaffinity", "sched_setaffinity", "splice", "unshare",
):
    if hasattr(os, name):
        delattr(os, name)
"""

IMPORTS = """
import importlib, pkgutil, ktfast
names = [m.name for m in pkgutil.walk_packages(ktfast.__path__, "ktfast.")]
for name in names:
    if name == "ktfast.__main__" or name.startswith("ktfast.native._cuda"):
        continue
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:  # an extra is not installed
        assert not error.name.startswith("ktfast"), (name, error)
print(len(names))
"""

CORES = """
from ktfast.native.threads import n_threads, usable_cores
print(1 <= n_threads() and 1 <= usable_cores() <= (os.cpu_count() or 1))
"""

RESERVED = """
import tempfile
from ktfast.features.transform import _reserve
with tempfile.TemporaryFile() as file:
    _reserve(file.fileno(), 3_000_001)
    print(os.fstat(file.fileno()).st_size, os.fstat(file.fileno()).st_blocks * 512 >= 3_000_001)
with open("/dev/full", "wb", buffering=0) as full:
    try:
        _reserve(full.fileno(), 10)
    except OSError as error:
        print(error.errno == errno.ENOSPC)
"""


def run(code):
    """Run code in a process whose module os lacks what macOS lacks."""
    command = [sys.executable, "-c", LACKING + code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_every_module_is_imported():
    [count] = run(IMPORTS)
    assert int(count) > 150


def test_the_cores_are_counted():
    assert run(CORES) == ["True"]


def test_space_on_disk_is_reserved():
    assert run(RESERVED) == ["3000001", "True", "True"]
