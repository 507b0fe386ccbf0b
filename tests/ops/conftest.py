"""Fixtures of the tests of the ops."""

import pytest

from ktfast.native import modules


@pytest.fixture(params=["scalar", "avx2", "avx512", "neon"])
def simd(request, monkeypatch):
    """The instruction-set level of the kernels; skips a level that this processor does not have."""
    monkeypatch.setenv("KTFAST_SIMD", request.param)
    try:
        modules.simd_level()
    except ValueError:
        pytest.skip(f"{request.param} is not available here")
    return request.param
