"""Rows of features meet images by path: every kind of file, every fault of a list of paths."""

import csv
import logging
import os

import numpy as np
import pytest

from ktfast import readers
from ktfast.errors import DataError
from ktfast.features.matching import align, match_rows
from ktfast.features.store import FeatureStore
from ktfast.features.writer import FeatureWriter
from ktfast.images.index import ImageIndex
from ktfast.images.source import FolderSource

# In the order of whole paths " " and "-" come before "/", so "cat big" comes before "cat".
AMBIGUOUS = ("cat/1.jpg", "cat/2.jpg", "cat big/1.jpg", "cat-x/1.jpg")
PLAIN = ("cat/1.jpg", "cat/2.jpg", "dog/1.jpg")
BAD_NAME = os.fsdecode(b'cat/caf\xe9, "2".jpg')


def folder_of(root, paths):
    """A folder of files that an index lists, and its images."""
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"content")
    return FolderSource(ImageIndex.scan(root))


def features_of(paths, dtype=np.float32):
    """One row per path that follows from the path."""
    return np.array([[len(path), sum(os.fsencode(path))] for path in paths], dtype)


def write_npz(place, paths, dtype=np.float32):
    np.savez(place / "x.npz", features=features_of(paths, dtype), paths=np.array(paths))
    return place / "x.npz"


def write_txt(place, paths, dtype=np.float32):
    np.save(place / "x.npy", features_of(paths, dtype))
    text = "".join(f"{path}\r\n" for path in paths)
    (place / "x.txt").write_bytes(b"\xef\xbb\xbf" + text.encode("utf-8", "surrogateescape"))
    return place / "x.npy"


def write_csv(place, paths, dtype=np.float32):
    np.save(place / "x.npy", features_of(paths, dtype))
    name = place / "x.csv"
    with open(name, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        csv.writer(file).writerows([("label", "Path"), *((0, path) for path in paths)])
    return place / "x.npy"


def write_one_column(place, paths, dtype=np.float32):
    np.save(place / "x.npy", features_of(paths, dtype))
    name = place / "x.csv"
    with open(name, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        csv.writer(file).writerows([path] for path in paths)
    return place / "x.npy"


def write_parquet(place, paths, dtype=np.float32):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = features_of(paths, dtype)
    lists = arrow.FixedSizeListArray.from_arrays(arrow.array(rows.ravel()), rows.shape[1])
    names = arrow.array([os.fsencode(path) for path in paths], arrow.binary())
    parquet.write_table(arrow.table({"n": range(len(paths)), "path": names, "embedding": lists}),
                        place / "x.parquet")  # fmt: skip
    return place / "x.parquet"


WRITERS = [write_npz, write_txt, write_csv, write_one_column, write_parquet]


@pytest.mark.parametrize("write", WRITERS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_rows_in_any_order_meet_their_images(write, dtype, tmp_path, rng):
    paths = [*AMBIGUOUS, BAD_NAME]
    images = folder_of(tmp_path / "images", paths)
    shuffled = [paths[row] for row in rng.permutation(len(paths))]
    store = match_rows(
        FeatureStore.open(write(tmp_path, shuffled, dtype)), images, images.index.root
    )
    assert (store.n, store.dim, store.dtype) == (5, 2, dtype)
    expected = features_of(images.paths, dtype)
    np.testing.assert_array_equal(store.read(slice(None)), expected)
    np.testing.assert_array_equal(store.read([3, 0]), expected[[3, 0]])
    np.testing.assert_array_equal(align(expected[:, 0], store, images), expected[:, 0])


def test_paths_may_be_absolute_or_start_in_the_working_directory(tmp_path, monkeypatch):
    images = folder_of(tmp_path / "real", PLAIN)
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    for prefix in ("", "./", f"{tmp_path}/real/", f"{tmp_path}/link//", "real/", "./link/"):
        path = write_npz(tmp_path, [prefix + path for path in reversed(PLAIN)])
        store = FeatureStore.open(path)
        found = match_rows(store, images, tmp_path / "link")
        np.testing.assert_array_equal(found.read(slice(None)), store.read([2, 1, 0]))


def test_missing_and_repeated_paths_are_named(tmp_path):
    images = folder_of(tmp_path / "images", PLAIN)
    for paths, words in (
        (["cat/1.jpg", "else/1.jpg"], ["lacks 2 of the 3 images", "cat/2.jpg", "else/1.jpg"]),
        ([*PLAIN, "./cat/2.jpg"], ["names 1 paths more than once: cat/2.jpg"]),
    ):
        store = FeatureStore.open(write_npz(tmp_path, paths))
        with pytest.raises(DataError) as caught:
            match_rows(store, images, images.index.root)
        assert all(word in str(caught.value) for word in [*words, "x.npz"])


def test_rows_of_other_images_are_ignored_and_counted(tmp_path, caplog):
    caplog.set_level(logging.INFO, "ktfast")
    images = folder_of(tmp_path / "images", PLAIN)
    store = FeatureStore.open(write_npz(tmp_path, ["a/0.jpg", *PLAIN, "a/0.jpg"]))
    found = match_rows(store, images, images.index.root)
    np.testing.assert_array_equal(found.read(slice(None)), features_of(PLAIN))
    assert "2 of 5 rows belong to no image" in caplog.text
    assert "a/0.jpg" in caplog.text


@pytest.mark.parametrize(
    ("paths", "first", "other"),
    [
        (AMBIGUOUS, "cat big/1.jpg", "cat/1.jpg"),
        # Files of a class before its folders, as os.walk gives them.
        (("a/b!/1.jpg", "a/z.jpg"), "a/b!/1.jpg", "a/z.jpg"),
        # pathlib sorts by the parts of the path.
        (("a/b.jpg", "a/b/c.jpg"), "a/b.jpg", "a/b/c.jpg"),
    ],
)
def test_a_bare_array_of_an_ambiguous_order_is_refused(paths, first, other, tmp_path):
    images = folder_of(tmp_path / "images", paths)
    np.save(tmp_path / "x.npy", features_of(images.paths))
    store = FeatureStore.open(tmp_path / "x.npy")
    with pytest.raises(DataError) as caught:
        match_rows(store, images, images.index.root)
    for word in ("x.npy", f"row 0 is {first} in", f"{other} in the order of", ".npz", ".csv"):
        assert word in str(caught.value)


def test_the_order_is_that_of_torchvision(tmp_path):
    torchvision = pytest.importorskip("torchvision")
    paths = [*AMBIGUOUS, "cat/b/3.jpg", "cat/b c/3.jpg", "cat/b.jpg", "cat/b/c/4.jpg", "dog/9.PNG"]
    images = folder_of(tmp_path / "images", paths)
    listed = torchvision.datasets.ImageFolder(str(tmp_path / "images"), loader=str).samples
    listed = [os.path.relpath(path, tmp_path / "images") for path, _ in listed]
    assert sorted(listed) == list(images.paths)
    np.save(tmp_path / "x.npy", features_of(listed))
    row = next(row for row in range(len(paths)) if listed[row] != images.paths[row])
    with pytest.raises(DataError) as caught:
        match_rows(FeatureStore.open(tmp_path / "x.npy"), images, images.index.root)
    words = (
        f"row {row} is {images.paths[row]} in the order of the whole paths, and {listed[row]} in"
    )
    assert words in str(caught.value)


def test_a_bare_array_is_taken_where_every_order_agrees(tmp_path):
    for number, paths in enumerate([PLAIN, ("1.jpg", "2.jpg"), ("cat/a b/1.jpg", "cat/a b/2.jpg")]):
        images = folder_of(tmp_path / str(number), paths)
        np.save(tmp_path / "x.npy", features_of(paths))
        store = match_rows(FeatureStore.open(tmp_path / "x.npy"), images, images.index.root)
        np.testing.assert_array_equal(store.sample_ids, images.sample_ids)
        np.testing.assert_array_equal(store.read(slice(None)), features_of(images.paths))


def test_a_bare_array_is_refused_if_torchvision_lists_other_files(tmp_path):
    # ktfast skips the empty file, and torchvision lists no GIF: two files each.
    (tmp_path / "images/cat").mkdir(parents=True)
    (tmp_path / "images/cat/0.jpg").touch()
    images = folder_of(tmp_path / "images", ["cat/1.jpg", "cat/2.gif"])
    np.save(tmp_path / "x.npy", np.zeros((2, 3), np.float32))
    with pytest.raises(DataError, match=r"row 0 is cat/1\.jpg .* cat/0\.jpg in the order of torch"):
        match_rows(FeatureStore.open(tmp_path / "x.npy"), images, images.index.root)
    np.save(tmp_path / "x.npy", np.zeros((3, 3), np.float32))
    with pytest.raises(
        DataError, match=r"3 rows for the 2 images .*skipped.* cat/0\.jpg: the file"
    ):
        match_rows(FeatureStore.open(tmp_path / "x.npy"), images, images.index.root)


def test_a_folder_of_features_with_row_numbers_is_a_bare_array(tmp_path):
    images = folder_of(tmp_path / "images", AMBIGUOUS)
    with_ids = FeatureWriter(tmp_path / "ids", dim=2)
    with_ids.append(np.zeros((4, 2), np.float32), np.arange(4))
    with_ids.close()
    with pytest.raises(DataError, match="ambiguous"):
        match_rows(FeatureStore.open(tmp_path / "ids"), images, images.index.root)


def test_a_folder_of_features_that_lacks_images_names_them(tmp_path):
    images = folder_of(tmp_path / "images", PLAIN)
    writer = FeatureWriter(tmp_path / "ids", dim=2)
    writer.append(np.zeros((1, 2), np.float32), images.sample_ids[1:2])
    writer.close()
    store = FeatureStore.open(tmp_path / "ids")
    with pytest.raises(DataError, match=r"lack 2 of the 3 images: cat/1\.jpg, dog/1\.jpg;"):
        match_rows(store, images, images.index.root)
    with pytest.raises(DataError, match=r"lack 2 of the 3 images: cat/1\.jpg, dog/1\.jpg;"):
        align(np.zeros(1), store, images)


def test_the_list_is_part_of_the_content(tmp_path):
    path = write_txt(tmp_path, PLAIN)
    first = FeatureStore.open(path).fingerprint
    (tmp_path / "x.txt").write_text("\n".join(reversed(PLAIN)))
    second = FeatureStore.open(path).fingerprint
    (tmp_path / "x.txt").unlink()
    assert len({first, second, FeatureStore.open(path).fingerprint}) == 3


def broken_files(place):
    rows = features_of(PLAIN)
    names = np.array(PLAIN)
    yield "must hold the arrays features and paths", {"x.npz": {"a": rows}}
    yield "must hold text", {"x.npz": {"features": rows, "paths": np.arange(3)}}
    yield "numpy.savez", {"x.npz": {"features": rows, "paths": names.astype(object)}}
    yield "must hold numbers", {"x.npz": {"features": rows.ravel(), "paths": names}}
    yield "holds no numbers", {"x.npz": {"features": rows[:, :0], "paths": names}}
    yield "gives 2 paths for the 3 rows", {"x.npz": {"features": rows, "paths": names[:2]}}
    yield "numpy.savez", {"x.npz": b"PK\3\4 junk"}
    yield "two lists of paths", {"x.npy": rows, "x.csv": b"path\n", "x.txt": b""}
    yield "gives 0 paths", {"x.npy": rows, "x.csv": b""}
    yield "gives 1 paths for the 3 rows", {"x.npy": rows, "x.txt": b"cat/1.jpg\n"}
    yield "none is named path", {"x.npy": rows, "x.csv": b"a,b\n1,2\n"}
    yield "3 columns and the first line has 2", {"x.npy": rows, "x.csv": b"path,a\nx,1,2\n"}
    yield "cannot be read as a list of paths", {"x.npy": rows, "x.csv": b'path\n"a'}


@pytest.mark.parametrize("number", range(13))
def test_files_that_cannot_be_read_are_named(number, tmp_path):
    message, files = list(broken_files(tmp_path))[number]
    for name, content in files.items():
        if isinstance(content, bytes):
            (tmp_path / name).write_bytes(content)
        elif isinstance(content, dict):
            np.savez(tmp_path / name, **content)
        else:
            np.save(tmp_path / name, content)
    with pytest.raises(DataError) as caught:
        FeatureStore.open(tmp_path / next(iter(files)))
    assert message in str(caught.value)
    assert str(tmp_path / "x.") in str(caught.value)


def test_parquet_needs_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "x.parquet").touch()
    with pytest.raises(DataError, match="pip install pyarrow"):
        FeatureStore.open(tmp_path / "x.parquet")


def test_parquet_files_that_cannot_be_read_are_named(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    for message, columns in (
        ("must have a column path", {"features": [[1.0], [2.0]]}),
        ("must have a column path", {"path": ["a", "b"], "features": [1.0, 2.0]}),
        ("one length", {"path": ["a", "b"], "features": [[1.0], [2.0, 3.0]]}),
        ("missing", {"path": ["a", "b"], "features": [[1.0], [None]]}),
        ("missing", {"path": ["a", "b"], "features": [[1.0], None]}),
        ("holds no text", {"path": ["a", None], "features": [[1.0], [2.0]]}),
    ):
        parquet.write_table(arrow.table(columns), tmp_path / "x.parquet")
        with pytest.raises(DataError, match=message):
            FeatureStore.open(tmp_path / "x.parquet")
    (tmp_path / "x.parquet").write_bytes(b"PAR1 junk PAR1")
    with pytest.raises(DataError, match=r"x\.parquet cannot be read as a Parquet file"):
        FeatureStore.open(tmp_path / "x.parquet")


def test_an_npz_file_is_read_within_the_limits_of_all_readers(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "UNPACKED_FREE", 1000)
    zeros = np.zeros((3, 100_000), np.float32)
    np.savez_compressed(tmp_path / "x.npz", features=zeros, paths=np.array(PLAIN))
    with pytest.raises(DataError, match=r"x\.npz cannot be read .* zip bomb"):
        FeatureStore.open(tmp_path / "x.npz")
