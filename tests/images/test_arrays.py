"""Folders of arrays: reading, preparing and feeding `.npy` files, and what refuses them."""

import io

import numpy as np
import pytest
import torch

from ktfast.config import load_config
from ktfast.errors import ConfigError, DataError
from ktfast.images.arrays import ArrayFormat, array_square, resized_array
from ktfast.images.augment import normalize_images
from ktfast.images.feeds.make import make_feed
from ktfast.images.index import ImageIndex
from ktfast.images.opening import DecodeError
from ktfast.images.prepare import prepare
from ktfast.images.random_views import RandomViews
from ktfast.models import build_trunk
from ktfast.pipeline.steps.networks import target_network

CHANNELS, SIDE = 2, 24


def content(array, **options):
    """The bytes of a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def test_values_are_mapped_by_the_range_and_cut_outside():
    values = np.array([[-80.0, -60.0], [-20.0, 40.0], [45.0, 39.9]], np.float32)
    read = ArrayFormat(1, -60.0, 40.0).read(content(values), "a.npy")
    assert read.dtype == np.uint8
    assert read[:, :, 0].tolist() == [[0, 0], [102, 255], [255, 255]]


def test_bytes_stay_the_same_bytes():
    values = np.random.default_rng(0).integers(0, 256, (5, 7, 4), np.uint8)
    assert np.array_equal(ArrayFormat(4).read(content(values), "a.npy"), values)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((4, 4, 3), np.float32), "3 channels; expected 2"),
        (np.zeros((4, 4), np.float32), "1 channels; expected 2"),
        (np.zeros((2, 4, 4, 2), np.float32), "expected integers or floats of shape"),
        (np.zeros((4, 4, 2), np.complex64), "complex64"),
        (np.full((4, 4, 2), np.nan), "not finite"),
        (np.zeros((0, 4, 2), np.uint8), "0 pixels"),
        (np.array([[{}]], object), "Python objects"),
    ],
)
def test_an_array_that_does_not_fit_is_refused_with_the_reason(array, words):
    with pytest.raises(DecodeError, match=words):
        ArrayFormat(2).read(content(array), "a.npy")


@pytest.mark.parametrize("data", [b"", b"hello", content(np.zeros((9, 9, 2)))[:-5]])
def test_a_damaged_file_is_refused(data):
    with pytest.raises(DecodeError, match=r"a\.npy cannot be decoded: no readable \.npy file"):
        ArrayFormat(2).read(data, "a.npy")


def test_a_header_of_a_huge_shape_takes_no_memory():
    data = content(np.zeros((9, 9, 2), np.uint8))
    huge = data.replace(b"(9, 9, 2), }          ", b"(999999, 999999, 2), }")
    assert len(huge) == len(data)
    assert huge != data
    with pytest.raises(DecodeError, match="bytes of values"):
        ArrayFormat(2).read(huge, "a.npy")


def test_every_channel_is_resized_alone():
    flat = np.zeros((40, 60, 3), np.uint8) + np.array([10, 100, 200], np.uint8)
    small = resized_array(flat, 20)
    assert small.shape == (20, 30, 3)
    assert np.array_equal(small, flat[:20, :30])
    assert array_square(flat, short_side=20, size=16).shape == (16, 16, 3)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Eight arrays of two channels, and three files that are left out."""
    root = tmp_path_factory.mktemp("arrays")
    rng = np.random.default_rng(0)
    arrays = {}
    for number in range(8):
        path = root / ("ab"[number % 2]) / f"{number}.npy"
        path.parent.mkdir(exist_ok=True)
        arrays[f"{path.parent.name}/{path.name}"] = rng.integers(
            0, 256, (SIDE, SIDE + number, CHANNELS), np.uint8
        )
        np.save(path, arrays[f"{path.parent.name}/{path.name}"])
    (root / "a" / "damaged.npy").write_bytes(b"no array")
    (root / "a" / "note.txt").write_text("a text")
    np.save(root / "b" / "mono.npy", np.zeros((SIDE, SIDE)))
    index = ImageIndex.scan(root, arrays=True)
    out = root.parent / f"{root.name}-set"
    return prepare(index, out, short_side=SIDE, arrays=ArrayFormat(CHANNELS)), arrays


def test_a_prepared_set_holds_the_arrays_and_lists_the_rest(prepared):
    images, arrays = prepared
    assert (images.is_array, images.channels, images.classes) == (True, CHANNELS, ("a", "b"))
    assert sorted(images.paths) == sorted(arrays)
    assert [skip.path for skip in images.skipped] == ["a/damaged.npy", "b/mono.npy"]
    assert images.others.describe() == "1 .txt"
    for row, path in enumerate(images.paths):
        left = (arrays[path].shape[1] - SIDE) // 2
        square = images.square(row, short_side=SIDE, size=SIDE)
        assert np.array_equal(square, arrays[path][:, left : left + SIDE])
    assert images.square(0, short_side=12, size=8).shape == (8, 8, CHANNELS)
    assert images.image(0).mode == "RGB"


@pytest.mark.parametrize("kind", ["auto", "torch", "resident"])
def test_feeds_deliver_all_channels(prepared, kind):
    images, _ = prepared
    with make_feed(images, kind=kind, size=16, batch_size=3, n_threads=1) as feed:
        batches = list(feed.epoch(0))
    assert [tuple(batch.images.shape) for batch in batches] == [
        (3, 16, 16, CHANNELS), (3, 16, 16, CHANNELS), (2, 16, 16, CHANNELS),
    ]  # fmt: skip


def test_dali_refuses_arrays(prepared):
    with pytest.raises(ConfigError, match="the items are arrays"):
        make_feed(prepared[0], kind="dali", size=16, batch_size=3)


def test_a_folder_of_arrays_names_the_option_if_photographs_are_expected(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 4)))
    with pytest.raises(DataError, match=r"set transfer\.channels"):
        ImageIndex.scan(tmp_path)
    (tmp_path / "a.npy").rename(tmp_path / "a.txt")
    with pytest.raises(DataError, match=r"holds no array.*expected \.npy files"):
        ImageIndex.scan(tmp_path, arrays=True)


def test_views_and_normalisation_keep_the_channels():
    images = torch.randint(0, 256, (3, 20, 20, 5), dtype=torch.uint8)
    ids = torch.arange(3)
    for area in (None, (0.3, 0.9)):
        assert RandomViews(16, False, 0, area)(images, ids, 0).shape == (3, 16, 16, 5)
    normal = normalize_images(images, "range")
    assert normal.shape == (3, 5, 20, 20)
    assert torch.allclose(normal, images.permute(0, 3, 1, 2).float() / 127.5 - 1)
    assert normalize_images(images, "image").shape == (3, 5, 20, 20)


ARRAYS = {
    "transfer.channels": 5, "cluster.features": "teacher.npz", "data.short_side": 64,
    "transfer.image_size": 64, "transfer.crop": 56, "evaluate.baselines": "random,labels",
}  # fmt: skip


@pytest.mark.parametrize("target", ["alexnet", "vgg16"])
def test_the_first_layer_takes_all_channels(target):
    config = load_config(None, ARRAYS | {"transfer.target": target, "transfer.width": 0.125})
    network = target_network(config.transfer, 4)
    assert network(torch.zeros(2, 5, 56, 56)).shape == (2, 4)
    assert network.origin["options"]["channels"] == 5
    assert "channels" not in build_trunk(target, width=0.125).origin["options"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cluster.features": None}, "the teacher pretext sees photographs"),
        ({"cluster.features": None, "features.source": "hog"}, "the teacher hog sees photographs"),
        ({"transfer.target": "torchvision:resnet18"}, "takes images of 3 channels"),
        ({"transfer.color_jitter": 0.4}, "changes colours"),
        ({"data.feed": "dali"}, "NVIDIA DALI decodes photographs"),
        ({"evaluate.baselines": "random,pretext"}, "the baseline pretext learns from photographs"),
        ({"evaluate.protocols": "goyal"}, "mirrors photographs"),
        ({"voc.classification.folder": "VOC2007"}, "PASCAL VOC consists of photographs"),
        ({"transfer.array_range": "40,-60"}, "the smaller first"),
        ({"transfer.channels": None, "transfer.array_range": "-60,40"}, "does not use it"),
    ],
)
def test_options_that_need_photographs_are_refused(options, words):
    load_config(None, ARRAYS)
    with pytest.raises(ConfigError, match=words):
        load_config(None, ARRAYS | options)


def test_arrays_are_never_mirrored_and_have_their_own_normalisation():
    arrays, photographs = load_config(None, ARRAYS).transfer, load_config(None).transfer
    assert (arrays.mirror, arrays.normalization) == (False, "range")
    assert (photographs.mirror, photographs.normalization) == (True, "imagenet")
