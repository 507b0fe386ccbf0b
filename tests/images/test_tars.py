"""Images in tar files: the list with byte offsets, preparing, feeds, and the order of epochs."""

import io
import os
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ktfast.cli.main import main
from ktfast.config import Config
from ktfast.errors import ConfigError, DataError
from ktfast.images import tars
from ktfast.images.feeds.make import make_feed
from ktfast.images.index import ImageIndex
from ktfast.images.prepare import prepare
from ktfast.images.source import FolderSource, PreparedSet
from ktfast.images.tars import TarIndex, holds_tars, images_exist, scan_images
from ktfast.images.window import ShardWindow
from ktfast.pipeline.places import check_places
from support.pictures import encoded, picture
from support.tiny_recipe import TINY

N, PER_TAR = 12, 5


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


@pytest.fixture
def photos() -> list[bytes]:
    return [encoded(picture(24 + row, 30, seed=row), "JPEG") for row in range(N)]


@pytest.fixture
def shards(tmp_path: Path, photos: list[bytes]) -> Path:
    """Three tar files with 5, 5 and 2 images and their classes."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for number in range(3):
        members = {}
        for row in range(number * PER_TAR, min(N, (number + 1) * PER_TAR)):
            members[f"{row:06d}.jpg"] = photos[row]
            members[f"{row:06d}.cls"] = str(row % 3 * 9).encode()
            members[f"{row:06d}.json"] = b"{}"
        write_tar(folder / f"{number:04d}.tar", members)
    return folder


@pytest.fixture
def memory(shards: Path) -> str:
    fsspec = pytest.importorskip("fsspec")
    system = fsspec.filesystem("memory")
    for path in shards.iterdir():
        system.pipe(f"/tars/{path.name}", path.read_bytes())
    return "memory://tars/{0000..0002}.tar"


def test_images_of_tar_files_are_listed_with_their_places(
    shards: Path, memory: str, photos: list[bytes]
) -> None:
    local = str(shards)
    for place in (
        local,
        f"{local}/{{0000..0002}}.tar",
        f"{local}/*.tar",
        f"file://{local}",
        memory,
    ):
        index = scan_images(place)
        assert isinstance(index, TarIndex)
        assert index.paths[0] == "0000.tar/000000.jpg"
        assert index.paths[-1] == "0002.tar/000011.jpg"
        assert [index.read(row) for row in range(N)] == photos
        assert index.classes == ("0", "9", "18")
        assert index.labels.tolist() == [row % 3 for row in range(N)]
        assert index.others.n == N
        assert index.shard_sizes.tolist() == [5, 5, 2]
        assert index.name(7).endswith("0001.tar: 000007.jpg")
        part = index.take(np.array([11, 3]))
        assert [part.read(row) for row in range(2)] == [photos[11], photos[3]]
    assert scan_images(local, labels="none").classes == ()
    one = scan_images(f"{local}/0001.tar")
    assert one.paths[0] == "0001.tar/000005.jpg"


def test_classes_of_folders_in_a_tar_file(tmp_path: Path, photos: list[bytes]) -> None:
    write_tar(
        tmp_path / "a.tar", {"./dog/1.jpg": photos[0], "cat/2.jpg": photos[1], "3": photos[2]}
    )
    index = scan_images(tmp_path / "a.tar")
    assert index.classes == ("cat", "dog")
    assert index.labels.tolist() == [1, 0, -1]  # the name of the third image has no suffix


def test_every_file_of_a_tar_file_is_used_or_listed(tmp_path: Path, photos: list[bytes]) -> None:
    members = {
        **{"1.jpg": photos[0], "2.jpg": b"", "3.heic": b"x" * 40, "4.txt": b"text"},
        **{"5.jpg": b"\xff\xd8\xff broken", "x" * 150 + "/6.jpg": photos[1]},
    }
    write_tar(tmp_path / "a.tar", members)
    index = scan_images(tmp_path / "a.tar")
    assert [path.rpartition("/")[2] for path in index.paths] == ["1.jpg", "5.jpg", "6.jpg"]
    assert {image.path: image.reason for image in index.skipped} == {
        "a.tar/2.jpg": "the file is empty",
        "a.tar/3.heic": "a HEIC file, which ktfast does not read; convert it to JPEG or PNG",
    }
    images = prepare(index, tmp_path / "set", short_side=16)
    assert len(images.paths) == 2
    assert len(images.skipped) == 3


def test_a_damaged_tar_file_is_refused_and_never_cut_short(shards: Path) -> None:
    path = shards / "0001.tar"
    whole = path.read_bytes()
    index = scan_images(path)
    header = int(index.offsets[2]) - 512
    for damaged in (
        whole[:header] + b"\xff" * 512 + whole[header + 512 :],
        whole[: int(index.offsets[2]) + 100],
        whole[: header + 100],
        b"no tar file" * 100,
        b"",
    ):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"0001\.tar .*; "):
            scan_images(shards)
    path.write_bytes(whole[:-1024].rstrip(b"\0") + bytes(-len(whole[:-1024].rstrip(b"\0")) % 512))
    assert scan_images(shards).n == N  # a tar file without an end mark is whole
    os.truncate(path, 1000)
    with pytest.raises(DataError, match=r"0001\.tar became shorter"):
        index.read(1)


def test_lists_of_tar_files_are_kept(
    shards: Path, memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, listed = tmp_path / "tars.npz", []
    real = tars.members_of
    monkeypatch.setattr(tars, "members_of", lambda tar: listed.append(tar.name) or real(tar))

    def scan(place: str, number: int) -> None:
        """Scan with the store; this number of tar files must be read."""
        listed.clear()
        found, expected = scan_images(place, store=store), scan_images(place)
        assert len(listed) == number + 3
        assert found.paths == expected.paths
        assert found.classes == expected.classes
        assert found.others.to_json() == expected.others.to_json()
        for name in ("labels", "sizes", "offsets", "tar_of", "mtimes_ns", "sample_ids"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))

    for place in (str(shards), memory):
        for number in (3, 0):
            scan(place, number)
    scan(str(shards), 0)
    os.utime(shards / "0001.tar", (5, 5))
    scan(str(shards), 1)
    content = bytearray(store.read_bytes())
    content[len(content) // 2] ^= 1
    store.write_bytes(content)
    scan(str(shards), 3)


def test_what_counts_as_tar_files(shards: Path, tmp_path: Path) -> None:
    for place in ("a.tar", "s3://b/x", "s3:/b/x", shards, "x/*.tar", "x/{00..11}.tar"):
        assert holds_tars(place)
    assert images_exist(shards)
    assert images_exist(f"{shards}/*.tar")
    for place in ("none.tar", f"{shards}/none-*.tar", "nosuch://a"):
        assert not images_exist(place)
    (shards / "photo.jpg").touch()  # then the folder is one of images
    for place in (shards, tmp_path, tmp_path / "none"):
        assert not holds_tars(place)


def test_a_prepared_set_of_tar_files_is_that_of_the_images(
    shards: Path, memory: str, photos: list[bytes], tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for row, photo in enumerate(photos):
        (folder / f"{row:06d}.jpg").write_bytes(photo)
    options = {"short_side": 16, "shard_bytes": 3000}
    expected = prepare(ImageIndex.scan(folder), tmp_path / "a", **options)
    for number, place in enumerate((str(shards), memory)):
        out = tmp_path / f"set{number}"
        found = prepare(scan_images(place), out, **options)
        assert [found.read(row) for row in range(N)] == [expected.read(row) for row in range(N)]
        assert found.shard_sizes.tolist() == expected.shard_sizes.tolist()
        # After an interruption, whole shards are kept; touched tar files are the same images.
        kept = (out / "shard-00000.tar").stat().st_mtime_ns
        (out / "index.json").unlink()
        if number == 0:
            os.utime(shards / "0000.tar", (1, 1))
        prepare(scan_images(place), out, **options)
        assert (out / "shard-00000.tar").stat().st_mtime_ns == kept


def test_a_feed_over_tar_files_resumes_in_mid_epoch(shards: Path, memory: str) -> None:
    options = {"size": 16, "batch_size": 5, "window": 4, "seed": 3, "kind": "torch", "n_threads": 2}
    for place in (str(shards), memory):
        with make_feed(FolderSource(scan_images(place)), **options) as feed:
            whole = list(feed.epoch(2))
        with make_feed(FolderSource(scan_images(place)), **options) as feed:
            rest = list(feed.epoch(2, start=1))
            other = [batch.rows for batch in feed.epoch(3)]
        assert len(rest) == len(whole) - 1
        for one, another in zip(whole[1:], rest, strict=True):
            assert torch.equal(one.rows, another.rows)
            assert torch.equal(one.images, another.images)
        rows = torch.cat([batch.rows for batch in whole])
        assert sorted(rows.tolist()) == list(range(N))
        assert rows.tolist() != torch.cat(other).tolist()


def test_the_order_of_an_epoch_is_bounded_and_a_function_of_seed_and_epoch() -> None:
    sizes = np.array([70, 1, 0, 300, 129])
    for window in (1, 2, 50, 10_000):
        order = ShardWindow(sizes, window)
        rows = order.order(seed=1, epoch=4)
        np.testing.assert_array_equal(np.sort(rows), np.arange(500))
        np.testing.assert_array_equal(rows, ShardWindow(sizes, window).order(seed=1, epoch=4))
        straight = ShardWindow(sizes, 1).order(seed=1, epoch=4)
        place = np.argsort(straight)[rows]
        assert np.abs(place - np.arange(500)).max() < window
        if window > 1:
            assert (rows != order.order(seed=1, epoch=5)).any()
            assert (rows != order.order(seed=2, epoch=4)).any()
    shard_of = np.repeat(np.arange(5), sizes)[straight]
    assert np.count_nonzero(np.diff(shard_of)) == 3  # a shard is read as a whole
    # The order is part of what a checkpoint promises, and never changes.
    first = ShardWindow([4, 4, 4], 3).order(seed=7, epoch=0).tolist()
    assert first == FIRST
    with pytest.raises(ConfigError, match="window must be at least 1"):
        ShardWindow(sizes, 0)


FIRST = [5, 4, 6, 8, 7, 9, 10, 11, 0, 1, 3, 2]


def test_a_million_rows_are_ordered_in_a_second() -> None:
    begun = time.process_time()
    ShardWindow(np.full(1000, 1000), 5000).order(seed=0, epoch=0)
    assert time.process_time() - begun < 1


def test_the_command_prepare_reads_tar_files(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    place = f"{shards}/{{0000..0002}}.tar"
    (tmp_path / "tiny.toml").write_text(TINY)
    command = ["prepare", "--run", str(run), "--config", str(tmp_path / "tiny.toml")]
    command += ["--data.pretext", place]
    assert main(command) == 0
    images = PreparedSet.open(run / "prepare/pretext")
    assert images.n == N
    assert images.classes == ("0", "9", "18")
    written = (run / "prepare/pretext/index.json").stat().st_mtime_ns
    os.utime(shards / "0001.tar", (1, 1))  # a touched tar file changes nothing
    assert main(command) == 0
    assert (run / "prepare/pretext/index.json").stat().st_mtime_ns == written
    tar = bytearray((shards / "0001.tar").read_bytes())
    tar[int(scan_images(place).offsets[5]) + 30] ^= 1
    (shards / "0001.tar").write_bytes(tar)
    capsys.readouterr()
    assert main(command) != 0
    assert "0001.tar/000005.jpg has other content" in capsys.readouterr().err
    for path in shards.iterdir():
        path.unlink()
    with pytest.raises(DataError, match="names no file"):
        scan_images(f"{shards}/*.tar")


def test_a_run_folder_beside_tar_files_is_accepted(shards: Path, tmp_path: Path) -> None:
    config = Config.model_validate({"data": {"pretext": f"{shards}/*.tar"}})
    check_places(tmp_path / "run", config)


def test_a_pattern_of_images_is_no_damaged_tar_file(tmp_path: Path, photos: list[bytes]) -> None:
    (tmp_path / "a.jpg").write_bytes(photos[0])
    with pytest.raises(DataError, match=r"a\.jpg is an image; give the folder of the images"):
        scan_images(tmp_path / "*.jpg")
