"""`ktfast bench kmeans` on tiny problems: all answer the same question, none spoils the rest."""

import json
from importlib.util import find_spec

import numpy as np
import pytest
import sklearn

from ktfast.bench.kmeans import command as kmeans
from ktfast.bench.kmeans import report as kmeans_report
from ktfast.bench.kmeans.data import default_clusters, first_centers, load, mixture
from ktfast.bench.kmeans.engines import AS_INSTALLED, Problem
from ktfast.bench.kmeans.report import COLUMNS
from ktfast.cli.main import main
from ktfast.errors import DataError, InputError
from ktfast.features.writer import FeatureWriter
from ktfast.reference.kmeans import assign, lloyd

SIZES = {"rows": 400, "clusters": 6, "iterations": 3, "threads": 1, "repeats": 2}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """What a run leaves in its folder, with one peer that aborts and one that is not there."""
    fakes, out = tmp_path_factory.mktemp("peers"), tmp_path_factory.mktemp("out")
    (fakes / "superkmeans.py").write_text("import os\nos.abort()\n")
    (fakes / "fastkmeans.py").write_text("raise ModuleNotFoundError(name='fastkmeans')\n")
    arguments = ["bench", "kmeans", "--data", "mixture8", "--falling", "--out", str(out)]
    arguments += ["--against", "sklearn,faiss,torch,superkmeans,fastkmeans,numpy"]
    for name, value in SIZES.items():
        arguments += [f"--{name}", str(value)]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(fakes)
        patch.setenv("KTFAST_SIMD", "scalar")  # no core types to try: half the processes
        assert main(arguments) == 0
    return out


@pytest.fixture(scope="module")
def record(outcome):
    return json.loads((outcome / "kmeans-mixture8.json").read_text())


def row_of(record, engine):
    return next(row for row in record["rows"] if row["engine"] == engine)


def test_the_table_has_every_column_and_engine(outcome):
    text = (outcome / "kmeans-mixture8.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("|")]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert table[0] == list(COLUMNS)
    engines = ["ktfast", "sklearn", "faiss", "torch", "superkmeans", "fastkmeans", "numpy"]
    assert [cells[0] for cells in table[2:9]] == engines
    assert all(len(cells) == len(COLUMNS) for cells in table[2:9])
    assert table[2][COLUMNS.index("ratio")] == "1.00"
    assert "- superkmeans: approximate; takes no first centres" in text


def test_an_abort_and_a_missing_library_are_rows(record, outcome):
    assert row_of(record, "superkmeans")["problem"] == "aborted (exit 134)"
    assert row_of(record, "fastkmeans")["problem"] == "missing: pip install fastkmeans"
    text = (outcome / "kmeans-mixture8.md").read_text()
    assert "| aborted (exit 134)" in text
    assert "| missing: pip install fastkmeans" in text


def test_every_engine_finds_the_inertia_of_plain_lloyd(record):
    x = mixture(SIZES["rows"], 8)
    centers = lloyd(x, first_centers(x, SIZES["clusters"]), SIZES["iterations"]).centers
    expected = assign(x, centers)[1].sum()
    measured = [row for row in record["rows"] if "problem" not in row]
    engines = {"ktfast", "sklearn", "torch", "numpy"} | ({"faiss"} if find_spec("faiss") else set())
    assert {row["engine"] for row in measured} == engines
    for row in measured:
        # Centres in float32 move the sum by their rounding's square only; sums of faiss and torch
        # in float32 by some 1e-7 of their size.
        assert row["inertia"] == pytest.approx(expected, rel=1e-6), row["engine"]
        assert row["iterations"] == SIZES["iterations"]


def test_a_row_says_what_it_took(record):
    row = row_of(record, "sklearn")
    assert len(row["seconds"]) == len(row["cpu_seconds"]) == SIZES["repeats"]
    each = np.array(row["seconds"]) / SIZES["iterations"]
    assert row["seconds_per_iteration"] == pytest.approx(np.median(each))
    assert row["range"] == pytest.approx([each.min(), each.max()])
    ours = row_of(record, "ktfast")["seconds_per_iteration"]
    assert row["ratio"] == pytest.approx(row["seconds_per_iteration"] / ours)
    flops = 2 * 400 * 6 * 8 / row["seconds_per_iteration"]
    assert row["flops"] == pytest.approx(flops)
    assert row["share_of_peak"] == pytest.approx(flops / record["peaks"]["fp32"])
    assert row["peak_rss"] >= row["idle_rss"] > row["data_bytes"] == 400 * 8 * 4
    assert row["version"] == sklearn.__version__


def test_the_plots_are_saved(outcome, record):
    assert len(row_of(record, "ktfast")["history"]) == SIZES["iterations"]
    for name in ("kmeans-mixture8", "kmeans-mixture8-falling"):
        assert (outcome / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (outcome / f"{name}.svg").read_text()


class Rows:
    """Stands in for run_row: engines whose time per row and core type is given."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.calls = []

    def __call__(self, target, arguments, *, threads, environment=None, timeout=600):
        if target.endswith("peaks"):
            return {"fp32": 1e11}
        problem = Problem(*arguments["problem"])
        core = (environment or {}).get("OPENBLAS_CORETYPE", AS_INSTALLED)
        self.calls.append((arguments["engine"], core, problem.rows))
        took = self.seconds[core]
        if isinstance(took, str):
            return {"problem": took}
        return {"seconds": [took * problem.rows * problem.iterations], "iterations": 3}


def comparison(monkeypatch, seconds, rows=800):
    monkeypatch.setattr(kmeans, "run_row", Rows(seconds))
    monkeypatch.setattr(kmeans.modules, "simd_level", lambda: "avx512")
    x = mixture(rows, 4)
    return kmeans.Comparison(x, 5, Problem("nowhere", rows, 3, 1, 1, 1.0), timeout=9)


@pytest.mark.parametrize(
    ("seconds", "settings"),
    [
        ({AS_INSTALLED: 1.0, "SkylakeX": 0.5, "Haswell": 0.7}, [AS_INSTALLED, "SkylakeX"]),
        ({AS_INSTALLED: 1.0, "SkylakeX": 0.8, "Haswell": 0.7}, [AS_INSTALLED, "Haswell"]),
        ({AS_INSTALLED: 1.0, "SkylakeX": 0.99, "Haswell": 2.0}, [AS_INSTALLED]),
        ({AS_INSTALLED: 1.0, "SkylakeX": "aborted (exit 132)", "Haswell": 0.7},
         [AS_INSTALLED, "Haswell"]),
        ({AS_INSTALLED: "missing: pip install faiss-cpu"}, [AS_INSTALLED]),
    ],
)  # fmt: skip
def test_openblas_runs_as_installed_and_at_its_best(seconds, settings, monkeypatch):
    assert comparison(monkeypatch, seconds)._settings("faiss") == settings


def test_engines_without_openblas_have_one_setting(monkeypatch):
    compared = comparison(monkeypatch, {})
    assert compared._settings("torch") == compared._settings("ktfast") == [AS_INSTALLED]
    assert kmeans.run_row.calls == []


def test_cost_against_rows_is_told_as_a_ratio(monkeypatch):
    compared = comparison(monkeypatch, {AS_INSTALLED: 0.01})
    row = {"engine": "ktfast", "setting": AS_INSTALLED, "seconds_per_iteration": 2 * 0.01 * 800}
    points = list(compared.scaling([row]))
    assert [point["n"] for point in points] == [100, 200, 400, 800]
    line = kmeans_report.scaling_table(points).splitlines()[-1]
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        "ktfast", "1.0000", "2.0000", "4.0000", "16.0000", "2.00"
    ]  # fmt: skip


def test_skipped_distances_are_shown_where_they_are_known():
    history = [{"seconds": 0.5, "skipped": 0.0}, {"seconds": 0.25, "skipped": 0.875}]
    assert kmeans_report.history_table(history).splitlines()[-1].split("|")[3].strip() == "87.5 %"
    plain = kmeans_report.history_table([{"seconds": 0.5}])
    assert "skipped" not in plain


def test_centres_that_are_not_finite_are_a_failure(monkeypatch, tmp_path):
    compared = comparison(monkeypatch, {})
    compared.problem = compared.problem._replace(folder=str(tmp_path))
    np.save(tmp_path / "centers.npy", np.full((5, 4), np.nan, np.float32))
    row = compared._finished("faiss", AS_INSTALLED, {"seconds": [1.0], "iterations": 3})
    assert row["problem"] == "failed: its centres are not finite"


def test_without_ktfast_there_is_no_ratio(monkeypatch, tmp_path):
    compared = comparison(monkeypatch, {})
    compared.problem = compared.problem._replace(folder=str(tmp_path))
    np.save(tmp_path / "centers.npy", compared.x[:5])
    result = {"seconds": [1.0], "cpu_seconds": [1.0], "iterations": 3}
    monkeypatch.setattr(
        compared, "_run", lambda name, *_: {"problem": "x"} if name == "ktfast" else result
    )
    rows = list(compared.rows(["torch", "sklearnex"]))
    assert [row.get("ratio") for row in rows] == [None, None, None]
    assert rows[1]["seconds_per_iteration"] == pytest.approx(1 / 3)


def test_a_failed_row_of_ktfast_is_an_exit_status(monkeypatch, tmp_path):
    compared = comparison(monkeypatch, {AS_INSTALLED: "failed: no reason"})
    arguments = ["bench", "kmeans", "--data", "mixture8", "--against", "", "--out", str(tmp_path)]
    for name, value in SIZES.items():
        arguments += [f"--{name}", str(value)]
    assert main(arguments) == 1
    assert "failed: no reason" in (tmp_path / "kmeans-mixture8.md").read_text()
    rows = list(compared.rows([]))
    assert kmeans.own_row_failed(rows)
    assert not kmeans.own_row_failed([dict(rows[0], engine="torch"), {"engine": "ktfast"}])


# --- data -----------------------------------------------------------------------------------------
def test_a_mixture_is_always_the_same():
    x = load("mixture16", 50)
    assert x.shape == (50, 16)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, mixture(50, 16))
    assert x.std(0)[0] > 2 * x.std(0)[-1]  # the spectrum decays


def test_whitened_data_have_uncorrelated_coordinates(tmp_path):
    np.save(tmp_path / "x.npy", mixture(3000, 12))
    x = load(f"{tmp_path / 'x.npy'}:whitened", 2000)
    assert x.shape == (2000, 12)
    np.testing.assert_allclose(np.cov(x.T), np.eye(12), atol=1e-3)
    assert load("mixture300:whitened", 500).shape == (500, 256)


def test_vectors_are_read_from_every_kind_of_source(tmp_path, rng):
    x = rng.integers(0, 255, (30, 2, 3)).astype(np.uint8)
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(30))
    np.save(tmp_path / "a.npy", x.reshape(30, 6))
    writer = FeatureWriter(tmp_path / "features", dim=6, dtype="float32", shard_rows=7)
    writer.append(x.reshape(30, 6), np.arange(30))
    writer.close()
    for name in ("a.npz", "a.npy", "features"):
        loaded = load(str(tmp_path / name), 20)
        assert loaded.dtype == np.float32
        np.testing.assert_array_equal(loaded, x.reshape(30, 6)[:20], err_msg=name)
        assert len(load(str(tmp_path / name))) == 30


def test_the_real_vectors_are_read(data_folder):
    x = load(str(data_folder / "vectors" / "mnist_70k_uint8.npz"), 1000)
    assert x.shape == (1000, 784)
    assert 0 < x.mean() < 255


def test_unusable_data_are_refused(tmp_path):
    np.savez(tmp_path / "two.npz", a=np.ones((3, 2)), b=np.ones((4, 2)))
    (tmp_path / "broken.npz").write_bytes(b"PK not a zip")
    np.save(tmp_path / "few.npy", np.ones((3, 2), np.float32))
    with pytest.raises(DataError, match=r"one array of vectors .* a \[3, 2\], b \[4, 2\]"):
        load(str(tmp_path / "two.npz"))
    with pytest.raises(DataError, match=r"broken\.npz cannot be read as a \.npz file"):
        load(str(tmp_path / "broken.npz"))
    with pytest.raises(InputError, match="has 3 rows, 5 were asked for"):
        load(str(tmp_path / "few.npy"), 5)
    with pytest.raises(InputError, match="neither mixtureD"):
        load("mixtures")
    with pytest.raises(InputError, match="at least 1 feature"):
        load("mixture0")
    with pytest.raises(InputError, match=r"1 \.\. 3 \(the rows\), got 4"):
        first_centers(load(str(tmp_path / "few.npy")), 4)


def test_clusters_follow_the_data():
    assert default_clusters("mixture256", 100_000) == 2000
    assert default_clusters("mixture512", 100_000) == 1000
    assert default_clusters("mnist.npz", 70_000) == 1000
    assert default_clusters("few.npy", 100) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--against", "faiss,cuml"], "--against cuml: the peers are faiss, sklearn"),
        (["--data", "nowhere.npy"], "data nowhere.npy: neither mixtureD"),
    ],
)
def test_bad_options_are_one_sentence(arguments, message, capsys):
    assert main(["bench", "kmeans", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"ktfast: {message}")


def test_numbers_must_be_positive(capsys):
    with pytest.raises(SystemExit):
        main(["bench", "kmeans", "--rows", "0"])
    assert "must be at least 1, got 0" in capsys.readouterr().err
