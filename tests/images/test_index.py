"""The image index lists every file once, with stable ids, and names files with problems."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from ktfast.errors import DataError
from ktfast.images import kinds
from ktfast.images.index import ImageIndex, SkippedImage
from ktfast.images.source import FolderSource
from ktfast.sample_ids import sample_ids_of
from support.pictures import encoded, picture


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
    with pytest.raises(DataError, match=r"holds no image file; expected one of \.avif"):
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


def test_every_file_is_used_or_listed(tmp_path: Path) -> None:
    image = picture()
    used = {
        "a.avif": encoded(image, "AVIF"),
        "b.MPO": encoded(image, "MPO", save_all=True, append_images=[picture(seed=1)]),
        "c no suffix": encoded(image),
        "d.download": encoded(image, "PNG"),
        "e.1": encoded(image, "WEBP"),
        "f.jpg_large": encoded(image),
        "g.2": encoded(image, "BMP"),
        "h.heic": encoded(image),  # a JPEG file under a wrong name
    }
    files = {
        **used,
        "i.heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64),
        "j.nef": encoded(image, "TIFF"),  # the small preview of a camera raw file
        "k.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "l.txt": encoded(image),
        "README": b"about these images",
        "Thumbs.db": b"x",
        ".hidden.jpg": encoded(image),
        ".git/objects/1.jpg": encoded(image),
        "empty": b"",
    }
    for name, content in files.items():
        touch(tmp_path, name, content=content)
    os.mkfifo(tmp_path / "pipe")
    index = ImageIndex.scan(tmp_path)
    assert index.paths == tuple(used)
    assert [(image.path, image.reason.partition(",")[0]) for image in index.skipped] == [
        ("i.heic", "a HEIC file"),
        ("j.nef", "a camera raw file"),
        ("k.svg", "an SVG file"),
    ]
    assert sorted(index.others.listed) == [
        (".git", "hidden folder"),
        (".hidden.jpg", "hidden file"),
        ("README", "not an image"),
        ("Thumbs.db", "not an image"),
        ("empty", "the file is empty"),
        ("l.txt", "not an image"),
        ("pipe", "not a regular file"),
    ]
    assert index.take(np.array([0])).others is index.others
    source = FolderSource(index)
    for row in range(source.n):
        assert source.image(row).size == image.size
    first = np.asarray(source.image(1)).astype(int)
    assert np.abs(first - np.asarray(image)).mean() < 5  # of two pictures, the first


def test_avif_needs_a_pillow_that_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "1.avif", "2.avif", content=encoded(picture(), "AVIF"))
    touch(tmp_path, "2.avif", "3.jpg", content=encoded(picture()))
    monkeypatch.setattr(kinds, "READS_AVIF", False)
    monkeypatch.setattr(kinds, "READ_FORMATS", kinds.READ_FORMATS - {"AVIF"})
    index = ImageIndex.scan(tmp_path)
    assert index.paths == ("2.avif", "3.jpg")
    assert "1.avif: an AVIF file, which needs Pillow 11.3" in ": ".join(
        [index.skipped[0].path, index.skipped[0].reason]
    )


def test_beyond_a_thousand_files_are_counted_by_suffix(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", *(f"{k:04}.xml" for k in range(1500)), *"abc")
    others = ImageIndex.scan(tmp_path).others
    assert len(others.listed) == kinds.LISTED == 1000
    assert others.by_suffix == {".xml": 1500, "no suffix": 3}
    assert others.describe() == "1,500 .xml, 3 no suffix"
    assert kinds.OtherFiles.from_json(others.to_json()) == others
