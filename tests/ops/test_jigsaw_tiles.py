"""jigsaw_tiles against its reference, by hand, by property and by statistics."""

import math
import os
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from ktfast.native import modules
from ktfast.ops import jigsaw_tiles
from ktfast.reference import jigsaw_tiles as reference

PLAIN = {"gray_probability": 0.0, "projection_probability": 0.0}
STILL = {"jitter": 0, "chroma_shift": 0, "max_occluders": 0, **PLAIN}


def make(rng, batch=5, height=70, width=75, n_tiles=9, n_permutations=11):
    """A random batch: images, permutations and the options that every call needs."""
    images = rng.integers(0, 256, (batch, height, width, 3), dtype=np.uint8)
    permutations = np.array([rng.permutation(n_tiles) for _ in range(n_permutations)])
    ids = rng.integers(-(2**63), 2**63, batch)
    return images, permutations, {"sample_ids": ids, "seed": 2**63 + 5, "epoch": 3}


def check_against_reference(backend, images, permutations, options, **more):
    """Every output and choice of the op equals the reference's, bit for bit."""
    options = {**options, **more}
    channels_last = options.pop("channels_last", False)
    wanted, labels, choices = reference.jigsaw_tiles(images, permutations, **options)
    options["sample_ids"] = backend.array(options["sample_ids"])
    if options.get("indices") is not None:
        options["indices"] = backend.array(options["indices"])
    got = jigsaw_tiles(
        backend.array(images),
        permutations,
        **options,
        channels_last=channels_last,
        return_choices=True,
    )
    assert np.array_equal(backend.numpy(got[0]), wanted)
    assert np.array_equal(backend.numpy(got[1]), labels)
    for name, values in vars(got[2]).items():
        expected = np.array([c[name] for c in choices])
        assert np.array_equal(backend.numpy(values), expected), name


# --- against the reference ------------------------------------------------------------------------
@pytest.mark.parametrize("statistics", ["tile", "channel", "none"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_equals_reference(backend, simd, rng, statistics, channels_last):
    images, permutations, options = make(rng)
    options.update(statistics=statistics, channels_last=channels_last, gray_probability=0.4)
    check_against_reference(backend, images, permutations, options, tile_size=19, jitter=2)


@pytest.mark.parametrize(
    ("height", "width", "n_tiles", "tile_size", "jitter"),
    [
        (255, 255, 9, 64, 18),
        (101, 98, 9, 31, 0),
        (3, 3, 9, 1, 0),
        (40, 43, 16, 7, 1),
        (100, 64, 4, 16, 14),
        (95, 92, 1, 90, 0),
        (95, 97, 1, 91, 1),
    ],
)
@pytest.mark.parametrize("channels_last", [False, True])
def test_equals_reference_for_any_size(
    backend, simd, rng, height, width, n_tiles, tile_size, jitter, channels_last
):
    images, permutations, options = make(rng, 3, height, width, n_tiles, 5)
    options.update(tile_size=tile_size, jitter=jitter, channels_last=channels_last)
    shift = min(2, min(height, width) // int(n_tiles**0.5) - tile_size - jitter)
    check_against_reference(
        backend, images, permutations, options, chroma_shift=shift, max_occluders=1
    )


@pytest.mark.parametrize("donor_color", ["shared", "independent"])
def test_occluders_equal_reference(backend, rng, donor_color):
    images, permutations, options = make(rng, batch=12)
    options.update(donor_color=donor_color, max_occluders=9, gray_probability=0.5)
    check_against_reference(backend, images, permutations, options, tile_size=16, jitter=3)


def test_resident_images_are_picked_by_index(backend, rng):
    images, permutations, options = make(rng)
    options.update(indices=np.array([4, 0, 0, 2, 4, 1, 3]), sample_ids=np.arange(7))
    check_against_reference(backend, images, permutations, options, tile_size=16, jitter=3)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_half_precision_is_the_rounded_float32(simd, rng, dtype, channels_last):
    torch = pytest.importorskip("torch")
    images, permutations, options = make(rng)
    options.update(tile_size=19, channels_last=channels_last, gray_probability=0.4)
    images = torch.from_numpy(images)
    full, _ = jigsaw_tiles(images, permutations, **options)
    half, _ = jigsaw_tiles(images, permutations, **options, dtype=dtype)
    assert half.dtype == getattr(torch, dtype)
    assert torch.equal(half, full.to(half.dtype))


def test_small_half_precision_numbers_round_to_nearest_even(simd):
    """One pixel of a constant tile is brighter, so the other values are close to 0."""
    image = np.full((1, 64, 64, 3), 7, dtype=np.uint8)
    image[0, 1, 1, 0] = 8
    options = {"sample_ids": [1], "seed": 0, "epoch": 0, "tile_size": 64, **STILL}
    for statistics in ("tile", "channel"):
        options["statistics"] = statistics
        full, _ = jigsaw_tiles(image, [[0]], **options)
        half, _ = jigsaw_tiles(image, [[0]], **options, dtype=np.float16)
        assert np.array_equal(half, full.astype(np.float16))


def tile_of_ties():
    """Values [64, 64] of mean 0 and std 64; odd values over 256 are bfloat16 ties after scaling."""
    beyond = list(range(257, 382, 2))
    left = 64**2 * 64**2 // 2 - sum(d * d for d in beyond)
    while left:
        beyond.append(math.isqrt(min(left, 255**2)))
        left -= beyond[-1] ** 2
    deviations = np.zeros(64**2, dtype=np.int64)
    deviations[: 2 * len(beyond)] = [*beyond, *(-d for d in beyond)]
    return deviations.reshape(64, 64)


@pytest.mark.parametrize("channels_last", [False, True])
def test_bfloat16_ties_go_to_even(simd, channels_last):
    torch = pytest.importorskip("torch")
    deviations = tile_of_ties()
    total = deviations + 383
    image = np.stack([(total + c) // 3 for c in range(3)], axis=-1).astype(np.uint8)
    options = {"sample_ids": [1], "seed": 0, "epoch": 0, "tile_size": 64}
    options |= {**STILL, "gray_probability": 1.0, "channels_last": channels_last}
    tiles, _ = jigsaw_tiles(torch.from_numpy(image[None]), [[0]], **options, dtype="bfloat16")
    exact = torch.from_numpy(deviations / 64)
    wanted = exact.to(torch.bfloat16)
    assert ((wanted.double() - exact).abs() * 64 == 1).sum() == 2 * 63
    assert torch.equal(tiles[0, 0], wanted.expand(3, 64, 64))


def test_lanes_of_a_cuda_block_cover_every_tile(tmp_path):
    """The kernel's index arithmetic, run on the host for all 256 threads of a block."""
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        pytest.skip("no C++ compiler")
    tests = Path(__file__).parents[1]
    program = tmp_path / "lanes"
    command = [compiler, "-std=c++17", "-O1", f"-I{tests.parent / 'csrc'}"]
    command += [tests / "support" / "jigsaw_lanes.cpp", "-o", program]
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    if subprocess.run([*command, *sanitizers], capture_output=True, check=False).returncode:
        subprocess.run(command, check=True)  # a compiler without sanitizers
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# --- by hand and by property ----------------------------------------------------------------------
def test_case_worked_by_hand():
    """Four cells of one pixel, shown in the order 3, 1, 0, 2."""
    image = np.array([[[[0, 3, 6], [1, 2, 0]], [[9, 9, 9], [255, 0, 51]]]], dtype=np.uint8)
    options = {"sample_ids": [5], "seed": 1, "epoch": 2, "tile_size": 1, **STILL}
    pixels = (
        jigsaw_tiles(image, [[3, 1, 0, 2]], **options, statistics="none")[0].reshape(4, 3) * 255
    )
    assert pixels.round(4).tolist() == [[255, 0, 51], [1, 2, 0], [0, 3, 6], [9, 9, 9]]
    # Mean 3, variance (9 + 0 + 9) / 3 = 6; an even pixel becomes 0.
    normal = jigsaw_tiles(image, [[3, 1, 0, 2]], **options)[0].reshape(4, 3)
    assert normal[2].tolist() == pytest.approx([-3 / 6**0.5, 0, 3 / 6**0.5])
    assert normal[3].tolist() == [0, 0, 0]
    # Gray: the mean of 1, 2, 0. Projection: v - a (a.v) / 6 with a.v = -1 + 4 - 0 = 3.
    options.update(gray_probability=1.0, statistics="none")
    gray = jigsaw_tiles(image, [[3, 1, 0, 2]], **options)[0].reshape(4, 3) * 255
    assert gray[1].tolist() == pytest.approx([1, 1, 1])
    options.update(gray_probability=0.0, projection_probability=1.0)
    projected = jigsaw_tiles(image, [[3, 1, 0, 2]], **options)[0].reshape(4, 3) * 255
    assert projected[1].tolist() == pytest.approx([1.5, 1, 0.5])


@pytest.mark.parametrize("grid", [1, 2, 3, 4])
def test_putting_tiles_back_restores_the_image(backend, rng, grid):
    t = 17
    images, permutations, options = make(rng, 4, grid * t, grid * t, grid * grid, 30)
    options.update(tile_size=t, statistics="none", **STILL)
    tiles, labels = jigsaw_tiles(backend.array(images), permutations, **options)
    tiles, labels = backend.numpy(tiles), backend.numpy(labels)
    for b in range(4):
        cells = np.empty_like(tiles[b])
        cells[permutations[labels[b]]] = tiles[b]
        whole = cells.reshape(grid, grid, 3, t, t).transpose(0, 3, 1, 4, 2)
        restored = np.rint(whole.reshape(grid * t, grid * t, 3) * 255)
        assert np.array_equal(restored, images[b])


@pytest.mark.parametrize("statistics", ["tile", "channel"])
def test_tiles_have_mean_0_and_std_1(rng, statistics):
    images, permutations, options = make(rng)
    tiles, _ = jigsaw_tiles(images, permutations, **options, tile_size=19, statistics=statistics)
    axes = (2, 3, 4) if statistics == "tile" else (3, 4)
    assert tiles.mean(axis=axes, dtype=np.float64) == pytest.approx(0, abs=1e-6)
    assert tiles.std(axis=axes, dtype=np.float64) == pytest.approx(1, abs=1e-6)


def test_channels_last_is_a_contiguous_channels_last_batch(rng):
    torch = pytest.importorskip("torch")
    images, permutations, options = make(rng)
    tiles, _ = jigsaw_tiles(
        torch.from_numpy(images), permutations, **options, tile_size=16, channels_last=True
    )
    merged = tiles.reshape(-1, 3, 16, 16)
    assert merged.data_ptr() == tiles.data_ptr()
    assert merged.is_contiguous(memory_format=torch.channels_last)


# --- chance ---------------------------------------------------------------------------------------
def draw_choices(backend, batch=4000, **more):
    """The choices for a large batch of tiny images: 3x3 cells of 8 px and tiles of 2 px."""
    permutations = np.array([np.roll(np.arange(9), k) for k in range(9)])
    options = {"sample_ids": np.arange(batch), "seed": 7, "epoch": 1, "tile_size": 2, **more}
    images = backend.array(np.zeros((batch, 24, 24, 3), dtype=np.uint8))
    choices = jigsaw_tiles(images, permutations, **options, return_choices=True)[2]
    return {name: backend.numpy(values) for name, values in vars(choices).items()}


def assert_uniform(values, n):
    counts = np.bincount(np.ravel(values), minlength=n)
    assert len(counts) == n
    assert stats.chisquare(counts).pvalue > 1e-5


def test_draws_have_their_distributions(backend):
    c = draw_choices(backend, jitter=3, chroma_shift=2)
    assert_uniform(c["permutation"], 9)
    assert_uniform(c["occluded"].sum(axis=1), 3)
    assert_uniform(np.nonzero(c["occluded"])[1], 9)
    assert_uniform(c["cells"][c["occluded"] == 1], 9)
    rows = np.flatnonzero(c["donor"] >= 0)
    assert_uniform((c["donor"][rows] - rows) % 4000 * 10 // 4000, 10)
    # Jitter is uniform on 0..3. Jitter + shift on 0..2 has frequencies 1, 2, 3, 3, 2, 1 of 12.
    wanted = np.array([1, 2, 3, 3, 2, 1]) / 12
    for axis in range(2):
        counts = np.bincount(c["offsets"][..., 0, axis].ravel(), minlength=6)
        assert stats.chisquare(counts, wanted * counts.sum()).pvalue > 1e-5
    n = len(c["gray"])
    assert stats.binomtest(int(c["gray"].sum()), n, 0.7).pvalue > 1e-5
    colored = int((1 - c["gray"]).sum())
    assert stats.binomtest(int(c["projection"].sum()), colored, 0.5).pvalue > 1e-5


def test_channels_share_the_jitter_and_shift_alone(backend):
    c = draw_choices(backend, jitter=3, chroma_shift=2)
    spread = c["offsets"].max(axis=2) - c["offsets"].min(axis=2)
    assert spread.max() == 2
    pairs = c["offsets"][:, 0, :2, 0] - c["offsets"][:, 0, 2:, 0]
    assert (pairs[:, 0] != pairs[:, 1]).any()
    still = draw_choices(backend, jitter=3, chroma_shift=0)["offsets"]
    assert (still == still[:, :, :1]).all()


def test_neighbouring_seeds_epochs_and_samples_are_unrelated(backend):
    first = draw_choices(backend)["permutation"]
    for change in ({"seed": 8}, {"epoch": 2}, {"sample_ids": np.arange(4000) + 4000}):
        other = draw_choices(backend, **change)["permutation"]
        same = int((first == other).sum())
        assert stats.binomtest(same, 4000, 1 / 9).pvalue > 1e-5


def test_draws_do_not_depend_on_the_batch(backend):
    whole = draw_choices(backend, 100)
    part = draw_choices(backend, 10, sample_ids=np.arange(40, 50))
    for name in set(whole) - {"donor"}:
        assert np.array_equal(whole[name][40:50], part[name]), name


@pytest.mark.parametrize(
    ("change", "free"),
    [
        ({"max_occluders": 9}, {"occluded", "donor", "cells", "donor_gray", "donor_projection"}),
        ({"gray_probability": 0.0}, {"gray", "projection", "donor_gray", "donor_projection"}),
        ({"projection_probability": 1.0}, {"projection", "donor_projection"}),
        ({"donor_color": "independent"}, {"donor_gray", "donor_projection"}),
        ({"jitter": 0}, {"offsets"}),
    ],
)
def test_an_option_leaves_other_draws_alone(backend, change, free):
    base, changed = draw_choices(backend, 200), draw_choices(backend, 200, **change)
    for name in base:
        assert np.array_equal(base[name], changed[name]) == (name not in free), name


def test_donor_rules(backend):
    c = draw_choices(backend, 500, max_occluders=4)
    rows = np.arange(500)
    occluded = c["occluded"].sum(axis=1)
    assert ((c["donor"] >= 0) == (occluded > 0)).all()
    assert (c["donor"] != rows).all()
    assert c["donor"].max() < 500
    lent = occluded > 0
    assert (c["donor_gray"] == c["gray"] * lent).all()
    assert (c["donor_projection"] == c["projection"] * lent).all()
    for row in np.flatnonzero(lent):
        cells = c["cells"][row][c["occluded"][row] == 1]
        assert len(set(cells)) == len(cells)
    own = draw_choices(backend, 500, max_occluders=4, donor_color="independent")
    assert (own["donor_gray"] != own["gray"])[lent].any()


def test_a_batch_of_one_has_no_occluders(backend):
    for seed in range(20):
        c = draw_choices(backend, 1, seed=seed, max_occluders=9)
        assert c["occluded"].sum() == 0
        assert c["donor"].tolist() == [-1]


# --- arrays ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_permutations_may_be_any_integers(rng, dtype):
    images, permutations, options = make(rng)
    first, _ = jigsaw_tiles(images, permutations, **options, tile_size=16)
    second, _ = jigsaw_tiles(images, permutations.astype(dtype), **options, tile_size=16)
    third, _ = jigsaw_tiles(images, permutations.tolist(), **options, tile_size=16)
    assert np.array_equal(first, second)
    assert np.array_equal(first, third)


def test_strided_and_read_only_images(rng):
    images, permutations, options = make(rng, batch=8, height=160, width=150)
    views = [
        images[::2, ::2, ::2],
        images[::-1][:4],
        np.asfortranarray(images)[:4],
        images.transpose(0, 2, 1, 3)[4:],
    ]
    options["sample_ids"] = options["sample_ids"][:4]
    for view in views:
        plain = np.ascontiguousarray(view)
        plain.flags.writeable = False
        wanted, _ = jigsaw_tiles(plain, permutations, **options, tile_size=16)
        got, _ = jigsaw_tiles(view, permutations, **options, tile_size=16)
        assert np.array_equal(got, wanted)


def test_an_empty_batch(backend, rng):
    images, permutations, options = make(rng, batch=0)
    tiles, labels = jigsaw_tiles(backend.array(images), permutations, **options, tile_size=16)
    assert tuple(tiles.shape) == (0, 9, 3, 16, 16)
    assert tuple(labels.shape) == (0,)


@pytest.mark.parametrize("n_threads", [2, 3, 16])
def test_threads_do_not_matter(rng, n_threads):
    images, permutations, options = make(rng)
    alone, _ = jigsaw_tiles(images, permutations, **options, tile_size=16, n_threads=1)
    shared, _ = jigsaw_tiles(images, permutations, **options, tile_size=16, n_threads=n_threads)
    assert np.array_equal(alone, shared)


def test_calls_from_several_threads(rng):
    images, permutations, options = make(rng)
    wanted, _ = jigsaw_tiles(images, permutations, **options, tile_size=16)
    results = []

    def call():
        results.append(jigsaw_tiles(images, permutations, **options, tile_size=16, n_threads=1)[0])

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert all(np.array_equal(r, wanted) for r in results)


def test_large_outputs_written_past_the_caches(simd, rng):
    """Tiles of more than 8 MiB use streaming stores, with aligned and unaligned memory."""
    torch = pytest.importorskip("torch")
    images, permutations, options = make(rng, batch=24, height=255, width=255)
    small = {**options, "sample_ids": options["sample_ids"][:2], **PLAIN, "max_occluders": 0}
    options.update(PLAIN, max_occluders=0)
    wanted, _ = jigsaw_tiles(images[:2], permutations, **small)
    for large in (images, torch.from_numpy(images)):
        tiles, _ = jigsaw_tiles(large, permutations, **options)
        assert np.array_equal(np.asarray(tiles)[:2], wanted)


def test_torch_in_torch_out(rng):
    torch = pytest.importorskip("torch")
    images, permutations, options = make(rng)
    wanted, labels = jigsaw_tiles(images, permutations, **options, tile_size=16)
    options["sample_ids"] = torch.from_numpy(options["sample_ids"])
    got, got_labels = jigsaw_tiles(
        torch.from_numpy(images), torch.from_numpy(permutations), **options, tile_size=16,
        dtype=torch.float32,
    )  # fmt: skip
    assert torch.equal(got, torch.from_numpy(wanted))
    assert torch.equal(got_labels, torch.from_numpy(labels))


def test_an_index_outside_the_images_cannot_read_outside(rng):
    """On a CPU the op refuses the index; on a GPU the kernel gives label -1 and zeros."""
    torch = pytest.importorskip("torch")
    if not modules.has_cuda():
        pytest.skip("no CUDA device: on the CPU the op refuses such an index")
    images, permutations, options = make(rng)
    tiles, labels = jigsaw_tiles(
        torch.tensor(images, device="cuda"), permutations, **options, tile_size=16,
        indices=torch.tensor([0, -1, 5, 2**40, 1], device="cuda"), max_occluders=0,
    )  # fmt: skip
    assert (labels.cpu() == -1).tolist() == [False, True, True, True, False]
    assert (tiles[1:4] == 0).all()
    assert (tiles[0] != 0).any()


def test_work_is_queued_on_the_callers_stream(rng):
    torch = pytest.importorskip("torch")
    if not modules.has_cuda():
        pytest.skip("no CUDA device")
    images, permutations, options = make(rng, batch=64, height=255, width=255)
    wanted, _ = jigsaw_tiles(images, permutations, **options)
    stream = torch.cuda.Stream()
    source = torch.tensor(images).pin_memory()
    permutations = torch.tensor(permutations, device="cuda").to(torch.uint8)
    options["sample_ids"] = torch.tensor(options["sample_ids"], device="cuda")
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        device_images = torch.zeros_like(source, device="cuda")
        torch.cuda._sleep(50_000_000)  # delays the copy below, so that a wrong stream sees zeros
        device_images.copy_(source, non_blocking=True)
        tiles, _ = jigsaw_tiles(device_images, permutations, **options)
    stream.synchronize()
    assert np.array_equal(tiles.cpu().numpy(), wanted)


# --- errors ---------------------------------------------------------------------------------------
P9 = np.arange(9)[None]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"images": [[1]]}, TypeError, "images: expected an array of .*, got list"),
        ({"images": np.zeros((2, 24, 24, 3))}, TypeError, "images must be uint8, got float64"),
        ({"images": np.zeros((2, 3, 24, 24), np.uint8)}, ValueError, r"shape \[B, H, W, 3\], got"),
        ({"images": np.zeros((24, 24, 3), np.uint8)}, ValueError, r"got \[24, 24, 3\]"),
        ({"permutations": "abc"}, TypeError, "permutations: "),
        ({"permutations": P9 / 2}, TypeError, "permutations: expected int64, int32 or uint8"),
        ({"permutations": P9[0]}, ValueError, r"permutations must have shape \[P, n_tiles\]"),
        ({"permutations": P9[:, :8]}, ValueError, r"n_tiles 1, 4, 9 or 16 and .* \[1, 8\]"),
        ({"permutations": P9[:0]}, ValueError, "at least one row"),
        ({"permutations": np.zeros((1, 9), int)}, ValueError, r"permute 0\.\.8, but row 0 is"),
        ({"permutations": P9 - 1}, ValueError, r"but row 0 is \[-1, 0"),
        ({"permutations": P9 + 256}, ValueError, r"but row 0 is \[256"),
        ({"sample_ids": [1, 2, 3]}, ValueError, "must hold 2 numbers, one per image, got 3"),
        ({"sample_ids": [[1, 2]]}, ValueError, r"sample_ids must have shape \[B\], got \[1, 2\]"),
        ({"sample_ids": [0.5, 1]}, TypeError, "sample_ids: expected integers, got float64"),
        ({"sample_ids": 3}, TypeError, "sample_ids: "),
        ({"indices": [0]}, ValueError, "indices and sample_ids must be equally long, got 1 and 2"),
        ({"indices": [0, 2]}, ValueError, r"indices must lie in 0\.\.1, got 0\.\.2"),
        ({"indices": [-1, 0]}, ValueError, r"got -1\.\.0"),
        ({"indices": [True, False]}, TypeError, "indices: expected integers, got bool"),
        ({"seed": -1}, ValueError, r"seed must lie in 0\.\.2\^64-1, got -1"),
        ({"seed": 1.5}, TypeError, "integer"),
        ({"epoch": 2**32}, ValueError, r"epoch must lie in 0\.\.2\^32-1"),
        ({"tile_size": 0}, ValueError, r"tile_size must be 1\.\.512 pixels, got 0"),
        ({"tile_size": 7}, ValueError, "chroma_shift 2 exceeds the 8x8 cells of 24x24"),
        ({"jitter": 4}, ValueError, "tile_size 3 \\+ jitter 4 \\+ chroma_shift 2"),
        ({"jitter": -1}, ValueError, "jitter must not be negative"),
        ({"chroma_shift": -1}, ValueError, "chroma_shift must not be negative"),
        ({"max_occluders": -1}, ValueError, "max_occluders must not be negative"),
        ({"max_occluders": 10}, ValueError, "max_occluders must be at most the 9 tiles"),
        ({"gray_probability": 1.5}, ValueError, "gray_probability must lie between 0 and 1"),
        ({"gray_probability": float("nan")}, ValueError, "gray_probability must lie between"),
        ({"projection_probability": -0.1}, ValueError, "projection_probability must lie between"),
        ({"donor_color": "own"}, ValueError, "donor_color must be one of shared, independent"),
        ({"statistics": "image"}, ValueError, "statistics must be one of tile, channel, none"),
        ({"dtype": "float64"}, TypeError, "dtype must be .* or bfloat16, got float64"),
        ({"dtype": np.int8}, TypeError, "got int8"),
        ({"dtype": object()}, TypeError, "dtype must be"),
        ({"dtype": "bfloat16"}, TypeError, "NumPy and CuPy have no bfloat16; pass torch tensors"),
        ({"n_threads": 0}, ValueError, "n_threads must be at least 1"),
    ],
)  # fmt: skip
def test_errors_name_the_argument(change, error, message):
    arguments = {
        "images": np.zeros((2, 24, 24, 3), dtype=np.uint8),
        "permutations": P9,
        "sample_ids": [1, 2],
        "seed": 0,
        "epoch": 0,
        "tile_size": 3,
        **change,
    }
    with pytest.raises(error, match=message):
        jigsaw_tiles(**arguments)


def test_unknown_simd_levels_are_refused(monkeypatch):
    monkeypatch.setenv("KTFAST_SIMD", "sse9")
    allowed = "scalar, avx2, avx512, amx or neon"
    with pytest.raises(ValueError, match=f"KTFAST_SIMD must be {allowed}, got 'sse9'"):
        modules.simd_level()
