"""JPEG files decoded at a fraction of their size: same geometry, same refusals, close pixels."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ktfast.errors import ConfigError, DataError
from ktfast.images.decode import decode, decode_rgb
from ktfast.images.index import ImageIndex
from ktfast.images.jpeg import is_safe_jpeg, reduction
from ktfast.images.opening import DecodeError
from ktfast.images.prepare import prepare
from ktfast.images.source import FolderSource, PreparedSet
from ktfast.voc.data import VocSet
from support.pictures import (
    bomb,
    encoded,
    odd_files,
    oriented,
    photo_folder,
    picture,
    spoiled_files,
)
from support.voc_folder import CLASSES, voc_folder

LARGE = {"height": 331, "width": 503}
"""A picture whose size is no multiple of 8, so that a reduced image ends within a pixel."""


def difference(one: Image.Image, other: Image.Image) -> np.ndarray:
    return np.abs(np.asarray(one).astype(int) - np.asarray(other))


@pytest.mark.parametrize(
    ("height", "width", "short_side", "divisor"),
    [
        (375, 500, 256, 1), (767, 1000, 256, 1), (768, 1000, 256, 2), (1000, 768, 256, 2),
        (3000, 4000, 256, 4), (3072, 4000, 256, 8), (9000, 9000, 16, 8), (4, 4, 1, 2),
    ],
)  # fmt: skip
def test_a_reduced_image_has_at_least_one_and_a_half_times_the_targets_size(
    height: int, width: int, short_side: int, divisor: int
) -> None:
    assert reduction(height, width, short_side) == divisor


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_image_lies_where_the_full_one_lies(orientation: int) -> None:
    """Without the exact box the largest difference is 20 levels."""
    data = oriented(picture(**LARGE), orientation)
    full, reduced = decode(data, "it", None), decode(data, "it", 26)
    assert reduced.shape == full.shape == (full.image.height, full.image.width)
    assert sorted(reduced.image.size) == [42, 63]
    assert difference(full.resized(26), reduced.resized(26)).max() <= 3
    squares = [one.square(short_side=26, size=20).astype(int) for one in (full, reduced)]
    assert np.abs(squares[0] - squares[1]).max() <= 3


def test_every_kind_of_jpeg_goes_the_same_way() -> None:
    image = picture(**LARGE)
    files = {
        "gray": encoded(image.convert("L")),
        "CMYK": encoded(image.convert("CMYK")),
        "progressive": encoded(image, progressive=True),
        "several pictures": encoded(image, "MPO"),
        "4:4:4": encoded(image, subsampling=0),
    }
    for name, data in files.items():
        full, reduced = decode(data, name, None), decode(data, name, 26)
        assert reduced.image.mode == "RGB", name
        assert reduced.image.size == (63, 42), name
        assert difference(full.resized(26), reduced.resized(26)).mean() < 1, name


def test_other_formats_are_decoded_fully() -> None:
    for name, data in odd_files().items():
        full, other = decode(data, name, None), decode(data, name, 4)
        if full.image.format == "JPEG" or name.startswith(("cmyk", "gray.jpg", "turned")):
            continue
        assert other.shape == (other.image.height, other.image.width), name
        np.testing.assert_array_equal(np.asarray(full.image), np.asarray(other.image), name)


def test_a_jpeg_with_gaps_in_its_header_is_decoded_fully() -> None:
    data = encoded(picture(**LARGE))
    tables = data.index(b"\xff\xc4")
    assert decode(data[:tables] + b"\xff\0" + data[tables:], "gap", 26).image.size == (503, 331)


def test_damaged_files_are_refused_with_the_same_reason() -> None:
    large = encoded(picture(**LARGE))
    files = {**spoiled_files(), "cut.jpg": large[: len(large) // 2], "limit.jpg": bomb(9000)}
    progressive = encoded(picture(**LARGE), progressive=True)
    for name, data in {**files, "cut progressive.jpg": progressive[:-900]}.items():
        reasons = []
        for short_side in (None, 8):
            with pytest.raises(DecodeError) as caught:
                decode(data, name, short_side)
            reasons.append(caught.value.reason)
        assert reasons[0] == reasons[1], name


def test_hard_inputs_are_decoded_or_refused_alike(data_folder: Path) -> None:
    """Large files are left out, because the fully decoded half of the test would take long."""
    seen = 0
    for path in sorted((data_folder / "hard_inputs/files").glob("*.jp*g")):
        data = path.read_bytes()
        if len(data) > 200_000 and "Landscape_6" not in path.name:
            continue
        outcomes = []
        for short_side in (None, 16):
            try:
                outcomes.append(decode(data, path.name, short_side).shape)
            except DecodeError as error:
                outcomes.append(error.reason)
        assert outcomes[0] == outcomes[1], path.name
        seen += 1
    assert seen > 30


def test_reducing_changes_pixels_less_than_storing_them(data_folder: Path) -> None:
    """At the smallest margin, on photographs; docs/how-to/own-images.md has the numbers."""
    reducing, storing = [], []
    for path in sorted((data_folder / "voc/coco128").rglob("*.jpg"))[::24]:
        data = path.read_bytes()
        full = decode(data, path.name, None)
        short_side = min(full.shape) // 3
        reduced = decode(data, path.name, short_side)
        assert reduced.is_reduced
        target = full.resized(short_side)
        stored = decode_rgb(encoded(target), path.name)
        reducing.append(difference(target, reduced.resized(short_side)).mean())
        storing.append(difference(target, stored).mean())
    assert np.mean(reducing) < 0.6 * np.mean(storing)


def test_prepare_reduces_unless_it_is_told_otherwise(tmp_path: Path) -> None:
    index = ImageIndex.scan(photo_folder(tmp_path / "images", 3, **LARGE))
    options = {"short_side": 26, "format": "raw"}
    full = prepare(index, tmp_path / "full", decoding="full", **options)
    reduced = prepare(index, tmp_path / "set", **options)
    source = FolderSource(index, decoding="full")
    for row in range(3):
        expected = Image.Image.resize(source.image(row), (40, 26), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(np.asarray(full.image(row)), np.asarray(expected))
        wrong = difference(full.image(row), reduced.image(row))
        assert 0 < wrong.max() <= 6
    # A set that was decoded fully has the same key as a set of an earlier version.
    assert "decoding" not in json.loads((tmp_path / "full/index.json").read_text())
    again = prepare(index, tmp_path / "set", decoding="full", **options)
    assert again.fingerprint == full.fingerprint
    with pytest.raises(ConfigError, match="reduced or full, got 'half'"):
        prepare(index, tmp_path / "set", short_side=26, decoding="half")  # type: ignore[arg-type]


def test_a_source_of_files_reduces_and_the_other_sources_do_not(tmp_path: Path) -> None:
    index = ImageIndex.scan(photo_folder(tmp_path / "images", 1, **LARGE))
    sources = FolderSource(index), FolderSource(index, decoding="full")
    assert [source.image_for(0, 26).is_reduced for source in sources] == [True, False]
    assert [source.image(0).size for source in sources] == [(503, 331)] * 2
    stored = PreparedSet.open(prepare(index, tmp_path / "set", short_side=331).folder)
    assert not stored.image_for(0, 26).is_reduced
    voc_folder(tmp_path / "voc", 4)
    assert VocSet(tmp_path / "voc", "val", classes=CLASSES).decoding == "full"


def test_the_limit_of_pixels_holds_for_dali_too() -> None:
    """Formerly, files of more than 64 megapixels went through Pillow at any limit."""
    data = bomb(9000)
    assert not is_safe_jpeg(data)
    assert is_safe_jpeg(data, 81_000_000)
    assert not is_safe_jpeg(data, 80_999_999)
    with pytest.raises(DataError, match="limit of 80,999,999"):
        decode(data, "it", 16, pixel_limit=80_999_999)
