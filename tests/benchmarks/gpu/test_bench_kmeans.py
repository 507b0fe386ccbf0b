"""benchmarks/gpu/bench_kmeans.py on the CPU: the same engines and the same table."""

import argparse
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import bench_kmeans  # noqa: E402
import engines  # noqa: E402
import peak  # noqa: E402
from data import BLOCK_ROWS, inertia, make  # noqa: E402
from engines import ENGINES, Problem, measure  # noqa: E402
from memory import DeviceMemory  # noqa: E402

from ktfast.errors import InputError  # noqa: E402
from ktfast.reference.kmeans import assign, lloyd  # noqa: E402

N, D, K, STEPS = 500, 8, 6, 3
PROBLEM = Problem("mixture8", N, K, STEPS, 2, 5.0, "cpu")
TORCH = ("torch-fp32", "torch-tf32", "torch-bf16", "torch-host")


def options_of(*arguments):
    parser = argparse.ArgumentParser()
    bench_kmeans.add_options(parser)
    return parser.parse_args(["--device", "cpu", *map(str, arguments)])


def expected_inertia():
    data = make("mixture8", N, K, "cpu")
    centers = lloyd(data.x.numpy(), data.start.numpy(), STEPS).centers
    return assign(data.x.numpy(), centers)[1].sum()


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """What a run leaves in its folder, with a peer that is not there."""
    fakes, out = tmp_path_factory.mktemp("peers"), tmp_path_factory.mktemp("out")
    (fakes / "cuvs.py").write_text("raise ModuleNotFoundError(name='cuvs')\n")
    arguments = [
        "--device", "cpu", "--against", "cuvs", "--data", "mixture8", "--rows", N, "--clusters", K,
        "--iterations", STEPS, "--repeats", 2, "--out", out,
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(fakes)
        assert bench_kmeans.main(list(map(str, arguments))) == 0
    return out


def test_the_table_names_what_is_missing(outcome):
    record = json.loads((outcome / "kmeans-gpu-mixture8.json").read_text())
    rows = {row["engine"]: row for row in record["rows"]}
    assert rows["cuvs"]["problem"] == "missing: pip install cuvs-cu13"
    text = (outcome / "kmeans-gpu-mixture8.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("|")]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert table[0] == list(bench_kmeans.COLUMNS)
    assert [cells[0] for cells in table[2:]] == list(rows)
    assert all(len(cells) == len(table[0]) for cells in table)
    assert "- cuvs" not in text  # it has no note


def test_ktfast_finds_the_inertia_of_plain_lloyd(outcome):
    record = json.loads((outcome / "kmeans-gpu-mixture8.json").read_text())
    row = next(row for row in record["rows"] if row["engine"] == "ktfast")
    assert row["inertia"] == pytest.approx(expected_inertia(), rel=1e-6)
    assert row["iterations"] == len(row["history"]) == STEPS
    assert row["ratio"] == 1


def test_what_follows_from_the_times(monkeypatch):
    """Ratios are to ktfast, also beside a peer that aborted."""
    found = {
        "ktfast": {"seconds": [0.4, 0.2, 0.3], "iterations": 2},
        "torch-fp32": {"seconds": [0.9], "iterations": 3},
        "flash-kmeans": {"problem": "aborted (exit 134)"},
    }

    def run_row(target, arguments, *, threads, timeout):
        assert target.endswith(":measure")
        assert Problem(*arguments["problem"]) == PROBLEM
        return found[arguments["engine"]]

    monkeypatch.setattr(bench_kmeans, "run_row", run_row)
    peaks = {"bfloat16": 1e6}
    rows = list(bench_kmeans.measured(found, PROBLEM, peaks, timeout=9.0))
    assert [row.get("problem") for row in rows] == [None, None, "aborted (exit 134)"]
    assert [row.get("ratio") for row in rows] == [1, pytest.approx(2), None]
    assert rows[0]["range"] == [0.1, 0.2]
    assert rows[0]["flops"] == pytest.approx(2 * N * D * K / 0.15)
    assert rows[0]["share_of_peak"] == pytest.approx(rows[0]["flops"] / 1e6)


@pytest.mark.parametrize("engine", TORCH)
def test_plain_torch_runs_lloyd(engine):
    result = measure(engine, list(PROBLEM))
    # Scores in bfloat16 move a few rows that lie between centres.
    tolerance = 0.02 if engine == "torch-bf16" else 1e-6
    assert result["inertia"] == pytest.approx(expected_inertia(), rel=tolerance)
    assert len(result["seconds"]) == 2
    assert result["data_bytes"] == N * D * 4
    assert result["device_bytes"] is None


def test_chunks_do_not_change_what_torch_finds(monkeypatch):
    whole = ENGINES["torch-fp32"].fit(make("mixture8", N, K, "cpu"), STEPS).centers
    monkeypatch.setattr(engines, "_CHUNK_SCORES", 64 * K)
    parts = ENGINES["torch-fp32"].fit(make("mixture8", N, K, "cpu"), STEPS).centers
    torch.testing.assert_close(parts, whole)


def test_an_empty_cluster_keeps_its_centre():
    data = make("mixture8", N, K, "cpu")
    far = torch.full((1, D), 1e6)
    data = data._replace(start=torch.cat([data.start, far]))
    torch.testing.assert_close(ENGINES["torch-fp32"].fit(data, 2).centers[-1:], far)


def test_data_are_the_same_wherever_they_lie(tmp_path):
    here = make("mixture8", N, K, "cpu")
    there = make("mixture8", N, K, "cpu", on_host=True)
    torch.testing.assert_close(here.x, there.x, rtol=0, atol=0)
    torch.testing.assert_close(here.start, there.start, rtol=0, atol=0)
    assert here.x.std(0)[0] > 2 * here.x.std(0)[-1]  # the spectrum decays
    np.save(tmp_path / "a.npy", here.x.numpy())
    read = make(str(tmp_path / "a.npy"), N - 1, K, "cpu")
    torch.testing.assert_close(read.x, here.x[:-1], rtol=0, atol=0)
    longer = make("mixture2", BLOCK_ROWS + 3, K, "cpu").x
    assert torch.isfinite(longer).all()
    assert longer[-3:].abs().sum() > 0


def test_the_inertia_is_that_of_float64():
    data = make("mixture8", N, K, "cpu")
    distances = ((data.x[:, None].double() - data.start.double()) ** 2).sum(-1).min(1).values
    assert inertia(data, data.start) == pytest.approx(float(distances.sum()), rel=1e-12)


def test_without_a_gpu_the_script_says_so(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert bench_kmeans.main(["--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("bench_kmeans.py: --device cuda: torch sees no GPU")


def test_bad_options_are_refused():
    with pytest.raises(InputError, match="--against faiss: the peers are ktfast-fast"):
        bench_kmeans.run(options_of("--against", "faiss"))
    with pytest.raises(InputError, match=r"clusters must lie in 1 \.\. 5 \(the rows\), got 6"):
        bench_kmeans.problem_of("mixture8", options_of("--rows", 5, "--clusters", 6))


def test_gpu_defaults_are_of_the_size_that_papers_report():
    problem = bench_kmeans.problem_of("mixture256", options_of())
    assert (problem.rows, problem.clusters) == (1_280_000, 2000)


# --- ceilings -------------------------------------------------------------------------------------
def test_every_ceiling_is_measured():
    found = peak.peaks("cpu", small=True)
    assert {"float32", "bfloat16", "copy", "to device", "to host"} <= set(found)
    assert all(rate > 0 for rate in found.values())


def test_a_product_that_torch_lacks_is_left_out(monkeypatch):
    def lacking(*_):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(torch, "_int_mm", lacking)
    assert peak.product("int8", "cpu", small=True) == 0
    assert "int8" not in peak.peaks("cpu", small=True)


def test_memory_of_a_device_is_not_that_of_the_host():
    with DeviceMemory("cpu") as memory:
        torch.zeros(1000)
    assert memory.most is None
