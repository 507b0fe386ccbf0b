"""Test the emulated GPU: primitives as CUDA and PTX define them, and planted mistakes."""

import re
import shutil
import subprocess

import numpy as np
import pytest

from emulation.cuda.device import EMULATION, ROOT, EmulatedCuda
from support.cuda_tools import cuobjdump

NO_FAULT = 0


def expect_failure(emulated, message, name, *arguments):
    with pytest.raises(RuntimeError, match=message):
        emulated.call(name, *arguments)


# --- Warps and blocks -----------------------------------------------------------------------------
def test_collectives(emulated, rng):
    v = rng.integers(0, 1000, 32).astype(np.int32)
    out = np.zeros((15, 32), np.int32)
    emulated.call("test_collectives", v, out)
    lane = np.arange(32)

    def bits(condition):
        return np.int64(np.flatnonzero(condition)[..., None] == lane).sum(0) @ (1 << lane)

    def mask(condition):
        return np.full(32, bits(condition)).astype(np.uint32).view(np.int32)[:32]

    wanted = [
        np.full(32, v[5]),
        v[lane * 7 % 32],
        v[lane // 8 * 8 + 3],
        v[np.where(lane < 3, lane, lane - 3)],
        v[np.where(lane > 26, lane, lane + 5)],
        v[lane ^ 16],
        v[np.where(lane % 4 < 2, lane, lane - 2)],
        v[np.where(lane % 16 == 15, lane, lane + 1)],
        np.full(32, bits(v % 3 == 0)),
        np.ones(32),
        np.full(32, (v == v[9]).all()),
        [bits(v % 5 == x % 5) for x in v],
        np.where(lane < 16, bits((v % 2 == 0) & (lane < 16)), v[20]),
        v[np.minimum(lane + 1, 31)],
        lane,
    ]
    wanted = np.array(wanted).astype(np.int64).astype(np.uint32).view(np.int32)
    np.testing.assert_array_equal(out, wanted.reshape(15, 32))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (1, r"__s\w+ at self_test.cu:\d+ with mask ffffffff, while thread \d+ waits at __s"),
        (2, r"a shuffle reads lane 7, which does not take part"),
        (3, r"mask fffffff0 does not name the lane itself"),
    ],
    ids=["divergent", "returned", "unnamed"],
)
def test_misused_collectives_are_found(emulated, fault, message):
    expect_failure(emulated, message, "test_warp_fault", fault, np.zeros(64, np.int32))


def test_a_warp_fault_names_the_kernel_and_the_thread(emulated):
    place = r"kernel warp_fault_kernel, block \(0, 0, 0\), thread \d+: "
    expect_failure(emulated, place, "test_warp_fault", 1, np.zeros(64, np.int32))


def test_shared_memory_and_barriers(emulated, rng):
    values = rng.integers(0, 1000, (5, 96)).astype(np.int32)
    out = np.zeros_like(values)
    emulated.call("test_reverse", NO_FAULT, values, out)
    np.testing.assert_array_equal(out, values[:, ::-1])


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (1, r"race: thread \d+ (reads|writes) 4 bytes of dynamic shared memory at byte \d+"),
        (2, r"deadlock.* wait at __syncthreads at self_test.cu:\d+.* wait at bar.sync at"),
        (3, r"thread 0: writes 4 bytes at byte 384 of 384 bytes of dynamic shared memory"),
        (4, r"thread 0: writes 4 bytes at byte -4 of 384 bytes of dynamic shared memory"),
        (6, r"thread 7: index 96 at self_test.cu:\d+ is outside the array"),
    ],
    ids=["no_barrier", "partial_barrier", "past_end", "before_start", "index"],
)
def test_misused_shared_memory_is_found(emulated, fault, message):
    values = np.zeros((5, 96), np.int32)
    expect_failure(emulated, message, "test_reverse", fault, values, values.copy())


def test_shared_memory_starts_poisoned(emulated):
    values = np.zeros((5, 96), np.int32)
    out = np.zeros_like(values)
    emulated.call("test_reverse", 5, values, out)
    assert np.flatnonzero((out != 0).any(axis=0)).tolist() == [92]


def test_accesses_outside_an_array_are_found(emulated):
    values = np.zeros(480, np.int32)
    message = r"block \(4, 0, 0\), thread 95: {} 4 bytes at byte 1916 of an array of 1916"
    expect_failure(
        emulated, message.format("reads"), "test_reverse", NO_FAULT, values[:-1].copy(), values
    )
    expect_failure(
        emulated, message.format("writes"), "test_reverse", NO_FAULT, values, values[:-1].copy()
    )


def test_blocks_meet_through_atomics(emulated, rng):
    values = rng.integers(0, 1000, 7 * 32).astype(np.int32)
    partial, arrived, total = np.zeros(7, np.int32), np.zeros(1, np.uint32), np.zeros(1, np.int32)
    emulated.call("test_last_block", values, partial, arrived, total)
    assert total[0] == values.sum()


def test_atomics_count_every_thread(emulated):
    counter = np.zeros(1, np.int32)
    emulated.call("test_global_race", NO_FAULT, 6, 32, counter)
    assert counter[0] == 6 * 32


def test_threads_that_update_without_an_atomic_are_found(emulated):
    message = r"race: thread \d+ (reads|writes) 4 bytes of global memory"
    expect_failure(emulated, message, "test_global_race", 1, 6, 32, np.zeros(1, np.int32))


def test_blocks_that_update_without_an_atomic_lose_some(emulated_library):
    emulated = EmulatedCuda(emulated_library)
    emulated.set(seed=2)  # has three blocks run together
    counter = np.zeros(1, np.int32)
    emulated.call("test_global_race", 1, 64, 1, counter)
    assert 0 < counter[0] < 64


# --- Asynchronous copies and tensor cores ---------------------------------------------------------
@pytest.mark.parametrize("fault", [0, 1], ids=["waits", "does_not_wait"])
def test_asynchronous_copies_come_late(emulated, rng, fault):
    values = rng.integers(1, 100, (2, 64, 4)).astype(np.int32)
    out = np.zeros_like(values)
    emulated.call("test_copy_async", fault, values, out)
    np.testing.assert_array_equal(out[1], values[1, ::-1])
    assert np.array_equal(out[0], values[0, ::-1]) == (fault == NO_FAULT)


def operands(rng, is_half, rows, columns, steps=1, limit=None):
    """Return integers a [rows, K] and b [columns, K] and their exact product."""
    dtype, limit = (np.float16, 8) if is_half else (np.int8, 128)
    k = steps * 32 // np.dtype(dtype).itemsize
    a, b = (rng.integers(-limit, limit, (n, k)).astype(dtype) for n in (rows, columns))
    return a, b, a.astype(np.int64) @ b.astype(np.int64).T


@pytest.mark.parametrize("is_half", [0, 1], ids=["int8", "half"])
def test_a_warps_product(emulated, rng, is_half):
    a, b, wanted = operands(rng, is_half, 16, 8)
    out = np.zeros((16, 8), np.float32 if is_half else np.int32)
    emulated.call("test_mma", is_half, a, b, out)
    np.testing.assert_array_equal(out, wanted)


def test_half_products_are_exact_and_their_sums_truncated(emulated):
    a, b = np.zeros((16, 16), np.float16), np.zeros((8, 16), np.float16)
    a[0, :2] = 1, 1.5 * 2.0**-12
    b[0, :2] = 1, 2.0**-12  # 1 + 1.5 * 2^-24, which would round up
    out = np.zeros((16, 8), np.float32)
    emulated.call("test_mma", 1, a, b, out)
    assert out[0, 0] == 1
    b[0, 0] = 0
    emulated.call("test_mma", 1, a, b, out)
    assert out[0, 0] == 1.5 * 2.0**-24


def core_matrices(x):
    """Arrange rows [n, K] in steps of 32 bytes, each in core matrices of 8 rows x 16 bytes."""
    by_step = x.view(np.uint8).reshape(len(x) // 8, 8, -1, 2, 16).transpose(2, 0, 3, 1, 4)
    return np.ascontiguousarray(by_step)


def warpgroup_product(emulated, rng, is_half, fault=NO_FAULT, steps=5):
    a, b, wanted = operands(rng, is_half, 64, 256, steps)
    out = np.zeros((64, 256), np.float32 if is_half else np.int32)
    packed = core_matrices(a), core_matrices(b)
    emulated.call("test_group", fault, is_half, steps, *packed, out)
    return out, wanted


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("is_half", [0, 1], ids=["int8", "half"])
def test_a_warpgroups_product(emulated, rng, is_half, steps):
    out, wanted = warpgroup_product(emulated, rng, is_half, steps=steps)
    np.testing.assert_array_equal(out, wanted)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (1, r"race: thread \d+ reads 16 bytes of dynamic.* with an access of thread 128"),
        (3, r"wgmma: no wgmma.fence since the accumulators could last be touched"),
        (4, r"cp.async.bulk: no fence since the mbarrier .* was initialised"),
        (5, r"race: thread (128 writes \d+ bytes|\d+ reads 16 bytes) of dynamic shared memory"),
        (6, r"deadlock.* 128 threads \(0 to 127\) wait at mbarrier.try_wait.parity"),
        (7, r"deadlock"),
    ],
    ids=["no_wait", "no_fence", "no_init_fence", "early_release", "no_arrival", "too_few_bytes"],
)
def test_a_broken_pipeline_is_found(emulated, rng, fault, message):
    with pytest.raises(RuntimeError, match=message):
        warpgroup_product(emulated, rng, 0, fault)


@pytest.mark.parametrize("fault", [2, 8], ids=["no_wait", "no_fence_of_the_sums"])
def test_accumulators_are_void_until_waited_for_and_fenced(emulated, rng, fault):
    out, wanted = warpgroup_product(emulated, rng, 0, fault)
    assert not (out == wanted).any()


# --- The sources and the GPU's instructions -------------------------------------------------------
def test_every_launch_can_be_emulated():
    """Only one file launches kernels and names dynamic shared memory."""
    words = re.compile(r"<<<|extern\s+__shared__")
    users = [p.name for p in (ROOT / "csrc").rglob("*.cu*") if words.search(p.read_text())]
    assert users == ["cuda_launch.cuh"]


def test_every_primitive_compiles_to_its_instruction(tmp_path):
    """Every emulated primitive exists on GPUs: nvcc compiles the same kernels."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no nvcc")
    warp = {"75": "LDSM IMMA HMMA", "80": "LDSM IMMA HMMA LDGSTS"}
    wanted = {**warp, "90a": warp["80"] + " SYNCS UBLKCP USETMAXREG IGMMA HGMMA"}
    built = tmp_path / "self_test.o"
    targets = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in wanted]
    source = EMULATION / "self_test.cu"
    command = [nvcc, "-std=c++17", f"-I{ROOT / 'csrc'}", *targets, "-c", source, "-o", built]
    subprocess.run([*command, "-Werror=all-warnings"], check=True)
    for architecture, instructions in wanted.items():
        code = cuobjdump(built, "-sass", "-arch", f"sm_{architecture}")
        assert [i for i in instructions.split() if not re.search(rf"\b{i}\b", code)] == []
