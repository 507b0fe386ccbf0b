"""The image index lists every file once, with stable ids, and names files with problems."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from ktfast.errors import DataError
from ktfast.images.index import ImageIndex, SkippedImage, sample_ids_of


def touch(root: Path, *paths: str, content: bytes = b"x") -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)


def test_classes_are_the_first_folders(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.JPG", "b/deep/1.png", "a/1.jpeg", "top.jpg", "b/notes.txt", ".h/1.jpg")
    touch(tmp_path, "a/.hidden.jpg", "empty class/readme")
    index = ImageIndex.scan(tmp_path)
    assert index.paths == ("a/1.jpeg", "b/2.JPG", "b/deep/1.png", "top.jpg")
    assert index.classes == ("a", "b")
    np.testing.assert_array_equal(index.labels, [0, 1, 1, -1])
    assert index.labels.dtype == index.sample_ids.dtype == index.sizes.dtype == np.int64
    plain = ImageIndex.scan(tmp_path, labels="none")
    assert plain.classes == ()
    assert set(plain.labels) == {-1}


def test_sample_ids_are_stable_and_positive(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg")
    before = ImageIndex.scan(tmp_path)
    # The upper 63 bits of BLAKE2b-64, little endian. Artifacts hold sample ids, which never change.
    assert sample_ids_of(["a/1.jpg"])[0] == 0x599709B53F46D900
    touch(tmp_path, "a/0.jpg")
    after = ImageIndex.scan(tmp_path)
    np.testing.assert_array_equal(after.sample_ids[1:], before.sample_ids)
    assert before.fingerprint != after.fingerprint
    touch(tmp_path, "a/1.jpg", content=b"xy")
    assert ImageIndex.scan(tmp_path).fingerprint != after.fingerprint


def test_the_same_path_twice_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg")
    with pytest.raises(DataError, match=r"1\.jpg is listed twice"):
        ImageIndex.of(tmp_path, ["1.jpg", "1.jpg"])
    with pytest.raises(DataError, match=r"2\.jpg"):
        ImageIndex.of(tmp_path, ["1.jpg", "2.jpg"])
    with pytest.raises(DataError, match="2 labels were given for 1 images"):
        ImageIndex.of(tmp_path, ["1.jpg"], labels=[3, 1], classes="abcd")
    index = ImageIndex.of(tmp_path, ["1.jpg"], labels=[3], classes="abcd")
    assert (index.n, index.labels[0], index.classes) == (1, 3, ("a", "b", "c", "d"))


def test_missing_and_empty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere does not exist"):
        ImageIndex.scan(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"holds no image file; expected one of \.bmp"):
        ImageIndex.scan(tmp_path)
    touch(tmp_path, "void.jpg", content=b"")
    with pytest.raises(DataError, match=r"1 unusable files.*void\.jpg.*empty"):
        ImageIndex.scan(tmp_path)


def test_what_cannot_be_an_image_is_listed(tmp_path: Path) -> None:
    touch(tmp_path, "good.jpg")
    touch(tmp_path, "void.png", content=b"")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "broken.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "folder.jpg").mkdir()
    index = ImageIndex.scan(tmp_path)
    assert index.paths == ("good.jpg",)
    assert [(image.path, image.reason) for image in index.skipped] == [
        ("broken.jpg", "cannot be read (No such file or directory)"),
        ("pipe.jpg", "not a regular file"),
        ("void.png", "the file is empty"),
    ]


def test_loops_end_and_own_folders_come_before_links(tmp_path: Path) -> None:
    touch(tmp_path, "m/1.jpg", "m/n/2.jpg")
    (tmp_path / "m" / "up").symlink_to(tmp_path)
    (tmp_path / "m" / "self").symlink_to(tmp_path / "m")
    (tmp_path / "a link").symlink_to(tmp_path / "m")
    outside = tmp_path.parent / f"{tmp_path.name} outside"
    touch(outside, "3.jpg")
    (outside / "back").symlink_to(tmp_path)
    (tmp_path / "z").symlink_to(outside)
    (tmp_path / "same file.jpg").symlink_to(tmp_path / "m" / "1.jpg")
    index = ImageIndex.scan(tmp_path)
    assert index.paths == ("m/1.jpg", "m/n/2.jpg", "same file.jpg", "z/3.jpg")
    assert index.classes == ("m", "z")


def test_names_outside_unicode(tmp_path: Path) -> None:
    touch(tmp_path, "ñ 图/ü ß.jpg")
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.jpg"))).write_bytes(b"x")
    index = ImageIndex.scan(tmp_path)
    assert index.n == 2
    assert index.classes == ("ñ 图",)
    assert len(index.fingerprint) == 64


def test_rows_can_be_taken(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/2.jpg", "c/3.jpg")
    index = ImageIndex.scan(tmp_path)
    part = index.take(np.array([2, 0]), [SkippedImage("b/2.jpg", "bad")])
    assert part.paths == ("c/3.jpg", "a/1.jpg")
    np.testing.assert_array_equal(part.sample_ids, index.sample_ids[[2, 0]])
    np.testing.assert_array_equal(part.labels, [2, 0])
    assert part.skipped == (SkippedImage("b/2.jpg", "bad"),)


def test_ten_thousand_classes(tmp_path: Path) -> None:
    for i in range(10_000):
        os.mkdir(tmp_path / f"c{i}")
        os.close(os.open(tmp_path / f"c{i}" / "1.jpg", os.O_CREAT | os.O_WRONLY))
        os.truncate(tmp_path / f"c{i}" / "1.jpg", 1)
    start = time.process_time()
    index = ImageIndex.scan(tmp_path)
    assert (index.n, len(index.classes)) == (10_000, 10_000)
    assert time.process_time() - start < 3  # a million files may take 30 s
