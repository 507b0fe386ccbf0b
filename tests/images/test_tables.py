"""Images and arrays in the rows of Parquet files."""

import io
import os
import time

import numpy as np
import pytest

from ktfast.cli.main import main
from ktfast.errors import DataError
from ktfast.images.arrays import ArrayFormat
from ktfast.images.index import ImageIndex
from ktfast.images.prepare import prepare
from ktfast.images.tars import holds_tables, holds_tars, images_exist, scan_images
from support.pictures import encoded, picture
from support.tiny_recipe import TINY

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

N, SIDE, CHANNELS = 11, 20, 2
SHAPE = (SIDE, SIDE + 3, CHANNELS)


@pytest.fixture
def arrays(rng):
    return rng.integers(0, 256, (N, *SHAPE), np.uint8)


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def column(arrays, form):
    """Arrays as one column of Arrow."""
    if form == "bytes":
        return pa.array([npy(array) for array in arrays])
    if form == "tensor":
        return pa.FixedShapeTensorArray.from_numpy_ndarray(arrays)
    kind = pa.uint8()
    for length in reversed(SHAPE):
        kind = pa.list_(kind, length) if form == "fixed" else pa.list_(kind)
    return pa.array(arrays.tolist(), kind)


def names(n=N):
    return [f"{'ab'[row % 2]}/{row:02d}.npy" for row in range(n)]


@pytest.mark.parametrize("form", ["lists", "fixed", "tensor", "bytes"])
def test_arrays_of_tables_are_prepared_as_files_are(arrays, form, tmp_path):
    for name, array in zip(names(), arrays, strict=True):
        (tmp_path / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "files" / name, array)
    table = pa.table({"array": column(arrays, form), "path": names()})
    (tmp_path / "tables").mkdir()
    pq.write_table(table.slice(0, 7), tmp_path / "tables/0.parquet", row_group_size=3)
    pq.write_table(table.slice(7), tmp_path / "tables/1.parquet", row_group_size=3)
    files = prepare(
        ImageIndex.scan(tmp_path / "files", arrays=True),
        *(tmp_path / "a",), short_side=16, arrays=ArrayFormat(CHANNELS),
    )  # fmt: skip
    index = scan_images(tmp_path / "tables", arrays=True)
    tables = prepare(index, tmp_path / "b", short_side=16, arrays=ArrayFormat(CHANNELS))
    assert sorted(files.paths) == sorted(tables.paths)
    row_of = {path: row for row, path in enumerate(tables.paths)}
    for row, path in enumerate(files.paths):
        assert files.read(row) == tables.read(row_of[path])
        label = tables.labels[row_of[path]]
        assert files.classes[files.labels[row]] == tables.classes[label] == path[0]
    assert index.take(np.array([8, 2])).read(0) == index.read(8)
    assert index.shard_sizes.tolist() == [7, 4]


def test_photographs_of_tables_as_the_hub_stores_them(tmp_path):
    photos = [encoded(picture(24 + row, 30, seed=row), "JPEG") for row in range(4)]
    images = [{"bytes": photo, "path": "same.jpg"} for photo in photos]
    pq.write_table(pa.table({"image": images, "label": [10, 2, 10, None]}), tmp_path / "x.parquet")
    index = scan_images(tmp_path / "x.parquet")
    assert [index.read(row) for row in range(4)] == photos
    assert index.paths[3] == "x.parquet/00000003"
    assert (index.classes, index.labels.tolist()) == (("2", "10"), [1, 0, 1, -1])
    assert prepare(index, tmp_path / "set", short_side=16).n == 4
    assert scan_images(tmp_path / "x.parquet", labels="none").classes == ()


def test_rows_without_an_array_are_left_out_and_listed(tmp_path):
    good = [[[1.0, 2.0], [3.0, 4.0]]] * 3
    rows = [*good, None, [[1.0], [2.0, 3.0]], [[1.0, None], [2.0, 3.0]]]
    pq.write_table(pa.table({"array": rows}), tmp_path / "x.pq")
    index = scan_images(tmp_path, arrays=True)
    found = prepare(index, tmp_path / "set", short_side=2, arrays=ArrayFormat(1))
    assert found.n == 3
    reasons = {skip.path[-1]: skip.reason for skip in found.skipped}
    assert (reasons["3"], reasons["4"]) == (
        "the row is empty", "its lists have different lengths"
    )  # fmt: skip
    assert "expected numbers" in reasons["5"]


def test_what_counts_as_tables(tmp_path):
    pq.write_table(pa.table({"features": [[1.0]], "text": ["a"]}), tmp_path / "x.parquet")
    assert holds_tables(tmp_path)
    assert holds_tables("s3://bucket/x.parquet")
    assert not holds_tars(tmp_path)
    assert images_exist(tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"must have a column image.* features, text; rename"):
        scan_images(tmp_path)
    (tmp_path / "photo.jpg").write_bytes(encoded(picture(24, 30), "JPEG"))
    assert not holds_tables(tmp_path)
    (tmp_path / "photo.jpg").unlink()
    content = (tmp_path / "x.parquet").read_bytes()
    (tmp_path / "x.parquet").write_bytes(content[:-9])
    with pytest.raises(DataError, match=r"x\.parquet"):
        scan_images(tmp_path)


def test_a_run_notices_changed_rows_and_no_rewritten_file(arrays, tmp_path, capsys, caplog):
    caplog.set_level("INFO")
    (tmp_path / "tiny.toml").write_text(TINY)
    (tmp_path / "tables").mkdir()
    file = tmp_path / "tables/x.parquet"

    def command(stage="prepare", *options):
        caplog.clear()
        return main([
            *(stage, "--run", str(tmp_path / "run"), "--config", str(tmp_path / "tiny.toml")),
            *("--data.pretext", str(tmp_path / "tables"), "--transfer.channels", str(CHANNELS)),
            *("--cluster.features", str(tmp_path / "x.npz"), "--evaluate.baselines", "random"),
            *options,
        ])  # fmt: skip

    pq.write_table(pa.table({"array": column(arrays, "lists"), "path": names()}), file)
    assert command() == 0
    later = time.time_ns() + 10**9
    pq.write_table(pa.table({"array": column(arrays, "bytes"), "path": names()}), file)
    os.utime(file, ns=(later, later))
    assert command() == 0
    assert "up to date" in caplog.text
    np.savez(tmp_path / "x.npz", features=np.eye(N), paths=names())
    link = ["--cluster.link", "true", "--cluster.n_clusters", "2", "--cluster.pca", "2"]
    assert command("cluster", *link) == 2
    assert "are packed" in capsys.readouterr().err
    arrays[4] += 1
    pq.write_table(pa.table({"array": column(arrays, "bytes"), "path": names()}), file)
    os.utime(file, ns=(later + 10**9, later + 10**9))
    command()
    assert "a/04.npy" in caplog.text + capsys.readouterr().err
