"""Random and centre crops: every choice from (seed, epoch, sample id); normalisation by hand."""

import numpy as np
import pytest
import torch

from ktfast.errors import InputError
from ktfast.images import augment
from ktfast.images.augment import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    center_crop,
    draw,
    normalize_images,
    random_crops,
)
from support.one_thread import one_thread_and_a_seed  # noqa: F401
from support.photographs import squares


def splitmix64(x: int) -> int:
    """The generator as published, on Python's integers."""
    mask = 2**64 - 1
    x = (x + 0x9E3779B97F4A7C15) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return x ^ (x >> 31)


def test_splitmix64_is_the_published_one():
    # First output of the reference implementation for state 1234567.
    assert splitmix64(1234567) == 6457827717110365317


def test_draws_are_splitmix64_of_seed_epoch_id_and_number():
    ids = torch.tensor([0, 1, 2**63 - 1, 123456789012345678, -5])
    for seed, epoch, number in [(0, 0, 0), (7, 3, 2), (2**64 - 1, 2**31 - 1, 1)]:
        key = splitmix64(splitmix64(splitmix64(number) ^ epoch) ^ seed)
        bits = [splitmix64((int(i) % 2**64) ^ key) for i in ids]
        for n in (1, 2, 29, 2**31 - 1):
            expected = [(value >> 32) * n >> 32 for value in bits]
            assert draw(ids, n, seed=seed, epoch=epoch, number=number).tolist() == expected


def test_draws_are_uniform_and_independent():
    ids = torch.arange(60_000)
    first = draw(ids, 6, seed=1, epoch=0, number=0)
    for other in (
        draw(ids, 6, seed=1, epoch=0, number=1),
        draw(ids, 6, seed=1, epoch=1, number=0),
        draw(ids, 6, seed=1, epoch=1, number=1),
        draw(ids, 6, seed=2, epoch=0, number=0),
        draw(ids + 1, 6, seed=1, epoch=0, number=0),
    ):
        table = np.bincount((first * 6 + other).numpy(), minlength=36)
        # Chi-square with 35 degrees of freedom: 99.99 % lie below 74.
        assert ((table - 60_000 / 36) ** 2 / (60_000 / 36)).sum() < 74


def test_draws_of_neighbouring_epochs_share_nothing():
    ids = torch.arange(1000)
    seen = {
        tuple(draw(ids, 2**31, seed=0, epoch=epoch, number=number).tolist())
        for epoch in range(8)
        for number in range(3)
    }
    assert len(seen) == 8 * 3


@pytest.mark.parametrize("mirror", [True, False])
def test_crops_are_cut_where_the_draws_say(mirror):
    images = torch.from_numpy(squares(24, 20))
    ids = torch.arange(24) * 31
    crops = random_crops(images, ids, crop=13, mirror=mirror, seed=5, epoch=2)
    assert crops.shape == (24, 13, 13, 3)
    flips = 0
    for k, image in enumerate(images):
        top, left, flip = (
            int(draw(ids[k : k + 1], n, seed=5, epoch=2, number=number))
            for number, n in enumerate((8, 8, 2))
        )
        expected = image[top : top + 13, left : left + 13]
        if mirror and flip:
            expected, flips = expected.flip(1), flips + 1
        assert torch.equal(crops[k], expected)
    assert 0 < flips < 24 or not mirror


def test_crops_do_not_depend_on_the_batch():
    images, ids = torch.from_numpy(squares(10, 20)), torch.arange(10) + 100
    options = {"crop": 15, "mirror": True, "seed": 0, "epoch": 4}
    together = random_crops(images, ids, **options)
    order = torch.randperm(10)
    assert torch.equal(random_crops(images[order], ids[order], **options), together[order])
    assert torch.equal(random_crops(images[3:4], ids[3:4], **options), together[3:4])
    assert not torch.equal(random_crops(images, ids, **{**options, "epoch": 5}), together)


@pytest.mark.parametrize("mirror", [True, False])
def test_a_gather_cuts_what_copies_cut(mirror):
    images, ids = torch.from_numpy(squares(24, 20)), torch.arange(24) * 7
    top, left = (draw(ids, 6, seed=0, epoch=0, number=number) for number in (0, 1))
    flipped = draw(ids, 2, seed=0, epoch=0, number=2).bool() & mirror
    copied = augment._copy_squares(images, top, left, flipped, 15)
    assert torch.equal(augment._gather_squares(images, top, left, flipped, 15), copied)


def test_crops_at_the_edges():
    images, ids = torch.from_numpy(squares(4, 20)), torch.arange(4)
    whole = random_crops(images, ids, crop=20, mirror=False, seed=0, epoch=0)
    assert torch.equal(whole, images)
    assert random_crops(images[:0], ids[:0], crop=5, mirror=True, seed=0, epoch=0).shape[0] == 0
    assert torch.equal(center_crop(images, 10), images[:, 5:15, 5:15])
    for crop in (0, 21):
        with pytest.raises(InputError, match=r"crop must lie in 1 \.\. 20 px"):
            random_crops(images, ids, crop=crop, mirror=True, seed=0, epoch=0)


def test_normalisation_by_hand():
    images = torch.from_numpy(squares(3, 16))
    pixels = images.double().permute(0, 3, 1, 2)
    mean, std = (torch.tensor(v).double()[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    ours = normalize_images(images, "imagenet")
    torch.testing.assert_close(ours.double(), (pixels - mean) / std, rtol=1e-5, atol=1e-5)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    ours = normalize_images(images, "image").double()
    mean, std = pixels.mean((1, 2, 3), True), pixels.std((1, 2, 3), correction=0, keepdim=True)
    torch.testing.assert_close(ours, (pixels - mean) / std, rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match="'imagenet', 'image' or 'range'"):
        normalize_images(images, "pixels")


def test_images_of_one_color_stay_finite():
    blank = torch.from_numpy(np.full((1, 32, 32, 3), 7, np.uint8))
    assert torch.equal(normalize_images(blank, "image"), torch.zeros(1, 3, 32, 32))
