"""The memory that jigsaw_tiles reads and writes: `out`, any alignment, and nothing outside."""

import ctypes
import mmap

import numpy as np
import pytest

from ktfast.ops import jigsaw_tiles
from ktfast.reference import jigsaw_tiles as reference

PERMUTATIONS = np.stack([np.roll(np.arange(9), k) for k in range(9)])


def make(rng, batch=4, side=70):
    """A random batch: images, and the options that every call needs."""
    images = rng.integers(0, 256, (batch, side, side, 3), dtype=np.uint8)
    options = {"sample_ids": np.arange(batch), "seed": 3, "epoch": 1, "gray_probability": 0.5}
    return images, {**options, "tile_size": 19, "jitter": 2}


def shifted(shape, dtype, by):
    """An array whose first element lies `by` elements after a 64-byte boundary.

    Also returns the memory before and after the array, which is filled with 77.
    """
    size = int(np.prod(shape))
    whole = np.full(size + 256, 77, dtype)
    start = (-whole.ctypes.data % 64) // whole.itemsize + 64 + by
    around = np.split(whole, [start, start + size])[::2]
    return whole[start : start + size].reshape(shape), around


# --- out ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("by", [0, 1, 4, 7, 8, 15, 16, 21, 31])
def test_any_alignment_gets_the_same_tiles_and_nothing_around_them(
    simd, rng, channels_last, dtype, by
):
    images, options = make(rng)
    options.update(channels_last=channels_last, dtype=dtype)
    wanted, _ = jigsaw_tiles(images, PERMUTATIONS, **options)
    shape = (4, 9, 19, 19, 3) if channels_last else wanted.shape
    out, around = shifted(shape, dtype, by)
    if channels_last:
        out = out.transpose(0, 1, 4, 2, 3)
    tiles, _ = jigsaw_tiles(images, PERMUTATIONS, **options, out=out)
    assert tiles is out
    assert np.array_equal(out, wanted)
    assert all((memory == 77).all() for memory in around)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("by", [0, 5])
def test_large_outputs_at_any_alignment(simd, rng, channels_last, by):
    """More than 8 MiB is written past the caches, which needs whole registers."""
    images, options = make(rng, batch=48, side=150)
    options.update(tile_size=45, channels_last=channels_last)
    small = {**options, "sample_ids": options["sample_ids"][:2], "max_occluders": 0}
    wanted, _ = jigsaw_tiles(images[:2], PERMUTATIONS, **small)
    shape = (48, 9, 45, 45, 3) if channels_last else (48, 9, 3, 45, 45)
    out, around = shifted(shape, "float32", by)
    assert out.nbytes > 8 << 20
    if channels_last:
        out = out.transpose(0, 1, 4, 2, 3)
    jigsaw_tiles(images, PERMUTATIONS, **options, max_occluders=0, out=out)
    assert np.array_equal(out[:2], wanted)
    assert all((memory == 77).all() for memory in around)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_tensors_are_reused(rng, channels_last, dtype):
    torch = pytest.importorskip("torch")
    images, options = make(rng)
    options.update(channels_last=channels_last, dtype=dtype)
    images = torch.from_numpy(images)
    first, labels = jigsaw_tiles(images, PERMUTATIONS, **options)
    wanted = first.clone()
    options["epoch"] = 2
    tiles, others = jigsaw_tiles(images, PERMUTATIONS, **options, out=first)
    assert tiles is first
    assert not torch.equal(tiles, wanted)
    assert not torch.equal(others, labels)
    options["epoch"] = 1
    part = {**options, "sample_ids": options["sample_ids"][:3], "max_occluders": 0}
    alone, _ = jigsaw_tiles(images[:3], PERMUTATIONS, **part)
    assert torch.equal(jigsaw_tiles(images[:3], PERMUTATIONS, **part, out=tiles[:3])[0], alone)


def test_a_backward_pass_that_lost_its_tiles_raises(rng):
    torch = pytest.importorskip("torch")
    images, options = make(rng)
    images = torch.from_numpy(images)
    weight = torch.ones(2, 3, 3, 3, requires_grad=True)
    tiles, _ = jigsaw_tiles(images, PERMUTATIONS, **options)
    loss = torch.conv2d(tiles.flatten(0, 1), weight).sum()
    jigsaw_tiles(images, PERMUTATIONS, **options, out=tiles)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    with torch.inference_mode():  # autograd does not track changes here
        tiles, _ = jigsaw_tiles(images, PERMUTATIONS, **options)
        jigsaw_tiles(images, PERMUTATIONS, **options, out=tiles)


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        ([1.0], TypeError, "out: expected an array"),
        (
            np.zeros((4, 9, 3, 19, 19)),
            TypeError,
            "out must be float32, .* got float64",
        ),
        (np.zeros((4, 9, 19, 19, 3), np.float32), ValueError, r"shape \[4, 9, 3, 19, 19\], got"),
        (np.zeros((3, 9, 3, 19, 19), np.float32), ValueError, r"got \[3, 9, 3, 19, 19\]"),
        (np.zeros((4, 9, 3, 19, 38), np.float32)[..., ::2], ValueError, "gaps, ordered row-major"),
        (np.broadcast_to(np.float32(0), (4, 9, 3, 19, 19)), ValueError, "without gaps"),
    ],
)
def test_unusable_outputs(rng, out, error, message):
    images, options = make(rng)
    with pytest.raises(error, match=message):
        jigsaw_tiles(images, PERMUTATIONS, **options, out=out)


def test_outputs_of_the_wrong_kind(rng):
    torch = pytest.importorskip("torch")
    images, options = make(rng)
    tiles = np.zeros((4, 9, 3, 19, 19), np.float32)
    with pytest.raises(ValueError, match=r"channels_last says|ordered \[B, n_tiles, t, t, 3\]"):
        jigsaw_tiles(images, PERMUTATIONS, **options, channels_last=True, out=tiles)
    with pytest.raises(ValueError, match="of the library and on the device of the images"):
        jigsaw_tiles(images, PERMUTATIONS, **options, out=torch.from_numpy(tiles))
    tiles.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only"):
        jigsaw_tiles(images, PERMUTATIONS, **options, out=tiles)
    tensor = torch.zeros(4, 9, 3, 19, 19, requires_grad=True)
    with pytest.raises(ValueError, match="out must not require a gradient"):
        jigsaw_tiles(torch.from_numpy(images), PERMUTATIONS, **options, out=tensor)
    lazy = torch._neg_view(tensor.detach())
    with pytest.raises(ValueError, match=r"negates lazily; pass out.resolve_neg\(\)"):
        jigsaw_tiles(torch.from_numpy(images), PERMUTATIONS, **options, out=lazy)


def test_images_that_torch_negates_lazily_are_read_as_their_values(rng):
    torch = pytest.importorskip("torch")
    images, options = make(rng)
    given = torch.from_numpy(images)
    expected = jigsaw_tiles(given, PERMUTATIONS, **options)[0]
    lazy = torch._neg_view(-given)
    assert torch.equal(jigsaw_tiles(lazy, PERMUTATIONS, **options)[0], expected)


# --- limits ---------------------------------------------------------------------------------------
def test_sums_of_the_largest_tiles_do_not_overflow(simd, rng):
    """512 px with the largest numerator, 1785 of projected yellow, and a few other values."""
    images = np.full((2, 512, 512, 3), (255, 255, 0), np.uint8)
    images[1, rng.integers(0, 512, 9), rng.integers(0, 512, 9)] = 0
    options = {"sample_ids": np.arange(2), "seed": 0, "epoch": 0, "tile_size": 512, "jitter": 0}
    options.update(chroma_shift=0, max_occluders=0)
    options.update(gray_probability=0.0, projection_probability=1.0)
    for statistics in ("tile", "channel"):
        options["statistics"] = statistics
        tiles, _ = jigsaw_tiles(images, [[0]], **options)
        wanted, _, _ = reference.jigsaw_tiles(images, np.zeros((1, 1), np.int64), **options)
        assert np.array_equal(tiles, wanted)


# --- bounds ---------------------------------------------------------------------------------------
@pytest.fixture
def fenced():
    """A function that allocates an array between two pages that cannot be read."""
    libc = ctypes.CDLL(None, use_errno=True)
    maps = []

    def allocate(shape, *, at_end):
        size = int(np.prod(shape))
        pages = -(-size // mmap.PAGESIZE)
        memory = mmap.mmap(-1, (pages + 2) * mmap.PAGESIZE)
        start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        for page in (0, pages + 1):
            place = ctypes.c_void_p(start + page * mmap.PAGESIZE)
            assert libc.mprotect(place, ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
        maps.append(memory)  # stays open as long as arrays use this memory
        offset = mmap.PAGESIZE + (pages * mmap.PAGESIZE - size if at_end else 0)
        return np.frombuffer(memory, np.uint8, size, offset).reshape(shape)

    return allocate


@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize("tile_size", [1, 5, 16, 17, 31, 32, 33, 40, 64])
def test_nothing_outside_the_images_is_read(simd, rng, fenced, at_end, tile_size):
    """Tiles as large as their cells read up to the first and the last byte of the images."""
    side = 3 * tile_size
    images = fenced((3, side, side, 3), at_end=at_end)
    images[...] = rng.integers(0, 256, images.shape, dtype=np.uint8)
    options = {"sample_ids": np.arange(3), "seed": 0, "epoch": 0, "gray_probability": 0.3}
    options.update(tile_size=tile_size, jitter=0, chroma_shift=0)
    tiles, _ = jigsaw_tiles(images, PERMUTATIONS, **options)
    wanted, _, _ = reference.jigsaw_tiles(images, PERMUTATIONS, **options)
    assert np.array_equal(tiles, wanted)


@pytest.mark.parametrize("n_images", [1, 2, 9])
def test_images_may_be_picked_in_any_order(simd, rng, n_images):
    """The kernel prefetches the image of the next row only, and none after the last row."""
    images, options = make(rng, batch=n_images)
    indices = rng.integers(0, n_images, 7)
    options.update(indices=indices, sample_ids=np.arange(7))
    tiles, _ = jigsaw_tiles(images, PERMUTATIONS, **options)
    gathered, _ = jigsaw_tiles(images[indices], PERMUTATIONS, **{**options, "indices": None})
    assert np.array_equal(tiles, gathered)
