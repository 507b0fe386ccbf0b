"""The resize of the compiled module gives the pixels of Pillow."""

import numpy as np
import pytest
from PIL import Image

from ktfast.images.pixels import pixels_of
from ktfast.images.resize import DecodedImage
from ktfast.ops.image_resize import image_resize, image_resize_is_fast

can_be_fast = image_resize_is_fast() and hasattr(Image.Image, "__arrow_c_array__")
fast = pytest.mark.skipif(not can_be_fast, reason="needs AVX2 and Pillow 11.2")

SIZES = [(1, 1), (3, 2), (5, 4), (61, 37), (128, 100), (333, 250), (640, 17)]
TARGETS = [(1, 1), (2, 3), (16, 16), (37, 61), (225, 225), (17, 130)]


def noise(width, height, seed=0):
    """Random pixels, of which many are 0 or 255."""
    values = np.random.default_rng(seed).integers(-200, 456, (height, width, 3))
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


@fast
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("target", TARGETS)
def test_pixels_are_those_of_pillow(size, target):
    image = noise(*size)
    pixels, _ = pixels_of(image)
    w, h = size
    for box in ((0.0, 0.0, w, h), (w * 0.113, h * 0.31, w * 0.87, h * 0.999), (w / 3, 0, w, h / 7)):
        found = image_resize(pixels, box, target[1], target[0])
        expected = image.resize(target, Image.Resampling.BILINEAR, box=box)
        np.testing.assert_array_equal(found, np.asarray(expected))


def test_a_tall_image_is_resized_by_pillow_which_may_begin_with_the_columns():
    for width, height in ((61, 37), (61, 100), (30, 95), (30, 400)):
        image = noise(width, height)
        found = DecodedImage.of(image).resized(16)
        expected = image.resize(found.size, Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


@fast
def test_reductions_by_a_large_factor():
    image = noise(3000, 40)
    found = image_resize(pixels_of(image)[0], (0, 0, 3000, 40), 2, 3)
    expected = image.resize((3, 2), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(found, np.asarray(expected))


@fast
def test_a_decoded_image_takes_the_fast_way(monkeypatch):
    decoded = DecodedImage.of(noise(500, 375))
    found = decoded.square(short_side=256, size=225), np.asarray(decoded.resized(256))
    monkeypatch.setattr(Image.Image, "resize", None)
    again = decoded.square(short_side=256, size=225), np.asarray(decoded.resized(256))
    monkeypatch.undo()
    monkeypatch.setattr("ktfast.images.resize.image_resize_is_fast", lambda: False)
    slow = decoded.square(short_side=256, size=225), np.asarray(decoded.resized(256))
    for one, two, three in zip(found, again, slow, strict=True):
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one, three)


@fast
@pytest.mark.parametrize("box", [(0, 0, 0, 4), (-1, 0, 4, 4), (0, 0, 4.5, 4), (0, 3, 4, 2)])
def test_a_box_outside_the_image_is_refused(box):
    with pytest.raises(ValueError, match="the box must lie within the image"):
        image_resize(np.zeros((4, 4, 4), np.uint8), box, 2, 2)


def test_images_that_pillow_keeps_in_several_blocks_have_no_view():
    assert pixels_of(Image.new("RGB", (3000, 3000))) is None
    few = Image.new("RGB", (3, 2), (1, 2, 3))
    found = pixels_of(few)
    if hasattr(few, "__arrow_c_array__"):
        assert found is not None
        np.testing.assert_array_equal(found[0][..., :3], np.asarray(few))
