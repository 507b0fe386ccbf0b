"""Looks into compiled CUDA code; skips the test if cuobjdump is missing."""

import importlib.util
from pathlib import Path

import pytest

_SCRIPT = Path(__file__).parents[2] / "benchmarks" / "machine_code.py"
_SPEC = importlib.util.spec_from_file_location("machine_code", _SCRIPT)
machine_code = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(machine_code)


def _read(function, file, *options):
    try:
        return function(Path(file), *options)
    except FileNotFoundError as error:
        pytest.skip(str(error))


def cuobjdump(file, *options):
    """The output of cuobjdump about a file."""
    return _read(machine_code.cuobjdump, file, *options)


def kernels(file, *disassembled):
    """Every kernel in a file, once per architecture."""
    return _read(machine_code.kernels, file, *disassembled)


def loops(file, kernel):
    """The innermost loops of kernels."""
    return _read(machine_code.loops, file, kernel)


def disassembly(file, kernel):
    """The machine code of kernels as text."""
    return _read(machine_code.disassembly, file, kernel)
