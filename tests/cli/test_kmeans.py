"""`ktfast kmeans`: the labels of the estimator, from files to files, without torch."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import scipy.sparse
from pyarrow import parquet

from ktfast import KMeans
from ktfast.cli.main import main
from ktfast.features.writer import FeatureWriter
from ktfast.native.modules import has_cuda
from ktfast.sample_ids import sample_ids_of


@pytest.fixture
def rows(data_folder):
    with np.load(data_folder / "vectors/mnist_70k_uint8.npz") as file:
        return file[file.files[0]][:600].reshape(600, -1).astype(np.float32)


@pytest.fixture
def expected(rows):
    return KMeans(20, n_init=1, random_state=3).fit(rows)


def test_labels_are_those_of_the_estimator(tmp_path, rows, expected, capsys):
    np.save(tmp_path / "x.npy", rows)
    out = tmp_path / "labels.npy"
    arguments = ["kmeans", str(tmp_path / "x.npy"), "-k", "20", "-o", str(out), "--seed", "3"]
    assert main(arguments) == 0
    np.testing.assert_array_equal(np.load(out), expected.labels_)
    assert f"inertia {expected.inertia_:.7g}" in capsys.readouterr().out


def test_several_files_are_one_set_and_paths_are_kept(tmp_path, rows, expected):
    names = [f"photographs/{number}.jpg" for number in range(600)]
    for part, place in (("a", slice(0, 100)), ("b", slice(100, 600))):
        np.savez(tmp_path / f"{part}.npz", features=rows[place], paths=np.array(names[place]))
    files = [str(tmp_path / "a.npz"), str(tmp_path / "b.npz")]
    for out in (tmp_path / "found.npz", tmp_path / "found.csv"):
        assert main(["kmeans", *files, "-k", "20", "-o", str(out), "--seed", "3"]) == 0
    with np.load(tmp_path / "found.npz") as found:
        np.testing.assert_array_equal(found["labels"], expected.labels_)
        np.testing.assert_array_equal(found["centers"], expected.cluster_centers_)
        assert found["distances"].sum() == pytest.approx(expected.inertia_)
        assert found["paths"].tolist() == names
    with open(tmp_path / "found.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["path"] for row in table] == names
    assert [int(row["cluster"]) for row in table] == expected.labels_.tolist()


def write_npz(path, x):
    np.savez(path, x)


def write_named(path, x):
    np.savez(path, features=x, other=np.zeros(3))


def write_columns(path, x):
    index = {"__index_level_0__": np.arange(len(x))}  # pandas stores its index like this
    table = {**dict(zip("abcdef", x.T.copy(), strict=True)), **index}
    parquet.write_table(pyarrow.table(table), path)


def write_lists(path, x):
    parquet.write_table(pyarrow.table({"embedding": x.tolist()}), path)


@pytest.mark.parametrize("out", ["labels.npy", "labels.csv"])
@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("x.npz", write_npz),
        ("x.npz", write_named),
        ("x.parquet", write_columns),
        ("x.parquet", write_lists),
    ],
)
def test_files_need_no_paths(tmp_path, rows, name, write, out):
    x = np.ascontiguousarray(rows[:, 300:306])
    write(tmp_path / name, x)
    arguments = ["-k", "5", "-o", str(tmp_path / out), "--seed", "3"]
    assert main(["kmeans", str(tmp_path / name), *arguments]) == 0
    expected = KMeans(5, n_init=1, random_state=3).fit(x).labels_.tolist()
    if out.endswith("csv"):
        with open(tmp_path / out, newline="") as file:
            table = list(csv.DictReader(file))
        assert [row["path"] for row in table] == [str(number) for number in range(len(x))]
        assert [int(row["cluster"]) for row in table] == expected
    else:
        assert np.load(tmp_path / out).tolist() == expected


def test_a_table_beside_the_rows_does_not_matter_for_labels_without_paths(tmp_path, rows):
    np.save(tmp_path / "x.npy", rows)
    (tmp_path / "x.csv").write_text("0,1\n2,3\n")
    assert main(["kmeans", str(tmp_path / "x.npy"), "-k", "5", "-o", str(tmp_path / "y.npy")]) == 0


def test_files_that_hold_no_features_are_refused_by_name(tmp_path, rows, capsys):
    x = rows[:, 300:303]
    columns = {name: pyarrow.array(x[:, i]) for i, name in enumerate("abc")}
    missing = pyarrow.array([None, *x[1:, 0].tolist()], pyarrow.float32())
    for name, more in (
        ("number", {"n": np.arange(len(x))}),
        ("text", {"n": ["name"] * len(x)}),
        ("missing", {"a": missing}),
    ):
        parquet.write_table(pyarrow.table({**columns, **more}), tmp_path / f"{name}.parquet")
    scipy.sparse.save_npz(tmp_path / "sparse.npz", scipy.sparse.csr_matrix(x))
    np.savez(tmp_path / "two.npz", a=x, b=x)
    for name, message in (
        ("sparse.npz", "sparse matrix of SciPy, but dense features are needed; write scipy.sparse"),
        ("two.npz", "must hold one array, or features, got a, b"),
        ("number.parquet", "the column n holds int64 and the first column holds float"),
        ("text.parquet", "the column n holds"),
        ("missing.parquet", "the column a has 1 missing values"),
    ):
        out = tmp_path / "y.npy"
        assert main(["kmeans", str(tmp_path / name), "-k", "5", "-o", str(out)]) == 2
        assert message in capsys.readouterr().err
        assert not out.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"-o": "labels.txt"}, r"labels.txt: give a file name that ends in .npy, .npz, .csv"),
        ({"-k": "601"}, "n_samples=600 should be >= n_clusters=601"),
        ({"file": "missing.npy"}, "missing.npy does not exist; give a file of features"),
        ({"file": "."}, "give a folder of Parquet files"),
        ({"file": "wide.npy"}, "x.npy float32, "),
        ({"file": "wide.npy"}, "wide.npy float64; write the files again in one type"),
        ({"file": "nan.npy"}, "NaN in row 601 (row 1 of X[1], "),
        ({"file": "missing.parquet"}, "missing.parquet does not exist; give a file of features"),
        ({"file": "narrow.npy"}, "all files must have rows of one length"),
        ({"-o": "none/labels.npy"}, "none/labels.npy does not exist; make this folder first"),
    ],
)
def test_what_cannot_be_clustered_is_refused_by_name(tmp_path, rows, capsys, change, message):
    np.save(tmp_path / "x.npy", rows)
    np.save(tmp_path / "narrow.npy", rows[:, :9])
    np.save(tmp_path / "wide.npy", rows.astype(np.float64))
    np.save(
        tmp_path / "nan.npy", np.where(np.arange(3)[:, None] == 1, np.float32(np.nan), rows[:3])
    )
    given = {"-k": "20", "-o": "labels.npy", **change}
    files = [str(tmp_path / "x.npy")]
    if "file" in given:
        files.append(str(tmp_path / given["file"]))
    out = tmp_path / given["-o"]
    assert main(["kmeans", *files, "-k", given["-k"], "-o", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_torch_is_not_imported(tmp_path, rows):
    np.save(tmp_path / "x.npy", rows)
    code = (
        "import sys; from ktfast.cli.main import main;"
        "status = main(['kmeans', 'x.npy', '-k', '5', '-o', 'y.npy']);"
        "sys.exit(status or any(m in sys.modules for m in ('torch', 'pydantic', 'PIL')))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    assert len(np.load(tmp_path / "y.npy")) == 600


def test_a_damaged_feature_folder_is_refused(tmp_path, rows, capsys):
    writer = FeatureWriter(tmp_path / "features", dim=rows.shape[1], dtype="float32")
    writer.append(rows, np.arange(len(rows)))
    writer.close()
    shard = tmp_path / "features/features-00000.npy"
    content = bytearray(shard.read_bytes())
    content[-2] ^= 1
    shard.write_bytes(content)
    arguments = [str(tmp_path / "features"), "-k", "5", "-o", str(tmp_path / "y.npy")]
    assert main(["kmeans", *arguments]) == 2
    assert "features-00000.npy is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "out"),
    [
        ("x.npy", "x.npy"),
        ("x.npy", "link.npy"),
        ("named.npz", "named.npz"),
        ("folder", "folder/a.parquet"),
        ("folder", "folder/new.parquet"),
        ("fold*/*.parquet", "folder/new.parquet"),
        ("listed.npy", "listed.csv"),
    ],
)
def test_a_result_never_replaces_what_is_read(tmp_path, rows, given, out, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", rows)
    np.save("listed.npy", rows[:3])
    Path("link.npy").symlink_to("x.npy")
    Path("listed.csv").write_text("path,caption\na,x\nb,y\nc,z\n")
    np.savez("named.npz", features=rows, paths=np.arange(600).astype(str))
    Path("folder").mkdir()
    lists = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(rows.ravel()), rows.shape[1])
    parquet.write_table(pyarrow.table({"x": lists}), "folder/a.parquet")
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    assert main(["kmeans", given, "-k", "3", "-o", out]) == 2
    assert "give another" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


def test_one_parquet_file_keeps_its_ids(tmp_path, rows):
    lists = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(rows.ravel()), rows.shape[1])
    ids = pyarrow.array(np.arange(600)[::-1])
    parquet.write_table(pyarrow.table({"id": ids, "x": lists}), tmp_path / "x.parquet")
    out = tmp_path / "labels.parquet"
    assert main(["kmeans", str(tmp_path / "x.parquet"), "-k", "3", "-o", str(out)]) == 0
    found = parquet.read_table(out)
    assert found.column_names == ["id", "cluster", "distance"]
    assert found["id"].to_pylist() == ids.to_pylist()


@pytest.mark.skipif(has_cuda(), reason="a GPU can be used")
def test_a_device_that_cannot_be_used_is_one_sentence(tmp_path, rows, capsys):
    np.save(tmp_path / "x.npy", rows)
    out = str(tmp_path / "labels.npy")
    arguments = ["kmeans", str(tmp_path / "x.npy"), "-k", "3", "-o", out, "--device", "cuda"]
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("ktfast: --device cuda: ")


def test_a_folder_of_the_stage_features_gives_the_paths_of_its_rows(tmp_path, rows, capsys):
    paths = [f"a/{number}.jpg" for number in range(len(rows))]
    folder = tmp_path / "features"
    writer = FeatureWriter(folder, dim=rows.shape[1])
    writer.append(rows, sample_ids_of(paths))
    writer.close()
    (folder / "paths.csv").write_text("\n".join(["path", *paths]) + "\n")
    out = tmp_path / "found.csv"
    assert main(["kmeans", str(folder), "-k", "20", "-o", str(out)]) == 0
    with open(out, newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)] == paths
    assert main(["kmeans", str(folder), "-k", "20", "-o", str(folder / "paths.csv")]) == 2
    (folder / "paths.csv").write_text("\n".join(["path", *paths[::-1]]) + "\n")
    assert main(["kmeans", str(folder), "-k", "20", "-o", str(out)]) == 2
    assert "paths.csv does not list the rows of its folder" in capsys.readouterr().err
