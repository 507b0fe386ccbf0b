"""The measured ceilings are in an order that every processor keeps, and above a kernel's speed."""

import time

import numpy as np
import pytest

from ktfast.bench.core.peak import peaks
from ktfast.native import modules

# Shorter than a time slice, and often: one of them goes undisturbed by other processes.
BRIEFLY = {"seconds": 0.003, "repeats": 60}


def test_narrower_numbers_are_faster():
    best = peaks(1, ("fp32", "bf16", "int8"), **BRIEFLY)
    # 4 and more by the instructions, wherever the processor has them.
    assert best.get("int8", np.inf) > 3 * best["fp32"]
    # 2 on AMD's processors, 8 on AMX; Intel's AVX-512 has them at half of float32's rate.
    assert best.get("bf16", np.inf) > 0.4 * best["fp32"]
    # At least one operation in ten cycles, at most two AVX-512 multiply-adds in each at 8 GHz.
    assert 1e8 < best["fp32"] < 2 * 2 * 16 * 8e9


def test_the_copy_is_that_of_memory():
    copied = peaks(1, ("copy",), seconds=0.05, repeats=2)["copy"]
    source, target = np.ones(1 << 26, np.uint8), np.zeros(1 << 26, np.uint8)
    durations = []
    for _ in range(5):
        began = time.perf_counter()
        np.copyto(target, source)
        durations.append(time.perf_counter() - began)
    assert 0.2 < copied * min(durations) / source.size < 5


@pytest.mark.parametrize("level", ["scalar", "avx2"])
def test_fewer_instructions_are_not_faster(level, monkeypatch):
    if modules.simd_level() == "scalar":
        pytest.skip("this processor has no vectors to do without")
    native = peaks(1, ("fp32",), **BRIEFLY)["fp32"]
    monkeypatch.setenv("KTFAST_SIMD", level)
    lowered = peaks(1, ("fp32", "bf16", "int8"), **BRIEFLY)
    assert set(lowered) == {"fp32"}
    # AVX2 does as much as AVX-512 where that takes two cycles; scalar code must not.
    assert lowered["fp32"] < (1.15 if level == "avx2" else 0.8) * native


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "fp8"}, "kind must be fp32, bf16, int8 or copy, got 'fp8'"),
        ({"seconds": 0.0}, "seconds must be more than 0"),
        ({"n_threads": 0}, "n_threads must be at least 1"),
    ],
)
def test_bad_input_is_refused(wrong, message):
    given = {"kind": "fp32", "seconds": 0.01, "n_threads": 1} | wrong
    with pytest.raises(ValueError, match=message):
        modules.cpu.machine_peak(**given)
