"""Prepared sets hold or list every image, survive any interruption, and report damage."""

import errno
import io
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ktfast import durable
from ktfast.errors import ConfigError, DataError
from ktfast.images.decode import decode_rgb
from ktfast.images.index import ImageIndex
from ktfast.images.prepare import prepare, verified
from ktfast.images.resize import resize_short_side
from ktfast.images.source import FolderSource, PreparedSet
from support.pictures import encoded, odd_files, photo_folder, picture, spoiled_files


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def mixed_folder(root: Path, n: int = 180) -> tuple[list[str], list[str]]:
    """A folder of 180 images with 26 unusual ones, and 20 files that are bad in 10 ways.

    Returns the paths of the good and of the bad files.
    """
    photo_folder(root, n - 2 * len(odd_files()))
    bad = []
    for copy in range(2):
        for files, folder in ((odd_files(copy), "odd"), (spoiled_files(copy), "bad")):
            for name, data in files.items():
                path = root / f"{folder} {copy}" / name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(data)
                if folder == "bad":
                    bad.append(f"{folder} {copy}/{name}")
    everything = [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]
    return sorted(set(everything) - set(bad)), sorted(bad)


def test_every_image_is_stored_or_listed(tmp_path: Path) -> None:
    good, bad = mixed_folder(tmp_path / "images")
    assert (len(good), len(bad)) == (180, 20)
    index = ImageIndex.scan(tmp_path / "images")
    images = prepare(index, tmp_path / "set", short_side=24, shard_bytes=40_000)
    assert list(images.paths) == good
    assert [image.path for image in images.skipped] == bad
    assert all(image.reason for image in images.skipped)
    assert images.n == 180
    rows = [index.paths.index(path) for path in good]
    np.testing.assert_array_equal(images.sample_ids, index.sample_ids[rows])
    np.testing.assert_array_equal(images.labels, index.labels[rows])
    assert images.classes == index.classes
    assert verified(index).paths == images.paths
    assert [image.path for image in verified(index).skipped] == bad


def test_the_stored_image_is_the_resized_one(tmp_path: Path) -> None:
    photo_folder(tmp_path / "images", 6, height=50, width=75)
    source = FolderSource(ImageIndex.scan(tmp_path / "images"))
    images = prepare(source.index, tmp_path / "set", short_side=32)
    raw = prepare(source.index, tmp_path / "raw", short_side=32, format="raw")
    for row in range(6):
        expected = np.asarray(resize_short_side(source.image(row), 32)).astype(int)
        assert expected.shape == (32, 48, 3) == (images.heights[row], images.widths[row], 3)
        assert np.abs(np.asarray(images.image(row)) - expected).mean() < 5
        np.testing.assert_array_equal(np.asarray(raw.image(row)), expected)
        np.testing.assert_array_equal(raw.square(row, short_side=32, size=30), expected[1:31, 9:39])
        array = np.load(io.BytesIO(raw.read(row)), allow_pickle=False)
        np.testing.assert_array_equal(array, expected)


def test_a_jpeg_of_the_right_size_is_stored_as_it_is(tmp_path: Path) -> None:
    photo_folder(tmp_path / "images", 2)
    (tmp_path / "images" / "one.png").write_bytes(encoded(picture(), "PNG"))
    index = ImageIndex.scan(tmp_path / "images")
    images = prepare(index, tmp_path / "set", short_side=40)
    for row in range(2):
        assert images.read(row) == (index.root / index.paths[row]).read_bytes()
    assert decode_rgb(images.read(2), "png").format == "JPEG"


def test_shards_are_tar_files(tmp_path: Path) -> None:
    index = ImageIndex.scan(photo_folder(tmp_path / "images", 30))
    images = prepare(index, tmp_path / "set", short_side=20, shard_bytes=8000)
    row = 0
    for path in sorted((tmp_path / "set").glob("*.tar")):
        assert path.stat().st_size % tarfile.RECORDSIZE == 0
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                assert (member.name, file.read()) == (f"{row:09d}.jpg", images.read(row))
                row += 1
    assert row == 30
    assert len(list((tmp_path / "set").glob("*.tar"))) > 3


def test_bytes_depend_on_nothing_but_images_and_options(tmp_path: Path) -> None:
    mixed_folder(tmp_path / "images", 60)
    index = ImageIndex.scan(tmp_path / "images")
    options: dict[str, Any] = {"short_side": 24, "shard_bytes": 30_000}
    first = prepare(index, tmp_path / "1", n_threads=1, **options)
    for n_threads in (2, 8):
        prepare(index, tmp_path / str(n_threads), n_threads=n_threads, **options)
        assert content(tmp_path / str(n_threads)) == content(tmp_path / "1")
    again = prepare(index, tmp_path / "1", **options)
    assert again.fingerprint == first.fingerprint
    other = prepare(index, tmp_path / "1", short_side=16)
    assert other.fingerprint != first.fingerprint
    prepare(index, tmp_path / "fresh", short_side=16)
    assert content(tmp_path / "fresh") == content(tmp_path / "1")


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    index = ImageIndex.scan(photo_folder(tmp_path / "images", 9))
    seen: list[tuple[int, int]] = []
    prepare(index, tmp_path / "set", short_side=8, progress=lambda *state: seen.append(state))
    assert seen[-1] == (9, 9)
    assert seen == sorted(seen)
    seen.clear()
    verified(index, progress=lambda *state: seen.append(state))
    assert seen == [(i, 9) for i in range(1, 10)]


def test_a_vanished_file_is_listed(tmp_path: Path) -> None:
    index = ImageIndex.scan(photo_folder(tmp_path / "images", 4))
    (index.root / index.paths[2]).unlink()
    images = prepare(index, tmp_path / "set", short_side=8)
    assert images.n == 3
    assert images.skipped[0].path == index.paths[2]
    assert images.skipped[0].reason == "cannot be read: No such file or directory"


def test_a_set_may_be_empty(tmp_path: Path) -> None:
    (tmp_path / "junk.jpg").write_bytes(b"junk")
    images = prepare(ImageIndex.scan(tmp_path), tmp_path / "set", short_side=8)
    assert (images.n, len(images.skipped)) == (0, 1)


def test_impossible_options_are_refused(tmp_path: Path) -> None:
    index = ImageIndex.scan(photo_folder(tmp_path / "images", 1))
    for options in ({"short_side": 0}, {"short_side": 8, "quality": 0}):
        with pytest.raises(ConfigError, match="at least 1 and quality 1"):
            prepare(index, tmp_path / "set", **options)
    with pytest.raises(ConfigError, match="jpeg or raw, got 'png'"):
        prepare(index, tmp_path / "set", short_side=8, format="png")  # type: ignore[arg-type]


PREPARE = """
import sys
from ktfast.images.index import ImageIndex
from ktfast.images.prepare import prepare
index = ImageIndex.scan(sys.argv[1])
print("ready", flush=True)
prepare(index, sys.argv[2], short_side=30, shard_bytes=20_000, n_threads=2)
"""


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    root = photo_folder(tmp_path / "images", 150)
    index = ImageIndex.scan(root)
    begin = time.monotonic()
    options: dict[str, Any] = {"short_side": 30, "shard_bytes": 20_000, "n_threads": 2}
    prepare(index, tmp_path / "straight", **options)
    duration = time.monotonic() - begin
    moments = random.Random(0)
    kills = 0
    for _ in range(6):
        command = [sys.executable, "-c", PREPARE, str(root), str(tmp_path / "killed")]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(moments.uniform(0, duration / 2))
            process.send_signal(signal.SIGKILL)
        kills += process.returncode == -signal.SIGKILL
        if not (tmp_path / "killed" / "index.json").exists():
            with pytest.raises(DataError, match="run ktfast prepare"):
                PreparedSet.open(tmp_path / "killed")
    assert kills
    prepare(index, tmp_path / "killed", **options)
    assert content(tmp_path / "killed") == content(tmp_path / "straight")


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_full_disk_raises_and_a_later_run_finishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    index = ImageIndex.scan(photo_folder(tmp_path / "images", 20))
    options: dict[str, Any] = {"short_side": 24, "shard_bytes": 6000}
    prepare(index, tmp_path / "straight", **options)
    real = getattr(os, function)
    calls_left = 0

    def full(*arguments: Any) -> None:
        nonlocal calls_left
        calls_left -= 1
        if calls_left == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*arguments)

    monkeypatch.setattr(f"ktfast.durable.os.{function}", full)
    failures = 0
    while not (tmp_path / "full" / "index.json").exists():
        failures += 1
        calls_left = failures  # in each attempt a later call fails
        try:
            prepare(index, tmp_path / "full", **options)
        except OSError as error:
            problem = error
        else:
            break
        assert problem.errno == errno.ENOSPC
        assert not list((tmp_path / "full").glob(".*.tmp"))
    assert failures > 3
    assert content(tmp_path / "full") == content(tmp_path / "straight")


def test_damage_is_named_and_only_that_part_made_anew(tmp_path: Path) -> None:
    index = ImageIndex.scan(photo_folder(tmp_path / "images", 30))
    options: dict[str, Any] = {"short_side": 20, "shard_bytes": 8000}
    out = tmp_path / "set"
    prepare(index, out, **options)
    whole = content(out)
    kept = (out / "shard-00000.tar").stat().st_mtime_ns
    for name in ("shard-00001.tar", "shard-00001.npz", "index.json"):
        for spoil in ("flip", "cut", "remove"):
            data = bytearray(whole[name])
            data[len(data) // 3] ^= 1
            if spoil == "remove":
                (out / name).unlink()
            else:
                (out / name).write_bytes(data if spoil == "flip" else data[: len(data) // 2])
            with pytest.raises(DataError, match=name):
                PreparedSet.open(out, verify=True)
            prepare(index, out, **options)
            assert content(out) == whole
    assert (out / "shard-00000.tar").stat().st_mtime_ns == kept


def test_a_changed_table_is_never_taken_for_the_truth(tmp_path: Path) -> None:
    index = ImageIndex.scan(photo_folder(tmp_path / "images", 12))
    options: dict[str, Any] = {"short_side": 20, "shard_bytes": 8000}
    out = tmp_path / "set"
    prepare(index, out, **options)
    whole = content(out)
    table = whole["shard-00000.npz"]
    generator = random.Random(0)
    for number in range(60):
        changed = bytearray(table)
        changed[generator.randrange(len(table))] ^= 1 << generator.randrange(8)
        (out / "shard-00000.npz").write_bytes(changed)
        if number % 3 == 1:  # as an interrupted call leaves the folder
            (out / "index.json").unlink()
        if number % 3 == 2:  # as an earlier version leaves the folder
            (out / "shards.json").unlink()
        prepare(index, out, **options)
        assert content(out) == whole


def test_a_shard_cut_off_while_open_is_an_error(tmp_path: Path) -> None:
    index = ImageIndex.scan(photo_folder(tmp_path / "images", 5))
    images = prepare(index, tmp_path / "set", short_side=20)
    os.truncate(tmp_path / "set" / "shard-00000.tar", 1000)
    with pytest.raises(DataError, match=r"shard-00000\.tar has been cut off"):
        images.read(4)


def test_an_unknown_schema_is_refused(tmp_path: Path) -> None:
    durable.write_sealed(tmp_path / "index.json", {"schema": 99})
    with pytest.raises(DataError, match="not of schema 1 or 2"):
        PreparedSet.open(tmp_path)


def test_hard_inputs_are_stored_or_listed(tmp_path: Path, data_folder: Path) -> None:
    index = ImageIndex.scan(data_folder / "hard_inputs" / "files", labels="none")
    images = prepare(index, tmp_path, short_side=64)
    listed = [image.path for image in images.skipped]
    assert sorted([*images.paths, *listed]) == list(index.paths)
    assert images.n >= 180
    for row in range(images.n):
        image = images.image(row)
        assert isinstance(image, Image.Image)
        assert min(image.size) == 64
