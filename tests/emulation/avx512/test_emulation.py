"""Test the emulated AVX-512: each intrinsic against Intel's definition, written in NumPy.

On a processor with AVX-512, the real intrinsics are tested against the same definitions.
"""

import ctypes
import mmap
import re

import numpy as np
import pytest

from emulation.avx512.build import (
    AMX_FLAGS,
    AVX512_FLAGS,
    EMULATION,
    EMULATION_FLAGS,
    ROOT,
    compile_one,
    cpu_flags,
)
from emulation.avx512.build import link as linked
from emulation.avx512.definitions import (
    DEFINITIONS,
    MASKED_LOADS,
    MASKED_STORES,
    N,
    is_set,
    lanes,
    numbers,
)
from ktfast.native import modules

ROUNDS_UP_AND_FLUSHES = 0x1F80 | 0x4000 | 0x8040  # an MXCSR
PROT_NONE = 0
HAS_AVX512 = cpu_flags() >= {
    *("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni", "avx512_bf16")
}
HAS_AMX = HAS_AVX512 and cpu_flags() >= {"amx_tile", "amx_int8", "amx_bf16"}


class Intrinsics:
    """Calls the functions of self_test.cpp with arrays [n, lanes]."""

    def __init__(self, path, name):
        self.library = ctypes.CDLL(str(path))
        self.name = name

    def place(self, name, places, n=1):
        """Call a function with the addresses of the result and of three arguments."""
        function = self.library[name]
        function.restype = ctypes.c_char_p
        places = [*places, *[places[-1]] * (4 - len(places))]
        error = function(*map(ctypes.c_void_p, places), ctypes.c_int64(n))
        if error is not None:
            raise RuntimeError(error.decode())

    def call(self, name, *arguments):
        """Return the result's bytes [n, 64]; bytes that are not written keep the value 85."""
        n = len(arguments[0])
        slots = [aligned((n, 64)) for _ in range(1 + len(arguments))]
        slots[0][:] = 85
        for slot, argument in zip(slots[1:], arguments, strict=True):
            values = np.ascontiguousarray(argument).view(np.uint8).reshape(n, -1)
            slot[:, : values.shape[1]] = values
        self.place(name, [slot.ctypes.data for slot in slots], n)
        return slots[0]


def aligned(shape):
    """Allocate bytes that are aligned to a register."""
    size = int(np.prod(shape))
    memory = np.zeros(size + 64, np.uint8)
    return memory[-memory.ctypes.data % 64 :][:size].reshape(shape)


@pytest.fixture(scope="module", params=["emulation", *["processor"] * HAS_AVX512])
def intrinsics(request, tmp_path_factory):
    if request.param == "emulation":
        flags = [*EMULATION_FLAGS, "-DWITH_TILES"]
    elif HAS_AMX:
        flags = [*AMX_FLAGS, "-DWITH_TILES"]
        modules.simd_level()  # asks the system for the tile registers
    else:
        flags = AVX512_FLAGS
    folder = tmp_path_factory.mktemp(request.param)
    source = EMULATION / "self_test.cpp"
    target = compile_one(source, folder / "self_test.o", [*flags, "-Wno-ignored-attributes"])
    return Intrinsics(linked([target], folder / "self_test.so"), request.param)


# --- Comparisons ----------------------------------------------------------------------------------
def view(result, kind):
    dtype, n = lanes(kind)
    return np.ascontiguousarray(result[:, : n * dtype.itemsize]).view(dtype)


def assert_same_bits(result, expected, kind):
    """Compare bits. Every NaN equals every other NaN; zeros must have the same sign."""
    dtype, _ = lanes(kind)
    expected = np.asarray(expected).astype(dtype)
    result = view(result, kind)
    if dtype.kind == "f":
        np.testing.assert_array_equal(np.isnan(result), np.isnan(expected))
        result, expected = (np.where(np.isnan(v), dtype.type(0), v) for v in (result, expected))
    bits = f"u{dtype.itemsize}"
    np.testing.assert_array_equal(result.view(bits), expected.view(bits))


@pytest.mark.parametrize("name", DEFINITIONS)
def test_intrinsic(intrinsics, name, rng):
    out, kinds, define = DEFINITIONS[name]
    arguments = [numbers(kind, rng) for kind in kinds]
    with np.errstate(all="ignore"):
        expected = define(*arguments)
        assert_same_bits(intrinsics.call(name, *arguments), expected, out)


@pytest.mark.parametrize("name", ["dpbf16_ps", "cvtne2ps_pbh"])
def test_bfloat16_in_another_floating_point_environment(intrinsics, name, rng):
    out, kinds, define = DEFINITIONS[name]
    arguments = [numbers(kind, rng) for kind in kinds]
    before = intrinsics.library.set_environment(ctypes.c_uint32(ROUNDS_UP_AND_FLUSHES))
    try:
        result = intrinsics.call(name, *arguments)
    finally:
        during = intrinsics.library.set_environment(ctypes.c_uint32(before))
    assert during & ~0x3F == ROUNDS_UP_AND_FLUSHES
    with np.errstate(all="ignore"):
        assert_same_bits(result, define(*arguments), out)


@pytest.mark.parametrize("name", MASKED_STORES)
def test_masked_stores_leave_the_rest(intrinsics, name, rng):
    out, kind = MASKED_STORES[name]
    dtype, n = lanes(out)
    values, mask = numbers(kind, rng), numbers("u2", rng)
    result = intrinsics.call(name, values, mask)
    untouched = np.full((N, 64), 85, np.uint8)
    stored = view(untouched, out)
    expected = np.where(is_set(mask, n), values.astype(dtype), stored)
    np.testing.assert_array_equal(view(result, out), expected)
    np.testing.assert_array_equal(result[:, n * dtype.itemsize :], 85)


@pytest.fixture
def edge():
    """Return the address of a page that must not be accessed, and NumPy's view of the page before.

    The page before holds 0, 1, 2, ... at its end.
    """
    page = mmap.PAGESIZE
    both = np.frombuffer(mmap.mmap(-1, 2 * page), np.uint8)
    both[page - 64 : page] = np.arange(64)
    address = both.ctypes.data + page
    protect = ctypes.CDLL(None).mprotect
    protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    assert protect(address, page, PROT_NONE) == 0
    yield address, both[:page]
    assert protect(address, page, mmap.PROT_READ | mmap.PROT_WRITE) == 0


@pytest.mark.parametrize("name", MASKED_LOADS)
def test_masked_loads_end_where_the_mask_does(intrinsics, edge, name):
    address, _ = edge
    size, n = MASKED_LOADS[name]
    result, mask = aligned(64), aligned(64)
    for count in range(n + 1):
        mask[:4] = np.array([(1 << count) - 1], "<u4").view(np.uint8)
        begin = address - count * size
        intrinsics.place(name, [result.ctypes.data, begin, mask.ctypes.data])
        np.testing.assert_array_equal(result[: count * size], np.arange(64 - count * size, 64))
        np.testing.assert_array_equal(result[count * size : n * size], 0)


@pytest.mark.parametrize("name", MASKED_STORES)
def test_masked_stores_end_where_the_mask_does(intrinsics, edge, name):
    address, before = edge
    dtype, n = lanes(MASKED_STORES[name][0])
    values, mask = aligned(64), aligned(64)
    values[:] = 7
    for count in range(n + 1):
        before[:] = 0
        mask[:4] = np.array([(1 << count) - 1], "<u4").view(np.uint8)
        begin = address - count * dtype.itemsize
        intrinsics.place(name, [begin, values.ctypes.data, mask.ctypes.data])
        assert before.tolist() == [0] * (before.size - count * dtype.itemsize) + [7] * (
            count * dtype.itemsize
        )


@pytest.mark.parametrize("name", ["load_si512", "store_si512", "stream_si512"])
def test_what_must_be_aligned_is(intrinsics, name):
    if intrinsics.name != "emulation":
        pytest.skip("the processor ends the process")
    at, off = aligned((2, 64)).ctypes.data, aligned((2, 64)).ctypes.data + 32
    places = [at, off] if name == "load_si512" else [off, at]
    with pytest.raises(RuntimeError, match="across a boundary of 64 bytes"):
        intrinsics.place(name, places)


# --- Tiles ----------------------------------------------------------------------------------------
def tile_product(intrinsics, name, sums, left, right):
    """Test products of tile registers [n, 16, 64 bytes]; nothing is written behind the result."""
    if intrinsics.name != "emulation" and not HAS_AMX:
        pytest.skip("this processor has no AMX")
    rows = [
        np.pad(v.view(np.uint8).reshape(-1, 16, 64), ((0, 0), (0, 16), (0, 0))).reshape(-1, 64)
        for v in (sums, left, right)
    ]
    result = intrinsics.call(name, *rows).reshape(-1, 32, 64)
    np.testing.assert_array_equal(result[:, 16:], 0)
    return result[:, :16].copy().view(sums.dtype)


def test_tiles_of_bytes(intrinsics, rng):
    sums = rng.integers(-(2**31), 2**31, (20, 16, 16)).astype(np.int32)
    left = rng.integers(-128, 128, (20, 16, 64)).astype(np.int8)
    right = rng.integers(0, 256, (20, 16, 16, 4)).astype(np.uint8)
    left[0], right[0] = -128, 255
    result = tile_product(intrinsics, "dpbsud", sums, left, right)
    by_row = right.transpose(0, 1, 3, 2).reshape(20, 64, 16)
    expected = sums + left.astype(np.int64) @ by_row.astype(np.int64)
    np.testing.assert_array_equal(result, expected.astype(np.int32))  # around the end, too


def test_tiles_of_bfloat16(intrinsics, rng):
    shape = (40, 16, 32)
    left, right = ((rng.normal(size=shape) * 4.0 ** rng.integers(-3, 4, shape)) for _ in range(2))
    left[0] *= 2.0**-70  # products of the first registers, and factors of the second, are denormal
    right[0] *= 2.0**-66
    left[1] *= 2.0**-128
    sums = rng.normal(size=(40, 16, 16)).astype(np.float32)
    sums[:2] *= np.float32(2.0**-124)
    factors = [bfloat16(v) for v in (left, right)]
    result = tile_product(intrinsics, "dpbf16ps", sums, *(words for words, _ in factors))
    rows, columns = (value.astype(np.float64) for _, value in factors)
    columns = columns.reshape(40, 16, 16, 2)
    parts = np.zeros((40, 16, 16, 2), np.float32)
    for k in range(32):
        product = rows[:, :, None, k] * columns[:, k // 2, :, k % 2][:, None]
        # In x87's long double, whose 64 bits hold these sums well enough to be rounded once.
        total = product.astype(np.longdouble) + parts[..., k % 2]
        parts[..., k % 2] = without_denormals(total.astype(np.float32))
    both = without_denormals(parts[..., 0] + parts[..., 1])
    expected = without_denormals(without_denormals(sums) + both)
    assert_same_bits(result.reshape(-1, 16).view(np.uint8), expected.reshape(-1, 16), "f4x16")


def bfloat16(values):
    """Return bfloat16 words [..] and the float32 numbers that they represent, without denormals."""
    bits = np.asarray(values, np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
    return (bits >> 16).astype(np.uint16), without_denormals(bits.view(np.float32))


def without_denormals(values):
    tiny = np.abs(values) < np.finfo(np.float32).tiny
    return np.where(tiny, np.copysign(np.float32(0), values), values)


def test_every_intrinsic_of_the_kernels_is_here():
    """AVX-512 intrinsics are those of 512 bits and those with a mask."""
    used = set()
    for path in (ROOT / "csrc").glob("*/cpu/avx512*/*"):
        names = re.findall(r"\b_mm(512_|256_mask|_mask)(\w+)", path.read_text())
        used |= {name if width == "512_" else f"mask{name}" for width, name in names}
    compared = set(DEFINITIONS) | set(MASKED_STORES)
    assert used == compared
    used = set()
    for path in (ROOT / "csrc").rglob("*.*"):
        if "amx" in str(path.relative_to(ROOT)):
            used |= set(re.findall(r"\b_tile_(\w+)", path.read_text()))
    assert used == {"loadconfig", "release", "zero", "loadd", "stored", "dpbsud", "dpbf16ps"}
