"""Where the tensor-core screen's codes lie, the order of its tiles, and its roundings."""

import ctypes

import numpy as np
import pytest


@pytest.fixture
def library(emulated_library):
    return ctypes.CDLL(str(emulated_library))


def pointer(array):
    return ctypes.c_void_p(array.ctypes.data)


@pytest.mark.parametrize(("height", "n_stages"), [(128, 1), (128, 3), (256, 2)])
def test_every_byte_of_the_codes_has_one_place(library, height, n_stages):
    offset = library.tensor_column_offset
    offset.restype = ctypes.c_int64
    places = {}
    for index in range(2 * height):
        for column in range(8 * n_stages):
            at = offset(*(ctypes.c_int64(v) for v in (height, n_stages, index, column)))
            places[at] = index, column
    assert sorted(places) == list(range(0, 2 * height * n_stages * 128, 16))
    for at, (index, column) in places.items():
        # A stage is contiguous; eight vectors' columns are one core matrix of 128 bytes.
        stage = index // height * n_stages + column // 8
        within = column % 8 * height * 16 + index % height // 8 * 128 + index % 8 * 16
        assert at == stage * height * 128 + within


def tiles_of(library, block, blocks, rows, centers):
    """The tiles of products that one of several blocks multiplies, as pairs [n, 2]."""
    walk = library.tensor_product_tiles
    walk.restype = ctypes.c_int64
    tiles = np.zeros((rows * centers, 2), np.int64)
    n = walk(*(ctypes.c_int64(v) for v in (block, blocks, rows, centers)), pointer(tiles))
    return tiles[:n]


@pytest.mark.parametrize("blocks", [1, 4, 132])
@pytest.mark.parametrize(("rows", "centers"), [(1, 1), (5, 3), (16, 8), (37, 2), (40, 9), (0, 3)])
def test_every_tile_of_products_comes_once(library, rows, centers, blocks):
    each = [tiles_of(library, block, blocks, rows, centers) for block in range(blocks)]
    tiles = sorted(map(tuple, np.concatenate(each)))
    assert tiles == [(r, c) for r in range(rows) for c in range(centers)]
    # Blocks that run at the same time are in one band, or at the end of a band and the next one.
    for at in range(max(map(len, each))):
        bands = [own[at][0] // 16 for own in each if at < len(own)]
        assert max(bands) - min(bands) <= -(-blocks // (16 * centers))


def test_the_walk_of_tiles_does_not_overflow(library):
    """As many tiles as the most rows and centres of a call have: more than 32 bits count."""
    rows, centers, blocks = 1 << 24, 1 << 23, 1 << 31
    walk = library.tensor_product_tiles
    walk.restype = ctypes.c_int64
    tiles = np.zeros((1 << 16, 2), np.int64)
    n = walk(*(ctypes.c_int64(v) for v in (5, blocks, rows, centers)), pointer(tiles))
    numbers = 5 + blocks * np.arange(n)
    assert n == -(-(rows * centers - 5) // blocks)
    band, within = np.divmod(numbers, 16 * centers)
    np.testing.assert_array_equal(tiles[:n, 0], band * 16 + within % 16)
    np.testing.assert_array_equal(tiles[:n, 1], within // 16)


def test_floats_are_rounded_to_halves_as_numpy_does(library):
    generator = np.random.default_rng(0)
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    exact = halves[~np.isnan(halves)].astype(np.float32)
    between = (exact + np.roll(exact, 1)) / 2
    bits = generator.integers(0, 1 << 32, 100_000, dtype=np.uint32).view(np.float32)
    with np.errstate(all="ignore"):
        values = np.concatenate([exact, between, np.nextafter(between, 0), bits])
        values = np.ascontiguousarray(values[~np.isnan(values)])
        expected = values.astype(np.float16)
    rounded = np.zeros(len(values), np.uint16)
    library.tensor_float16(ctypes.c_int64(len(values)), pointer(values), pointer(rounded))
    np.testing.assert_array_equal(rounded, expected.view(np.uint16))


def test_packed_scores_are_ordered_as_scores(library):
    generator = np.random.default_rng(0)
    scores = np.sort(generator.normal(size=1000).astype(np.float32))
    scores = np.concatenate([[-np.inf, -3e38], scores, [1e38, np.inf]]).astype(np.float32)
    packed, unpacked = np.zeros(len(scores), np.uint64), np.zeros_like(scores)
    library.tensor_packed(
        ctypes.c_int64(len(scores)), pointer(scores), pointer(packed), pointer(unpacked)
    )
    assert (np.diff(packed.astype(object)) > 0).all()
    np.testing.assert_array_equal(unpacked, scores)
    assert (packed & np.uint64(0xFFFFFFFF) == 7).all()


def test_scales(library):
    largest = np.array([0, 1e-30, 0.75, 1, 3, 1e15, np.inf], np.float32)
    for code in (0, 1):
        scales = np.zeros_like(largest)
        library.tensor_scales(
            ctypes.c_int64(len(largest)), pointer(largest), ctypes.c_int64(code), pointer(scales)
        )
        usual = slice(2, 6)
        ratio = largest[usual] / scales[usual]
        assert (scales > 0).all()
        if code == 0:
            np.testing.assert_allclose(ratio, 127, rtol=1e-6)
        else:
            assert ((ratio >= 1) & (ratio < 2)).all()
            assert (np.frexp(scales)[0] == 0.5).all()
