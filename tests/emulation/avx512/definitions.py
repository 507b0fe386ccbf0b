"""Define every intrinsic of the AVX-512 kernels in NumPy, and make arguments for the tests.

Registers are arrays [n, lanes]. The definitions follow Intel's manuals. Where the manuals leave
something open, such as the order of a sum, the definitions follow GCC's headers.
"""

import numpy as np

N = 600  # registers of each argument


# --- Arguments ------------------------------------------------------------------------------------
def lanes(kind):
    """Return a kind's dtype and number of lanes: "f4x16" is 16 float32, "u2" one uint16."""
    name, _, n = kind.partition("x")
    return np.dtype(name), int(n or 1)


def numbers(kind, generator):
    """Make registers [N, lanes]: random bits, numbers close to one another, and extreme numbers."""
    dtype, n = lanes(kind)
    shape = (N, n)
    bits = generator.integers(0, 256, (N, n * dtype.itemsize), np.uint8).view(dtype)
    if dtype.kind != "f":
        extremes = np.array([0, 1, 0x7F, 0x80, 0xFF], np.uint8)
        some = generator.choice(extremes, (N, n * dtype.itemsize)).view(dtype)
        return np.where(generator.random(shape) < 0.5, bits, some)
    info = np.finfo(dtype)
    close = (generator.normal(size=shape) * 2.0 ** generator.integers(-4, 5, shape)).astype(dtype)
    tiny = (generator.normal(size=shape) * float(info.tiny)).astype(dtype)
    extremes = [
        0,
        -0.0,
        1,
        1.5,
        -2.5,
        np.inf,
        -np.inf,
        np.nan,
        info.max,
        info.tiny,
        info.smallest_subnormal,
    ]
    special = generator.choice(np.array(extremes, dtype), shape)
    choice = generator.choice(4, shape, p=[0.2, 0.5, 0.15, 0.15])
    return np.choose(choice, [bits, close, tiny, special])


# --- Definitions ----------------------------------------------------------------------------------
def wide(v):
    return v.astype(np.int64)


def maximum(a, b):
    """Return the larger number, or the second if one is NaN or both are zero."""
    return np.where(a > b, a, b)


def tree(v, function):
    """Add all lanes: first the upper half to the lower half, and so on."""
    while v.shape[1] > 1:
        half = v.shape[1] // 2
        v = function(v[:, half:], v[:, :half])
    return v


def largest(v):
    """Take the maximum of all lanes in GCC's order, which differs in the last two steps."""
    v = maximum(v[:, 8:], v[:, :8])
    v = maximum(v[:, 4:], v[:, :4])
    v = maximum(v[:, :2], v[:, 2:])
    return maximum(v[:, :1], v[:, 1:])


def exact_enough(a, b, c):
    """Return a b + c in float64. The last of 53 bits is set if lower bits were cut off."""
    product = a.astype(np.float64) * b
    total = product + c
    back = total - product
    rest = (product - (total - back)) + (c - back)
    even = total.view(np.int64) % 2 == 0
    toward = np.where(rest > 0, np.inf, -np.inf)
    inexact = np.isfinite(total) & (rest != 0)
    return np.where(inexact & even, np.nextafter(total, toward), total)


def fused(a, b, c):
    return exact_enough(a, b, c).astype(np.float32)


def flushed(v):
    return np.where(np.abs(v) < np.finfo(np.float32).tiny, np.copysign(np.float32(0), v), v)


def flushing_fused(a, b, c):
    """Flush a result to zero if its magnitude, rounded to 24 bits, is below 2^-126."""
    v = exact_enough(flushed(a), flushed(b), flushed(c))
    is_tiny = np.abs((v * 2.0**64).astype(np.float32)) < 2.0 ** (64 - 126)
    return np.where(is_tiny, np.copysign(0, v), v).astype(np.float32)


def from_bfloat16(words):
    return (words.astype(np.uint32) << 16).view(np.float32)


def dot_of_bfloat16(c, a, b):
    c = flushing_fused(from_bfloat16(a[:, 1::2]), from_bfloat16(b[:, 1::2]), c)
    return flushing_fused(from_bfloat16(a[:, ::2]), from_bfloat16(b[:, ::2]), c)


def to_bfloat16(upper, lower):
    """Round to bfloat16, ties to even."""
    v = np.concatenate([lower, upper], axis=1)
    bits = v.view(np.uint32)
    down = bits >> 16
    rest = bits & 0xFFFF
    up = (rest > 0x8000) | ((rest == 0x8000) & (down % 2 == 1))
    rounded = np.where(np.isinf(v), down, down + up)
    rounded = np.where(np.isnan(v), down | 0x40, rounded)
    tiny = np.abs(v) < np.finfo(np.float32).tiny
    return np.where(tiny, down & 0x8000, rounded).astype(np.uint16)


def to_int32(v):
    inside = np.abs(np.rint(v)) < 2.0**31
    return np.where(inside, np.where(inside, np.rint(v), 0).astype(np.int64), -(2**31)).astype("i4")


def dot_of_bytes(c, a, b):
    products = wide(a).reshape(len(a), 16, 4) * wide(b).reshape(len(b), 16, 4)
    return (wide(c) + products.sum(axis=2)).astype(np.int32)


def pairs_of_bytes(a, b):
    products = wide(a).reshape(len(a), 32, 2) * wide(b).reshape(len(b), 32, 2)
    return products.sum(axis=2).clip(-(2**15), 2**15 - 1)


def pairs_of_words(a, b):
    products = wide(a).reshape(len(a), 16, 2) * wide(b).reshape(len(b), 16, 2)
    return products.sum(axis=2).astype(np.int32)


def chosen(a, index, b):
    return np.take_along_axis(np.concatenate([a, b], axis=1), wide(index) % 64, axis=1)


def bits_of(condition):
    return (condition.astype(np.uint64) << np.arange(condition.shape[1], dtype=np.uint64)).sum(
        axis=1, keepdims=True
    )


def is_set(mask, n):
    return wide(mask) >> np.arange(n) & 1 == 1


def kept(v):
    return v


def lower(v):
    return v[:, : v.shape[1] // 2]


def upper(v):
    return v[:, v.shape[1] // 2 :]


def with_upper(v, half):
    return np.concatenate([lower(v), half], axis=1)


def masked(v, mask):
    return np.where(is_set(mask, v.shape[1]), v, 0)


# The result's kind, those of the arguments, and the definition.
FLOATS, DOUBLES, WORDS, INTS = "f4x16", "f8x8", "u2x32", "i4x16"
DEFINITIONS = {
    "setzero_ps": (FLOATS, [FLOATS], np.zeros_like),
    "setzero_pd": (DOUBLES, [DOUBLES], np.zeros_like),
    "setzero_si512": (INTS, [INTS], np.zeros_like),
    "set1_ps": (FLOATS, ["f4"], lambda v: v.repeat(16, axis=1)),
    "set1_epi8": ("i1x64", ["i1"], lambda v: v.repeat(64, axis=1)),
    "set1_epi16": (WORDS, ["u2"], lambda v: v.repeat(32, axis=1)),
    "set1_epi32": (INTS, ["i4"], lambda v: v.repeat(16, axis=1)),
    "abs_ps": (FLOATS, [FLOATS], np.abs),
    "castpd512_pd256": ("f8x4", [DOUBLES], lower),
    "castps512_ps256": ("f4x8", [FLOATS], lower),
    "castsi512_si256": ("i4x8", [INTS], lower),
    "castps256_ps512": ("f4x8", ["f4x8"], kept),
    "castsi256_si512": ("i4x8", ["i4x8"], kept),
    "castps_si512": (INTS, [FLOATS], lambda v: v.view(np.int32)),
    "castsi512_ps": (FLOATS, [INTS], lambda v: v.view(np.float32)),
    "extractf32x8_ps": ("f4x8", [FLOATS], upper),
    "extractf64x4_pd": ("f8x4", [DOUBLES], upper),
    "extracti64x4_epi64": ("i4x8", [INTS], upper),
    "insertf32x8": (FLOATS, [FLOATS, "f4x8"], with_upper),
    "inserti64x4": (INTS, [INTS, "i4x8"], with_upper),
    "cvtepi8_epi32": (INTS, ["i1x16"], kept),
    "cvtepu8_epi32": (INTS, ["u1x16"], kept),
    "cvtepi16_epi32": (INTS, ["i2x16"], kept),
    "cvtepu16_epi32": (INTS, ["u2x16"], kept),
    "cvtepi32_epi64": ("i8x8", ["i4x8"], kept),
    "cvtepi32_ps": (FLOATS, [INTS], kept),
    "cvtps_epi32": (INTS, [FLOATS], to_int32),
    "cvtps_pd": (DOUBLES, ["f4x8"], kept),
    "cvtpd_ps": ("f4x8", [DOUBLES], kept),
    "cvtph_ps": (FLOATS, ["f2x16"], kept),
    "cvtps_ph": ("f2x16", [FLOATS], kept),
    "cvtss_f32": ("f4", [FLOATS], lambda v: v[:, :1]),
    "add_ps": (FLOATS, [FLOATS] * 2, np.add),
    "sub_ps": (FLOATS, [FLOATS] * 2, np.subtract),
    "mul_ps": (FLOATS, [FLOATS] * 2, np.multiply),
    "max_ps": (FLOATS, [FLOATS] * 2, maximum),
    "add_pd": (DOUBLES, [DOUBLES] * 2, np.add),
    "sub_pd": (DOUBLES, [DOUBLES] * 2, np.subtract),
    "mul_pd": (DOUBLES, [DOUBLES] * 2, np.multiply),
    "fmadd_ps": (FLOATS, [FLOATS] * 3, fused),
    "fnmadd_ps": (FLOATS, [FLOATS] * 3, lambda a, b, c: fused(-a, b, c)),
    "cmp_ps_mask": ("u2", [FLOATS] * 2, lambda a, b: bits_of(~(a < b))),
    "reduce_add_ps": ("f4", [FLOATS], lambda v: tree(v, np.add)),
    "reduce_max_ps": ("f4", [FLOATS], largest),
    "dpbf16_ps": (FLOATS, [FLOATS, WORDS, WORDS], dot_of_bfloat16),
    "cvtne2ps_pbh": (WORDS, [FLOATS] * 2, to_bfloat16),
    "add_epi16": (WORDS, [WORDS] * 2, np.add),
    "add_epi32": (INTS, [INTS] * 2, np.add),
    "add_epi64": ("i8x8", ["i8x8"] * 2, np.add),
    "sub_epi16": (WORDS, [WORDS] * 2, np.subtract),
    "adds_epu16": (WORDS, [WORDS] * 2, lambda a, b: np.minimum(wide(a) + wide(b), 2**16 - 1)),
    "mullo_epi16": (WORDS, [WORDS] * 2, np.multiply),
    "madd_epi16": (INTS, ["i2x32"] * 2, pairs_of_words),
    "maddubs_epi16": ("i2x32", ["u1x64", "i1x64"], pairs_of_bytes),
    "dpbusd_epi32": (INTS, [INTS, "u1x64", "i1x64"], dot_of_bytes),
    "and_si512": (INTS, [INTS] * 2, np.bitwise_and),
    "slli_epi32": ("u4x16", ["u4x16"], lambda v: v << 16),
    "srli_epi32": ("u4x16", ["u4x16"], lambda v: v >> 16),
    "cmpgt_epu16_mask": ("u4", [WORDS] * 2, lambda a, b: bits_of(a > b)),
    "mask_add_epi16": (
        WORDS,
        [WORDS, "u4", WORDS],
        lambda a, mask, c: np.where(is_set(mask, 32), a + c, a),
    ),
    "permutex2var_epi16": (WORDS, [WORDS] * 3, chosen),
    "permutexvar_epi16": (WORDS, [WORDS] * 2, lambda i, a: chosen(a, i, a)),
    "reduce_add_epi64": ("i8", ["i8x8"], lambda v: tree(v, np.add)),
    "load_si512": (INTS, [INTS], kept),
    "loadu_si512": (INTS, [INTS], kept),
    "loadu_ps": (FLOATS, [FLOATS], kept),
    "maskz_loadu_ps": (FLOATS, [FLOATS, "u2"], masked),
    "maskz_loadu_pd": (DOUBLES, [DOUBLES, "u1"], masked),
    "maskz_loadu_epi16": ("u2x16", ["u2x16", "u2"], masked),
    "maskz_loadu_epi8": ("u1x16", ["u1x16", "u2"], masked),
    "store_si512": (INTS, [INTS], kept),
    "storeu_si512": (INTS, [INTS], kept),
    "storeu_ps": (FLOATS, [FLOATS], kept),
    "stream_si512": (INTS, [INTS], kept),
}
# Stores of what a mask selects: the kind of the elements in memory, and of the register.
MASKED_STORES = {
    "mask_storeu_ps": ("u4x16", "u4x16"),
    "mask_cvtepi32_storeu_epi16": ("u2x16", "u4x16"),
    "mask_cvtepi32_storeu_epi8": ("u1x16", "u4x16"),
}
# Size and number of the elements.
MASKED_LOADS = {
    "maskz_loadu_ps": (4, 16),
    "maskz_loadu_pd": (8, 8),
    "maskz_loadu_epi16": (2, 16),
    "maskz_loadu_epi8": (1, 16),
}
