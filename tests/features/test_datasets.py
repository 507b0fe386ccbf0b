"""Features of many files and of object storage: lazy shards, and labels beside the ids."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ktfast import KMeans
from ktfast.cli.kmeans import kmeans
from ktfast.cli.main import main
from ktfast.cli.options import parse
from ktfast.config import Config, load_config
from ktfast.errors import ConfigError, DataError
from ktfast.features.datasets import ParquetRows
from ktfast.features.matching import match_rows
from ktfast.features.row_labels import write_labels
from ktfast.features.store import FeatureStore
from ktfast.native.lazy_rows import LazyRows
from ktfast.pipeline.run_folder import to_toml
from ktfast.pipeline.steps.questions import feature_folders
from ktfast.remote import stored_files, url_of

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
fsspec = pytest.importorskip("fsspec")

N, D = 300, 7
CUTS = ((0, 120), (120, 121), (121, 300))


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)


def table(rows, first, end, **more):
    values = pa.array(rows[first:end].reshape(-1))
    lists = pa.FixedSizeListArray.from_arrays(values, D)
    return pa.table({**{name: each[first:end] for name, each in more.items()}, "features": lists})


PATHS = [f"photos/{row}.jpg" for row in range(N)]


@pytest.fixture
def folder(tmp_path, rows):
    """A dataset of three Parquet files with row groups of 50 rows."""
    (tmp_path / "set").mkdir()
    for number, (first, end) in enumerate(CUTS):
        part = table(rows, first, end, path=PATHS)
        parquet.write_table(part, tmp_path / f"set/part-{number}.parquet", row_group_size=50)
    return tmp_path / "set"


@pytest.fixture
def memory(folder):
    """The same dataset in fsspec's memory."""
    system = fsspec.filesystem("memory")
    for path in sorted(folder.iterdir()):
        system.pipe(f"/bucket/rows/{path.name}", path.read_bytes())
    yield "memory://bucket/rows"
    system.rm("/bucket", recursive=True)


def places(folder, memory):
    return [
        *(str(folder), f"{folder}/*.parquet", f"{folder}/part-{{0..2}}.parquet"),
        *(f"file://{folder}", memory, f"{memory}/*.parquet", f"{memory}/part-{{0,1,2}}.parquet"),
        Path(f"{memory}/*.parquet"),  # one slash is lost
    ]


def test_a_dataset_is_read_lazily_and_row_for_row(folder, memory, rows):
    for place in places(folder, memory):
        store = FeatureStore.open(place)
        assert (store.n, store.dim, store.dtype) == (N, D, np.float32)
        assert all(isinstance(shard, LazyRows) for shard in store.shards)
        assert store.paths == tuple(PATHS)
        np.testing.assert_array_equal(store.read(slice(None)), rows)
        some = np.array([299, 0, 121, 120, 119, 50, 0])
        np.testing.assert_array_equal(store.read(some), rows[some])
        np.testing.assert_array_equal(np.concatenate(store.between(40, 180)), rows[40:180])


def test_two_row_groups_at_most_are_in_memory(folder, rows):
    store = FeatureStore.open(folder, paths="ignored")
    for start in range(0, N, 30):
        store.read(slice(start, start + 30))
        assert len(store.shards[0]._groups._kept) <= 2


@pytest.mark.parametrize("options", [{}, {"spherical": True}, {"init": "random"}])
def test_kmeans_of_a_dataset_has_the_bits_of_the_array(folder, memory, rows, options):
    expected = KMeans(9, random_state=1, max_iter=5, **options).fit(rows)
    for place in (folder, memory):
        shards = FeatureStore.open(place).shards
        model = KMeans(9, random_state=1, max_iter=5, **options).fit(shards)
        np.testing.assert_array_equal(model.labels_, expected.labels_)
        np.testing.assert_array_equal(model.cluster_centers_, expected.cluster_centers_)
        np.testing.assert_array_equal(model.predict(shards), expected.predict(rows))
    np.testing.assert_array_equal(model.predict(shards[0]), expected.predict(rows[:120]))
    np.testing.assert_array_equal(model.transform(shards), expected.transform(rows))


def test_labels_are_written_beside_the_ids(folder, memory, rows, tmp_path):
    expected = KMeans(9, random_state=1).fit(rows)
    labels, distances = expected.assign(rows)
    for place, out in (
        (str(folder), str(tmp_path / "a.parquet")),
        (memory, "memory://out.parquet"),
    ):
        assert main(["kmeans", place, "-k", "9", "--seed", "1", "-o", out]) == 0
        with stored_files(out, ())[0].open() as file:
            found = parquet.read_table(file)
        assert found.column_names == ["path", "cluster", "distance"]
        assert found["path"].to_pylist() == PATHS
        np.testing.assert_array_equal(found["cluster"], labels)
        np.testing.assert_array_equal(found["distance"], np.sqrt(np.maximum(distances, 0)))


def test_rows_without_a_column_of_ids_are_named_by_file_and_number(tmp_path, rows):
    (tmp_path / "set").mkdir()
    for number, (first, end) in enumerate(CUTS):
        parquet.write_table(table(rows, first, end), tmp_path / f"set/{number}.parquet")
    np.save(tmp_path / "x.npy", rows[:10])
    stores = [FeatureStore.open(tmp_path / "set", paths="optional")]
    stores.append(FeatureStore.open(tmp_path / "x.npy", paths="optional"))
    write_labels(tmp_path / "out.parquet", stores, np.zeros(N + 10, np.int32), np.zeros(N + 10))
    found = parquet.read_table(tmp_path / "out.parquet")
    assert found.column_names == ["file", "row", "cluster", "distance"]
    assert found["row"].to_pylist() == [*range(120), 0, *range(179), *range(10)]
    names = found["file"].to_pylist()
    assert names[119:122] == [str(tmp_path / f"set/{n}.parquet") for n in (0, 1, 2)]
    assert names[-1] == str(tmp_path / "x.npy")
    with pytest.raises(DataError, match="must have a column path"):
        FeatureStore.open(tmp_path / "set")


def test_ids_keep_their_type(tmp_path, rows):
    (tmp_path / "set").mkdir()
    ids = np.arange(N, dtype=np.int64) * 10**12
    parquet.write_table(table(rows, 0, N, id=ids), tmp_path / "set/0.parquet")
    store = FeatureStore.open(tmp_path / "set", paths="optional")
    write_labels(tmp_path / "out.parquet", [store], np.arange(N, dtype=np.int32), np.zeros(N))
    found = parquet.read_table(tmp_path / "out.parquet")
    assert found.column_names[0] == "id"
    np.testing.assert_array_equal(found["id"], ids)


def test_npy_files_of_object_storage_are_read_in_ranges(rows, memory, tmp_path):
    system = fsspec.filesystem("memory")
    for number, (first, end) in enumerate(CUTS):
        np.save(tmp_path / "x.npy", rows[first:end])
        system.pipe(f"/bucket/{number}.npy", (tmp_path / "x.npy").read_bytes())
    store = FeatureStore.open("memory://bucket/*.npy", paths="optional")
    np.testing.assert_array_equal(store.read(slice(None)), rows)
    some = np.array([299, 5, 4, 5, 150])
    np.testing.assert_array_equal(store.read(some), rows[some])
    system.pipe("/bucket/2.npy", b"short")
    with pytest.raises(DataError, match=r"2\.npy became shorter"):
        store.read(slice(None))
    with pytest.raises(DataError, match=r"2\.npy cannot be read as a \.npy file"):
        FeatureStore.open("memory://bucket/*.npy", paths="optional")


def test_the_fingerprint_follows_the_content(folder, memory, rows):
    before = FeatureStore.open(folder).fingerprint
    assert FeatureStore.open(f"{folder}/*.parquet").fingerprint == before
    there = FeatureStore.open(memory).fingerprint
    assert FeatureStore.open(memory).fingerprint == there
    parquet.write_table(table(rows + 1, 0, 120, path=PATHS), folder / "part-0.parquet")
    assert FeatureStore.open(folder).fingerprint != before


def test_integers_become_float64(tmp_path, rows):
    (tmp_path / "set").mkdir()
    whole = (rows * 1000).astype(np.int32)
    parquet.write_table(table(whole, 0, N, path=PATHS), tmp_path / "set/0.parquet")
    store = FeatureStore.open(tmp_path / "set")
    assert store.dtype == np.float64
    np.testing.assert_array_equal(store.read(slice(None)), whole)


def test_problems_are_one_sentence(folder, memory, rows, tmp_path, monkeypatch):
    parquet.write_table(table(rows.astype(np.float64), 0, 5, path=PATHS), folder / "part-3.parquet")
    store = FeatureStore.open(folder)
    with pytest.raises(DataError, match=r"part-3\.parquet holds rows float64 \[7\]"):
        store.read(slice(None))
    (folder / "part-3.parquet").write_bytes(b"no Parquet")
    with pytest.raises(DataError, match=r"part-3\.parquet cannot be read as a Parquet file"):
        FeatureStore.open(folder)
    for place in ("memory://bucket/none-*.parquet", f"{tmp_path}/none-*.parquet"):
        with pytest.raises(DataError, match="names no file"):
            FeatureStore.open(place)
    with pytest.raises(DataError, match=r"nosuch://x/y cannot be opened .*Protocol not known"):
        FeatureStore.open("nosuch://x/y")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(DataError, match=r"s3://b/x needs the package fsspec .*s3fs"):
        FeatureStore.open("s3://b/x")
    with pytest.raises(ConfigError, match=r"only a \.parquet file"):
        main_raising(["kmeans", memory, "-k", "2", "-o", "memory://x.csv"])
    monkeypatch.setitem(sys.modules, "lance", None)
    with pytest.raises(DataError, match="needs the package pylance, which is not installed"):
        FeatureStore.open("rows.lance")


def main_raising(arguments):
    return kmeans(parse(arguments))


def test_a_url_survives_the_configuration(tmp_path):
    config = Config.model_validate({"cluster": {"features": "s3://bucket/a/*.parquet"}})
    (tmp_path / "config.toml").write_text(to_toml(config))
    assert "s3://bucket/a/*.parquet" in to_toml(config)
    assert url_of(load_config(tmp_path / "config.toml").cluster.features) is not None


def test_a_lance_dataset_is_read(tmp_path, rows):
    lance = pytest.importorskip("lance")
    for name, more, column in (("a", {"path": PATHS}, "path"), ("b", {}, "_rowid")):
        place = tmp_path / f"{name}.lance"
        lance.write_dataset(table(rows, 0, N, **more), place, max_rows_per_file=100)
        store = FeatureStore.open(place, paths="optional")
        assert store.paths == (tuple(PATHS) if more else None)
        np.testing.assert_array_equal(store.read(slice(None)), rows)
        some = np.array([299, 0, 121, 0])
        np.testing.assert_array_equal(store.read(some), rows[some])
        model = KMeans(4, random_state=0).fit(store.shards)
        np.testing.assert_array_equal(model.labels_, KMeans(4, random_state=0).fit(rows).labels_)
        write_labels(tmp_path / "out.parquet", [store], model.labels_, np.zeros(N))
        found = parquet.read_table(tmp_path / "out.parquet")
        assert found.column_names == [column, "cluster", "distance"]
        assert len(set(found[column].to_pylist())) == N
        before = store.fingerprint
        lance.write_dataset(table(rows, 0, 5, **more), place, mode="append")
        assert FeatureStore.open(place, paths="optional").fingerprint != before


def test_the_stage_cluster_takes_a_dataset(folder, memory):
    images = SimpleNamespace(paths=PATHS[::-1], n=N, sample_ids=np.arange(N)[::-1], skipped=())
    for place in (f"{folder}/*.parquet", memory):
        config = Config.model_validate({"cluster": {"features": place}})
        given, _ = feature_folders(SimpleNamespace(config=config))
        found = match_rows(FeatureStore.open(given, verify=True), images, folder)
        expected = FeatureStore.open(given).read(slice(None))[::-1]
        np.testing.assert_array_equal(found.read(slice(None)), expected)


def test_a_part_of_a_part(folder, rows):
    shard = FeatureStore.open(folder).shards[0]
    assert isinstance(shard, ParquetRows)
    part = shard[10:100][20:]
    np.testing.assert_array_equal(np.asarray(part), rows[30:100])
    np.testing.assert_array_equal(part[np.array([3, 1])], rows[[33, 31]])
    np.testing.assert_array_equal(part[::7], rows[30:100:7])
    assert part[80:].shape == (0, D)
