"""Looks into compiled CUDA code; skips where there is no cuobjdump."""

from pathlib import Path

import pytest

from ktfast.bench.core import machine_code


def _read(function, file, *options):
    try:
        return function(Path(file), *options)
    except FileNotFoundError as error:
        pytest.skip(str(error))


def cuobjdump(file, *options):
    """The output of cuobjdump about a file."""
    return _read(machine_code.cuobjdump, file, *options)


def kernels(file):
    """Every kernel in a file, once per architecture."""
    return _read(machine_code.kernels, file)
