"""The CUDA kernels of every op, run on the emulated device, against the plain NumPy reference."""

import math

import numpy as np
import pytest
import torch

from ktfast.ops import kmeans_assign, kmeans_update
from ktfast.reference import jigsaw_tiles as tiles_reference
from ktfast.reference import kmeans as reference
from support.tolerances import SUM_ORDER_FLOAT64

DTYPES = ["float32", "float64", "float16", "bfloat16", "uint8", "int8"]


def rows(rng, n, d, dtype):
    """Return rows as a kernel reads them (bfloat16 as bits), and the numbers they represent."""
    values = rng.normal(size=(n, d)) * 20 + 60
    if dtype == "bfloat16":
        rounded = torch.tensor(values).to(torch.bfloat16)
        return rounded.view(torch.uint16).numpy(), rounded.double().numpy()
    x = values.astype(dtype)
    return x, x.astype(np.float64)


# --- kmeans_assign --------------------------------------------------------------------------------
def check_assign(emulated, rng, n, d, k, dtype):
    x, values = rows(rng, n, d, dtype)
    centers = rng.normal(size=(k, d)) * 20 + 60
    labels, distances = emulated.kmeans_assign(x, centers, dtype)
    wanted, squares = reference.assign(values, centers)
    np.testing.assert_array_equal(labels, wanted)
    np.testing.assert_allclose(distances, squares, rtol=SUM_ORDER_FLOAT64)
    # The CPU adds in the order of the kernel, and the op rounds the sum.
    np.testing.assert_array_equal(distances.astype(np.float32), kmeans_assign(values, centers)[1])


@pytest.mark.parametrize(
    ("n", "d", "k"), [(1, 1, 1), (5, 0, 2), (13, 7, 3), (2, 1, 140), (129, 17, 33), (40, 70, 129)]
)
def test_assign_finds_the_nearest(emulated, rng, n, d, k):
    check_assign(emulated, rng, n, d, k, "float32")


@pytest.mark.parametrize("dtype", DTYPES)
def test_assign_reads_every_dtype(emulated, rng, dtype):
    check_assign(emulated, rng, 21, 19, 9, dtype)


def test_assign_settles_ties_and_near_ties_exactly(emulated, rng):
    x = rng.normal(size=(30, 24)).astype(np.float32)
    centers = np.repeat(x[:5].astype(np.float64), 4, axis=0)
    centers[1::4] += 1e-9  # closer than float32 can tell
    labels, _ = emulated.kmeans_assign(x, centers)
    np.testing.assert_array_equal(labels, reference.assign(x, centers)[0])


# --- kmeans_update --------------------------------------------------------------------------------
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_update_adds_in_the_order_of_the_rows(emulated, rng, dtype, weighted):
    n, d, k = 70, 5, 6
    x, values = rows(rng, n, d, dtype)
    labels = rng.integers(0, k, n).astype(np.int32)
    weight = rng.random(n) if weighted else None
    got = emulated.kmeans_update(x, labels, k, weight, dtype)
    for a, b in zip(got, reference.update(values, labels, k, weight), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("n", "d", "k"), [(1, 1, 1), (5, 0, 2), (300, 3, 70), (9000, 1, 3), (50, 131, 2)]
)
def test_update_of_odd_sizes(emulated, rng, n, d, k):
    x, values = rows(rng, n, d, "float32")
    labels = rng.integers(0, k, n).astype(np.int32)
    got = emulated.kmeans_update(x, labels, k)
    for a, b in zip(got, kmeans_update(values, labels, k), strict=True):
        np.testing.assert_array_equal(a, b)


def test_update_leaves_out_rows_of_no_cluster(emulated, rng):
    x, values = rows(rng, 40, 3, "float32")
    labels = rng.integers(-1, 5, 40).astype(np.int32)
    inside = (labels >= 0) & (labels < 4)
    got = emulated.kmeans_update(x, labels, 4)
    for a, b in zip(got, reference.update(values[inside], labels[inside], 4), strict=True):
        np.testing.assert_array_equal(a, b)


# --- jigsaw_tiles ---------------------------------------------------------------------------------
OPTIONS = {
    "tile_size": 11,
    "jitter": 2,
    "chroma_shift": 2,
    "max_occluders": 2,
    "gray_probability": 0.4,
    "projection_probability": 0.5,
    "donor_color": "shared",
    "statistics": "tile",
}
CHOICES = {  # of the reference, with shapes after [batch]
    "offsets": (np.int32, ("tiles", 3, 2)),
    "cells": (np.int32, ("tiles",)),
    "occluded": (np.uint8, ("tiles",)),
    "donor": (np.int64, ()),
    "gray": (np.uint8, ()),
    "projection": (np.uint8, ()),
    "donor_gray": (np.uint8, ()),
    "donor_projection": (np.uint8, ()),
}


def example(rng, batch=3, height=46, width=51, n_tiles=9):
    images = rng.integers(0, 256, (batch, height, width, 3), dtype=np.uint8)
    permutations = np.array([rng.permutation(n_tiles) for _ in range(7)]).astype(np.uint8)
    ids = rng.integers(-(2**63), 2**63, batch)
    return images, permutations, ids


def emulate_tiles(
    emulated, images, permutations, ids, options, dtype="float32", last=False, indices=None
):
    """Return the tiles that the kernel wrote, the labels, and the choices by name."""
    batch, n_tiles, t = len(ids), permutations.shape[1], options["tile_size"]
    sizes = np.array([batch, *images.shape[:3], len(permutations)], np.int64)
    numbers = [
        math.isqrt(n_tiles),
        *(options[name] for name in ("tile_size", "jitter", "chroma_shift", "max_occluders")),
        options["donor_color"] == "shared",
        last,
        ["tile", "channel", "none"].index(options["statistics"]),
        ["float32", "float16", "bfloat16"].index(dtype),
        3,  # epoch
    ]
    chances = [int(options[name + "_probability"] * 2**32) for name in ("gray", "projection")]
    kind = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}[dtype]
    tiles = np.full((batch, n_tiles, t, t, 3) if last else (batch, n_tiles, 3, t, t), 77, kind)
    labels = np.full(batch, -7, np.int64)
    choices = {
        name: np.full([batch, *(n_tiles if s == "tiles" else s for s in shape)], 77, of)
        for name, (of, shape) in CHOICES.items()
    }
    emulated.call(
        "emulated_jigsaw_tiles",
        sizes,
        np.array(numbers, np.int32),
        np.array([*chances, 2**63 + 5], np.uint64),
        images,
        indices,
        ids,
        permutations,
        tiles,
        labels,
        *choices.values(),
    )
    if last:
        tiles = tiles.transpose(0, 1, 4, 2, 3)
    return tiles, labels, choices


def check_tiles(emulated, batch, dtype="float32", last=False, indices=None, **more):
    options = {**OPTIONS, **more}
    images, permutations, ids = batch
    wanted, labels, choices = tiles_reference.jigsaw_tiles(
        images, permutations, sample_ids=ids, seed=2**63 + 5, epoch=3, indices=indices, **options
    )
    got = emulate_tiles(emulated, images, permutations, ids, options, dtype, last, indices)
    if dtype == "float16":
        wanted = wanted.astype(np.float16)
    elif dtype == "bfloat16":
        wanted = torch.tensor(wanted).to(torch.bfloat16).view(torch.uint16).numpy()
    np.testing.assert_array_equal(got[0], wanted)
    np.testing.assert_array_equal(got[1], labels)
    for name, values in got[2].items():
        np.testing.assert_array_equal(values, np.array([c[name] for c in choices]), err_msg=name)


@pytest.mark.parametrize("last", [False, True], ids=["planes", "channels_last"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_tiles_equal_the_reference(emulated, rng, dtype, last):
    check_tiles(emulated, example(rng), dtype, last)


@pytest.mark.parametrize("statistics", ["channel", "none"])
def test_tiles_of_other_statistics(emulated, rng, statistics):
    check_tiles(emulated, example(rng), statistics=statistics, donor_color="independent")


@pytest.mark.parametrize(
    ("height", "width", "n_tiles", "tile_size"),
    [(5, 6, 1, 1), (31, 67, 4, 13), (67, 40, 16, 8), (129, 131, 1, 127)],
    ids=["pixel", "wide", "sixteen", "read_twice"],
)
def test_tiles_of_odd_sizes(emulated, rng, height, width, n_tiles, tile_size):
    batch = example(rng, 2, height, width, n_tiles)
    occluders = min(2, n_tiles)
    check_tiles(
        emulated, batch, tile_size=tile_size, jitter=1, chroma_shift=1, max_occluders=occluders
    )


def test_an_index_outside_the_images_gives_zeros(emulated, rng):
    images, permutations, ids = example(rng)
    options = {**OPTIONS, "max_occluders": 0}
    indices = np.array([1, 3, -1])
    tiles, labels, _ = emulate_tiles(emulated, images, permutations, ids, options, indices=indices)
    assert labels[0] >= 0
    assert labels[1:].tolist() == [-1, -1]
    assert tiles[0].any()
    assert not tiles[1:].any()
