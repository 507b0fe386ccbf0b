"""A run that is killed, or whose disk fails, at any moment ends like one that is left alone."""

import errno
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from support.small_pipeline import IGNORED, Server, leftovers, results, write_inputs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
SUPPORT = Path(__file__).parents[1] / "support"
KILLS = int(os.environ.get("KTFAST_TEST_KILLS", "60"))
# Every k-th call site of the run gets a fault; 1 takes three times as long.
EVERY = int(os.environ.get("KTFAST_TEST_FAULTS_EVERY", "3"))


@pytest.fixture(scope="module")
def faults(tmp_path_factory):
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("the library of faults needs g++")
    library = tmp_path_factory.mktemp("faults") / "libfaults.so"
    flags = ["-std=c++17", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler, *flags, SUPPORT / "faults.cpp", "-o", library, "-ldl"], check=True)
    return library


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    return folder, write_inputs(folder)


@pytest.fixture(scope="module")
def server(faults, inputs):
    folder, arguments = inputs
    server = Server(faults, arguments, folder / "whole")
    yield server
    server.close()


@pytest.fixture(scope="module")
def whole(server, inputs):
    """The results of a run that nothing interrupts."""
    return results(inputs[0] / "whole")


def check_finished(server, arguments, run, whole):
    assert server.run(arguments, run) == 0, Path(f"{run}.txt").read_text()
    assert results(run) == whole
    assert leftovers(run) == []


def test_killed_at_random_moments_it_ends_with_the_same_results(server, inputs, whole, tmp_path):
    """Half of the kills hit a call that changes a file, half hit any moment."""
    chance, kills, chain = random.Random(0), 0, 0
    while kills < KILLS:
        run, code = tmp_path / str(chain), -9
        chain += 1
        while code == -9 and kills < KILLS:
            if kills % 2:
                fault = {"kill_after": chance.uniform(0, 1)}
            else:
                fault = {"at": chance.randint(1, 120)}
            code = server.run(inputs[1], run, **fault)
            assert code in (0, -9), Path(f"{run}.txt").read_text()
            kills += code == -9
        check_finished(server, inputs[1], run, whole)


def sites_of(server, arguments, folder):
    """Every call that changes a file of the run, by kind and path, in the order of the run."""
    trace = folder / "trace"
    assert server.run(arguments, folder / "traced", trace=str(trace)) == 0
    return list(dict.fromkeys(trace.read_text().splitlines()))


def test_where_the_disk_fails_the_run_stops_and_later_goes_on(server, inputs, whole, tmp_path):
    sites = sites_of(server, inputs[1], tmp_path)
    assert len(sites) > 150
    run, failed = tmp_path / "run", 0
    for number, site in enumerate(sites[::EVERY]):
        code = (errno.ENOSPC, errno.EIO)[number % 2]
        lasting = number % 4 >= 2
        ended = server.run(inputs[1], run, site=site, at=1, code=code, lasting=lasting)
        log = Path(f"{run}.txt").read_text()
        assert ended in (0, 1, IGNORED), (site, log)
        assert "Traceback" not in log, (site, log)
        failed += ended == 1
        if ended == IGNORED:
            assert site == "write log.txt"
        if ended in (1, IGNORED):
            assert os.strerror(code) in log
        if ended != 1:  # the run is finished, so no later call would happen
            shutil.rmtree(run)
    assert failed > len(sites[::EVERY]) / 2
    check_finished(server, inputs[1], run, whole)
