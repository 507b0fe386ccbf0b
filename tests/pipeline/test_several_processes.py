"""Trainings with lanes, and runs, give the bits of one process on any number of processes."""

import contextlib
import json
import os
import shutil
import signal

import numpy as np
import pytest

from support.process_groups import LANES, Groups
from support.small_pipeline import leftovers, results, write_inputs
from support.toy_training import lasting, rows
from support.voc_folder import voc_folder

EXCHANGES = 100
"""Exchanges of data between two processes in the first three quarters of the small run."""


def contents(run):
    """The files of probes and tests, without the time; and the hashes of arrays and weights."""
    texts = {
        str(path.relative_to(run)): path.read_text()
        for name in ("evaluate/pr*.json", "evaluate/retrained-*.json", "voc/*/[rt]a*.json")
        for path in sorted(run.glob(name))
    }
    assert len(texts) > 6
    return texts, results(run)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """The arguments that name recipe and photographs."""
    return [*write_inputs(tmp_path_factory.mktemp("inputs")), *LANES]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folder of a run on one process, which `groups` makes."""
    return tmp_path_factory.mktemp("whole") / "run"


@pytest.fixture(scope="module")
def groups(inputs, whole):
    with contextlib.closing(Groups(inputs, whole)) as server:
        yield server


def test_lanes_give_the_bits_of_one_process(groups, tmp_path):
    def weights(folder, size):
        return [(tmp_path / folder / f"weights-{rank}").read_text() for rank in range(size)]

    def log(folder):
        return [lasting(row) for row in rows(tmp_path / folder)]

    parts = ({"folder": tmp_path / "parts"}, {"folder": tmp_path / "stopped"})
    assert groups.train(1, {"folder": tmp_path / "one"}) == [0]
    (expected,) = weights("one", 1)
    two = [
        {"folder": tmp_path / "two"},
        {**parts[0], "stop_after": 3},
        {**parts[1], "signalled": 1},
    ]
    assert groups.train(2, *two) == [0, 0]
    assert weights("two", 2) == [expected] * 2
    assert log("two") == log("one")
    # SIGTERM to process 1 saves and stops both.
    stopped, other = weights("stopped", 2)
    assert stopped.split() == [other.split()[0], str(int(signal.SIGTERM))]
    names = [path.name for path in (tmp_path / "stopped").glob("checkpoint-*")]
    assert names == ["checkpoint-3.safetensors"]
    # Another number of processes goes on from the checkpoints.
    assert groups.train(4, {"folder": tmp_path / "four"}, *parts) == [0] * 4
    for folder in ("four", "parts", "stopped"):
        assert weights(folder, 4) == [expected] * 4
        assert log(folder) == log("one")


def test_ddp_trains_on_all_and_names_their_number(groups, tmp_path):
    def parameters(folder, rank=0):
        with np.load(tmp_path / folder / f"parameters-{rank}.npz") as found:
            return np.concatenate([found[name].ravel() for name in found.files])

    plain = {"plain": True}
    single = [{"folder": tmp_path / "alone", "ddp": False, **plain}]
    single += [{"folder": tmp_path / "one", "ddp": True}]
    assert groups.train(1, *single) == [0]
    two = [{"folder": tmp_path / "plain", "ddp": True, **plain}]
    two += [{"folder": tmp_path / "two", "ddp": True}]
    parts = {"folder": tmp_path / "parts", "ddp": True}
    two += [{**parts, "stop_after": 3}, parts]
    assert groups.train(2, *two) == [0, 0]
    # Without dropout and batch-norm, only the order of the additions differs from one process.
    np.testing.assert_allclose(parameters("plain"), parameters("alone"), rtol=0, atol=1e-6)
    for folder in ("plain", "two", "parts"):
        np.testing.assert_array_equal(parameters(folder), parameters(folder, 1))
    assert not np.array_equal(parameters("two"), parameters("one"))
    np.testing.assert_array_equal(parameters("two"), parameters("parts"))
    assert (tmp_path / "two" / "sizes").read_text() == "[2]"
    # Another number of processes goes on, and the result names both.
    more = {"folder": tmp_path / "more", "ddp": True}
    assert groups.train(2, {**more, "stop_after": 2}) == [0, 0]
    assert groups.train(1, more) == [0]
    assert (tmp_path / "more" / "sizes").read_text() == "[1, 2]"


def test_a_run_on_two_processes_leaves_the_files_of_one(groups, inputs, whole, tmp_path):
    run, log = tmp_path / "run", tmp_path / "log"
    command = ["run", "--run", str(run), *inputs]
    assert groups.run(2, command, log) == [0, 0], log.read_text()
    assert results(run) == results(whole)
    assert leftovers(run) == []
    manifest = json.loads((run / "features" / "pretext" / "manifest.json").read_text())
    assert len(manifest["shards"]) > 2
    text = log.read_text()
    # With three processes, the two blocks of rows leave one process without rows.
    again = ["cluster", "--run", str(run), *inputs, "--redo", "cluster"]
    assert groups.run(3, again, log) == [0, 0, 0], log.read_text()
    assert results(run) == results(whole)
    assert text.count("report.html") == text.count("transfer: started") == 1  # rank 0 alone logs


def test_an_error_of_a_helper_ends_all_with_one_message(groups, inputs, tmp_path):
    log = tmp_path / "log"
    assert groups.run(2, ["run", "--run", str(tmp_path / "run"), *inputs], log, "error") == [2, 2]
    assert log.read_text().count("ktfast: the helper cannot help\n") == 1
    assert "Traceback" not in log.read_text()


def test_sigterm_to_a_helper_ends_all_with_143(groups, inputs, tmp_path):
    log = tmp_path / "log"
    codes = groups.run(2, ["run", "--run", str(tmp_path / "run"), *inputs], log, "SIGTERM")
    assert codes == [143, 143]
    assert "interrupted; the same command goes on from what was saved" in log.read_text()


def test_a_helper_that_is_killed_ends_all_with_one_message(groups, inputs, tmp_path):
    log = tmp_path / "log"
    codes = groups.run(2, ["run", "--run", str(tmp_path / "run"), *inputs], log, "SIGKILL")
    assert codes == [1, -signal.SIGKILL]
    assert log.read_text().count("ktfast: another process") == 1
    assert "Traceback" not in log.read_text()


def test_a_helper_that_hangs_ends_the_others_in_the_time_limit(groups, inputs, tmp_path):
    log = tmp_path / "log"
    codes = groups.run(2, ["run", "--run", str(tmp_path / "run"), *inputs], log, "SIGSTOP")
    assert codes == [1, -signal.SIGKILL]
    assert "ktfast: process 1 has given no sign of life for 2 s" in log.read_text()
    assert "Traceback" not in log.read_text()


def test_a_run_goes_on_from_a_kill_at_any_moment_with_another_number_of_processes(
    groups, inputs, whole, tmp_path
):
    """KTFAST_TEST_KILLS sets the number of moments, for a thorough trial."""
    moments, log = int(os.environ.get("KTFAST_TEST_KILLS", "2")), tmp_path / "log"
    exchanges = EXCHANGES
    if moments > 2:
        counting = {"rank": 1, "exchange": 0, "delay": 0, "count": tmp_path / "count"}
        command = ["run", "--run", str(tmp_path / "counted"), *inputs]
        assert groups.run(2, command, log, **counting) == [0, 0], log.read_text()
        exchanges = int((tmp_path / "count").read_text())
    for moment in range(moments):
        run, killed = tmp_path / f"run{moment}", moment % 2
        kill = {"rank": killed, "exchange": 1 + exchanges * moment // moments}
        command = ["run", "--run", str(run), *inputs]
        codes = groups.run(2, command, log, delay=0.02 * (moment % 5), **kill)
        assert codes[killed] == -signal.SIGKILL
        assert codes[1 - killed] == 1, log.read_text()
        size = 1 + moment // 2 % 2
        assert groups.run(size, command, log) == [0] * size, log.read_text()
        assert results(run) == results(whole)
        assert leftovers(run) == []
        shutil.rmtree(run)


@pytest.fixture(scope="module")
def probed(inputs, whole, tmp_path_factory):
    """Arguments of the stages evaluate and voc, with every kind of training that they know."""
    folder = voc_folder(tmp_path_factory.mktemp("voc"), n=4)
    return [
        *(*inputs, "--evaluate.baselines", "random", "--evaluate.protocols", "goyal"),
        *("--evaluate.layers", "conv1,conv2,conv3", "--evaluate.retrain", "conv2"),
        *("--evaluate.label_counts", "2", "--evaluate.label_draws", "2"),
        *("--voc.classification.folder", str(folder)),
        *("--voc.classification.train", "few", "--voc.classification.test", "other"),
        *("--voc.classification.training.epochs", "1", "--voc.models", "transfer,random"),
    ]


def test_probes_and_voc_on_two_processes_leave_the_files_of_one(groups, probed, whole, tmp_path):
    log, found = tmp_path / "log", []
    for size in (1, 2):
        run = tmp_path / f"run{size}"
        shutil.copytree(whole, run)
        for stage in ("evaluate", "voc"):
            command = [stage, "--run", str(run), *probed]
            assert groups.run(size, command, log) == [0] * size, log.read_text()
        metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        found.append((contents(run), [lasting(row) for row in metrics]))
        assert not list(run.glob("metrics-*"))
    assert found[0] == found[1]


def test_lanes_that_processes_cannot_share_are_refused_before_any_work(groups, inputs, tmp_path):
    run, log = tmp_path / "run", tmp_path / "log"
    assert groups.run(3, ["run", "--run", str(run), *inputs], log) == [2, 2, 2]
    (line,) = (line for line in log.read_text().splitlines() if line.startswith("ktfast: "))
    assert "pretext.training.lanes is 2, which 3 processes cannot share evenly" in line
    assert not (run / "prepare").exists()
