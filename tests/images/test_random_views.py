"""Random views: resized crops against Pillow, colours by hand, and choices from the sample id."""

import numpy as np
import pytest
import torch
from PIL import Image

from ktfast.images.augment import random_crops
from ktfast.images.random_views import RandomViews, _resampling
from support.one_thread import one_thread_and_a_seed  # noqa: F401
from support.photographs import squares

IDS = torch.tensor([5, 2**62 + 1, 77, 1234567])


@pytest.fixture(scope="module")
def images():
    return torch.from_numpy(squares(4, 48))


def test_without_options_the_views_are_the_random_crops(images):
    views = RandomViews(40, mirror=True, seed=3)(images, IDS, 2)
    expected = random_crops(images, IDS, crop=40, mirror=True, seed=3, epoch=2)
    assert torch.equal(views, expected)


@pytest.mark.parametrize("options", [{"area": (0.2, 1.0)}, {"color_jitter": 0.4}])
def test_a_view_depends_on_seed_epoch_and_sample_id_alone(images, options):
    views = RandomViews(32, mirror=True, seed=3, **options)
    whole = views(images, IDS, 2)
    assert whole.shape == (4, 32, 32, 3)
    assert whole.dtype == torch.uint8
    for row in (3, 0):
        assert torch.equal(views(images[row : row + 1], IDS[row : row + 1], 2)[0], whole[row])
    assert not torch.equal(views(images, IDS, 3), whole)
    assert not torch.equal(RandomViews(32, mirror=True, seed=4, **options)(images, IDS, 2), whole)


@pytest.mark.parametrize(("start", "length"), [(0.0, 48.0), (3.5, 20.25), (10.0, 40.0 - 2), (7, 9)])
def test_resizing_is_pillows(images, start, length):
    box = (start, 0.0, start + length, 48.0)
    picture = Image.fromarray(images[0].numpy()).resize((32, 32), Image.Resampling.BILINEAR, box)
    across = _resampling(torch.tensor([start]), torch.tensor([float(length)]), 48, 32)[0]
    down = _resampling(torch.tensor([0.0]), torch.tensor([48.0]), 48, 32)[0]
    ours = torch.einsum("yh,hwc,xw->yxc", down, images[0].float(), across)
    # Pillow rounds after each of its two passes.
    assert np.abs(ours.numpy() - np.asarray(picture, np.float32)).max() <= 1.5


def test_the_whole_image_is_resized_if_the_area_is_one(images):
    views = RandomViews(48, mirror=False, seed=0, area=(1.0, 1.0))(images, IDS, 0)
    # Only the aspect ratio is random: the shorter side of the rectangle covers at least 3/4 ** 0.5.
    assert (views.float() - images.float()).abs().mean() < 40
    flat = torch.full((2, 48, 48, 3), 77, dtype=torch.uint8)
    assert torch.equal(
        RandomViews(20, mirror=True, seed=0, area=(0.1, 1.0))(flat, IDS[:2], 0),
        torch.full((2, 20, 20, 3), 77, dtype=torch.uint8),
    )


def test_colours_by_hand():
    image = torch.tensor([[[[100, 100, 100], [200, 100, 0]]]], dtype=torch.uint8)
    views = RandomViews(1, mirror=False, seed=1, color_jitter=0.5)
    factors = [1 + 0.5 * (2 * float(views._fraction(IDS[:1], 0, number)[0]) - 1)
               for number in (5, 6, 7)]  # fmt: skip
    colors = np.clip(image[0, 0].numpy() * factors[0], 0, 255)
    gray = colors @ [0.299, 0.587, 0.114]
    colors = np.clip(gray.mean() + (colors - gray.mean()) * factors[1], 0, 255)
    gray = (colors @ [0.299, 0.587, 0.114])[:, None]
    expected = np.clip(np.round(gray + (colors - gray) * factors[2]), 0, 255)
    found = views._recolored(image, IDS[:1], 0)[0, 0].numpy()
    assert np.abs(found - expected).max() <= 1
