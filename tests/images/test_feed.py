"""All feeds deliver the same pictures, name the image in errors, and leave no threads behind."""

import gc
import os
import subprocess
import sys
import threading
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.pictures import encoded, odd_files, photo_folder, picture, spoiled_files

torch = pytest.importorskip("torch")
pytest.importorskip("PIL")

from ktfast.errors import ConfigError, DataError  # noqa: E402
from ktfast.images.feeds.make import make_feed  # noqa: E402
from ktfast.images.feeds.resident import ResidentFeed  # noqa: E402
from ktfast.images.index import ImageIndex  # noqa: E402
from ktfast.images.prepare import prepare, verified  # noqa: E402
from ktfast.images.source import FolderSource  # noqa: E402
from support.feeding import KINDS, feed_of, needs_dali, pixels_of, rows_of  # noqa: E402


@pytest.mark.parametrize("kind", KINDS)
def test_batches_hold_what_their_rows_say(photos: FolderSource, kind: str) -> None:
    with feed_of(photos, kind) as feed:
        assert (feed.kind, feed.n, feed.batch_size, feed.batches_per_epoch) == (kind, 23, 5, 5)
        assert kind in feed.describe()
        seen = []
        for batch in feed.epoch(0):
            assert batch.images.dtype == torch.uint8
            assert batch.images.is_contiguous()
            assert batch.rows.dtype == batch.sample_ids.dtype == torch.int64
            assert batch.images.shape == (len(batch.rows), 24, 24, 3)
            rows = batch.rows.numpy()
            np.testing.assert_array_equal(batch.sample_ids.numpy(), photos.sample_ids[rows])
            for row, image in zip(rows, batch.images.numpy(), strict=True):
                expected = photos.square(int(row), short_side=28, size=24)
                assert np.abs(image.astype(int) - expected).mean() < 0.5
            seen.extend(rows.tolist())
        assert sorted(seen) == list(range(23))
        assert seen != sorted(seen)


@pytest.mark.parametrize("kind", KINDS)
def test_leaving_an_epoch_early_does_not_spoil_the_next(photos: FolderSource, kind: str) -> None:
    with feed_of(photos, kind) as feed:
        expected = rows_of(feed.epoch(1))
        for taken in range(4):
            batches = feed.epoch(0)
            for _ in range(taken):
                next(batches)
            batches.close()
            assert rows_of(feed.epoch(1)) == expected


@pytest.mark.parametrize("kind", ["torch", pytest.param("dali", marks=needs_dali)])
@pytest.mark.parametrize("name", spoiled_files())
def test_a_bad_image_is_named(tmp_path: Path, kind: str, name: str) -> None:
    photo_folder(tmp_path, 8)
    (tmp_path / "clässe 1" / name).write_bytes(spoiled_files()[name] or b"\0")
    source = FolderSource(ImageIndex.scan(tmp_path))
    with feed_of(source, kind, batch_size=3) as feed:
        with pytest.raises(DataError, match=name):
            list(feed.epoch(0))
        (tmp_path / "clässe 1" / name).write_bytes(encoded(picture()))
        assert sorted(chain(*rows_of(feed.epoch(0)))) == list(range(9))


@needs_dali
def test_dali_names_the_image_it_fails_on(tmp_path: Path) -> None:
    photo_folder(tmp_path, 8)
    path = tmp_path / "clässe 1" / "tableless.jpg"
    tables = b"\xff\xdb"  # the marker of quantisation tables; below it becomes an ignored segment
    path.write_bytes(encoded(picture()).replace(tables, b"\xff\xef"))
    source = FolderSource(ImageIndex.scan(tmp_path))
    with feed_of(source, "dali", batch_size=3) as feed, pytest.raises(DataError, match="tableless"):
        list(feed.epoch(0))


@needs_dali
def test_what_dali_alone_cannot_read_comes_through_pillow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    photo_folder(tmp_path, 11)
    good = encoded(picture())
    tables = good.index(b"\xff\xc4")
    (tmp_path / "gap.jpg").write_bytes(good[:tables] + b"\xff\x00" + good[tables:])
    source = FolderSource(ImageIndex.scan(tmp_path))
    with feed_of(source, "torch", batch_size=3) as feed:
        expected = pixels_of(feed)
    with feed_of(source, "dali", batch_size=3) as feed:
        assert np.abs(pixels_of(feed).astype(int) - expected).max() <= 1
        assert not caplog.records  # the feed noticed the gap and Pillow decoded the file
        monkeypatch.setattr("ktfast.images.feeds.encoded_batches.is_safe_jpeg", lambda *_: True)
        for epoch in range(2):
            assert np.abs(pixels_of(feed, epoch).astype(int) - expected).max() <= 1
            rows = [row for batch in feed.epoch(epoch) for row in batch.rows.tolist()]
            assert sorted(rows) == list(range(12))
    assert "DALI cannot decode" in caplog.text
    assert "Invalid marker" in caplog.text or "nvImageCodec" in caplog.text


@pytest.mark.parametrize("kind", KINDS)
def test_a_vanished_file_is_named(photos: FolderSource, kind: str) -> None:
    Path(photos.name(7)).unlink()
    with pytest.raises(DataError, match=r"photo .*cannot be read: No such file"):
        list(feed_of(photos, kind).epoch(0))


@needs_dali
def test_dali_reads_odd_files_as_pillow_does(tmp_path: Path) -> None:
    for name, data in odd_files().items():
        (tmp_path / name).write_bytes(data)
    source = FolderSource(ImageIndex.scan(tmp_path))
    with feed_of(source, "torch") as one, feed_of(source, "dali") as other:
        difference = np.abs(pixels_of(one).astype(int) - pixels_of(other))
    assert difference.max() <= 1


@needs_dali
def test_dali_gives_the_bits_of_pillow_from_a_prepared_set(tmp_path: Path) -> None:
    index = ImageIndex.scan(photo_folder(tmp_path / "photos", 12, height=70, width=91))
    images = prepare(index, tmp_path / "set", short_side=28)
    for size in (28, 27, 20):
        with (
            feed_of(images, "torch", size=size) as one,
            feed_of(images, "dali", size=size) as other,
        ):
            np.testing.assert_array_equal(pixels_of(one), pixels_of(other))


@needs_dali
@pytest.mark.parametrize(("size", "short_side"), [(225, 256), (100, 110)])
def test_feeds_agree_on_photographs(data_folder: Path, size: int, short_side: int) -> None:
    index = ImageIndex.scan(data_folder / "voc/coco128/VOC2012/JPEGImages", labels="none")
    source = FolderSource(index.take(np.arange(0, index.n, 8)), decoding="full")
    options = {"size": size, "short_side": short_side, "batch_size": 10}
    with feed_of(source, "torch", **options) as one, feed_of(source, "dali", **options) as other:
        difference = np.abs(pixels_of(one).astype(int) - pixels_of(other))
    # Both decoders round 8-bit products of float weights, which is half a level each.
    assert difference.max() <= 1
    assert difference.mean() < 0.25


@needs_dali
def test_feeds_agree_on_hard_inputs(tmp_path: Path, data_folder: Path) -> None:
    index = verified(ImageIndex.scan(data_folder / "hard_inputs" / "files", labels="none"))
    options = {"size": 50, "short_side": 64, "batch_size": 32}
    source = FolderSource(index, decoding="full")
    with feed_of(source, "torch", **options) as one, feed_of(source, "dali", **options) as other:
        difference = np.abs(pixels_of(one).astype(int) - pixels_of(other))
    assert difference.mean(axis=(1, 2, 3)).max() < 1.0


def test_auto_prefers_reduced_decoding_to_dali_for_files_on_a_cpu(photos: FolderSource) -> None:
    with feed_of(photos, "auto", memory_budget=0) as feed:
        assert feed.kind == "torch"


@needs_dali
def test_auto_takes_dali_for_files_that_are_decoded_fully(photos: FolderSource) -> None:
    full = FolderSource(photos.index, decoding="full")
    with feed_of(full, "auto", memory_budget=0) as feed:
        assert feed.kind == "dali"


def test_ten_percent_bad_are_left_out_and_every_other_comes_once(tmp_path: Path) -> None:
    photo_folder(tmp_path / "photos", 90)
    for name, data in spoiled_files().items():
        (tmp_path / "photos" / "clässe 0" / name).write_bytes(data)
    index = verified(ImageIndex.scan(tmp_path / "photos"))
    prepared = prepare(ImageIndex.scan(tmp_path / "photos"), tmp_path / "set", short_side=28)
    for source in (FolderSource(index), prepared):
        assert (source.n, len(source.skipped)) == (90, 10)
        with feed_of(source, "torch", batch_size=16) as feed:
            assert sorted(chain(*rows_of(feed.epoch(5)))) == list(range(90))


@pytest.mark.parametrize("kind", KINDS)
def test_raw_sets_feed_alike(tmp_path: Path, kind: str) -> None:
    index = ImageIndex.scan(photo_folder(tmp_path / "photos", 5, height=70, width=91))
    images = prepare(index, tmp_path / "set", short_side=28, format="raw")
    with feed_of(images, kind) as feed:
        pixels = pixels_of(feed)
    for row in range(5):
        expected = FolderSource(index).square(row, short_side=28, size=24)
        assert np.abs(pixels[row].astype(int) - expected).max() <= 1


def test_resident_images_are_there_for_ops_with_indices(photos: FolderSource) -> None:
    seen: list[tuple[int, int]] = []
    feed = make_feed(
        photos, kind="resident", size=28, batch_size=4, progress=lambda *state: seen.append(state)
    )
    assert isinstance(feed, ResidentFeed)
    assert seen[-1] == (23, 23)
    assert feed.images.shape == (23, 28, 28, 3)
    np.testing.assert_array_equal(feed.images[3].numpy(), photos.square(3, short_side=28, size=28))
    for batch in feed.epoch(2):
        assert batch.pool.data_ptr() == feed.images.data_ptr()  # the pool is not copied
        assert batch.indices is not None
        assert torch.equal(batch.images, feed.images[batch.rows])  # `images` copies the batch
        assert torch.equal(batch.part(1, 3).images, batch.images[1:3])
        assert batch.to(torch.device("cpu")).pool.data_ptr() == feed.images.data_ptr()
        elsewhere = batch.to(torch.device("meta"))
        assert elsewhere.indices is None
        assert elsewhere.images.shape == batch.images.shape
    feed.close()
    assert feed.images.numel() == 0


def test_auto_keeps_images_where_they_fit(photos: FolderSource) -> None:
    needed = 23 * 24 * 24 * 3
    assert feed_of(photos, "auto").kind == "resident"
    assert feed_of(photos, "auto", memory_budget=needed).kind == "resident"
    assert feed_of(photos, "auto", memory_budget=needed - 1).kind in ("dali", "torch")
    with pytest.raises(ConfigError, match=r"39,744 bytes, more than memory_budget = 39,743"):
        feed_of(photos, "resident", memory_budget=needed - 1)


def test_short_side_comes_from_the_set(tmp_path: Path) -> None:
    index = ImageIndex.scan(photo_folder(tmp_path / "photos", 2))
    images = prepare(index, tmp_path / "set", short_side=32)
    assert make_feed(images, size=20, batch_size=1).plan.short_side == 32
    assert make_feed(FolderSource(index), size=20, batch_size=1).plan.short_side == 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"n_threads": 0}, "n_threads must be at least 1"),
        ({"short_side": 20}, "short_side must be at least size = 24"),
        ({"seed": -1}, r"seed must lie in 0 \.\. 2\^64 - 1, got -1"),
        ({"batch_size": 24, "drop_last": True}, "drop_last leaves no batch: 23 images"),
    ],
)
def test_impossible_options_are_refused(
    photos: FolderSource, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        feed_of(photos, "torch", **options)
    with pytest.raises(ConfigError, match="auto, dali, torch or resident, got 'tar'"):
        feed_of(photos, "tar")


BROKEN_DALI = """
import logging, sys
from ktfast.cli.doctor import _DALI, _package
from ktfast.errors import ConfigError
from ktfast.images.feeds.make import make_feed
from ktfast.images.index import ImageIndex
from ktfast.images.source import FolderSource

logging.basicConfig(stream=sys.stdout, format="%(message)s")
source = FolderSource(ImageIndex.scan(sys.argv[1]), decoding="full")
feed = make_feed(source, size=24, batch_size=4, memory_budget=0)
print(feed.kind, sum(len(batch) for batch in feed.epoch(0)))
feed.close()
try:
    make_feed(source, size=24, batch_size=4, kind="dali")
except ConfigError as error:
    print(error)
print(_package("nvidia-dali-cuda130", "nvidia.dali", _DALI, "train").detail)
"""


def lines_with(folder: Path, photos: FolderSource) -> list[str]:
    """The lines that BROKEN_DALI prints where the folder's packages come first."""
    folders = os.pathsep.join([str(folder), *(path for path in sys.path if path)])
    done = subprocess.run(
        [sys.executable, "-c", BROKEN_DALI, str(photos.index.root)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": folders},
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise OSError('libcuda.so.1: cannot open')", "OSError: libcuda.so.1: cannot open"),
        ("{}['driver']", "KeyError: 'driver'"),
        ("import missing_library", "ModuleNotFoundError: No module named 'missing_library'"),
    ],
)
def test_a_dali_that_cannot_be_loaded_is_told_and_replaced(
    tmp_path: Path, photos: FolderSource, code: str, reason: str
) -> None:
    (tmp_path / "broken/nvidia/dali").mkdir(parents=True)
    (tmp_path / "broken/nvidia/__init__.py").write_text("")
    (tmp_path / "broken/nvidia/dali/__init__.py").write_text(code)
    warning, feed, refusal, finding = lines_with(tmp_path / "broken", photos)
    assert f"DALI is installed but cannot be loaded ({reason}); Pillow decodes" in warning
    assert feed == "torch 23"
    assert f"cannot be loaded here ({reason}): reinstall nvidia-dali" in refusal
    assert f"({reason})" in finding


def test_without_dali_pillow_decodes_and_the_doctor_says_what_dali_brings(
    tmp_path: Path, photos: FolderSource
) -> None:
    """As after an installation of ktfast[train-cpu]."""
    (tmp_path / "nvidia").mkdir()
    (tmp_path / "nvidia/__init__.py").write_text("")
    feed, refusal, finding = lines_with(tmp_path, photos)
    assert feed == "torch 23"
    assert "is not installed here: install nvidia-dali" in refusal
    assert "1.4 times as fast as Pillow" in finding
    assert 'pip install "ktfast[train]"' in finding


@pytest.mark.parametrize("kind", ["torch", pytest.param("dali", marks=needs_dali)])
def test_a_closed_feed_says_so_and_leaves_no_thread(photos: FolderSource, kind: str) -> None:
    before = threading.active_count()
    feed = feed_of(photos, kind)
    batches = feed.epoch(0)
    next(batches)
    batches.close()
    feed.close()
    feed.close()
    assert threading.active_count() == before
    with pytest.raises(ConfigError, match="closed"):
        next(feed.epoch(0))


@needs_dali
def test_dali_refuses_two_epochs_at_a_time(photos: FolderSource) -> None:
    with feed_of(photos, "dali") as feed:
        first = feed.epoch(0)
        next(first)
        with pytest.raises(ConfigError, match="one epoch at a time"):
            next(feed.epoch(1))
        assert len(list(first)) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_memory_does_not_grow(tmp_path: Path, kind: str) -> None:
    source = FolderSource(ImageIndex.scan(photo_folder(tmp_path, 40)))
    with feed_of(source, kind, batch_size=8) as feed:
        for epoch in range(20):
            rows_of(feed.epoch(epoch))
        gc.collect()
        before = resident_bytes()
        for epoch in range(50):
            rows_of(feed.epoch(epoch))
        gc.collect()
        assert resident_bytes() - before < 20e6


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def test_listing_and_features_load_no_torch() -> None:
    code = (
        "import sys, ktfast.images, ktfast.features.store, ktfast.images.prepare;"
        "assert 'torch' not in sys.modules and 'nvidia.dali' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
