"""Looks into compiled CUDA code."""

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest


def cuobjdump(file, *options):
    """The output of cuobjdump, of the CUDA toolkit or of triton's package; skips without it."""
    triton = importlib.util.find_spec("triton")
    tool = shutil.which("cuobjdump")
    if tool is None and triton is not None and triton.origin is not None:
        tool = Path(triton.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if tool is None or not Path(tool).exists():
        pytest.skip("no cuobjdump: neither the CUDA toolkit nor triton is installed")
    done = subprocess.run([tool, *options, file], capture_output=True, text=True, check=True)
    return done.stdout
