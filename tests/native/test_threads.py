"""Threads of the kernels: forks, limits from outside, quotas of containers."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import threadpoolctl

from ktfast.cli import doctor
from ktfast.native import threads
from ktfast.native.quota import read_quota

# The process does OpenMP work with another library, and starts threads of ktfast's own.
WORK = """
import ctypes, hashlib, os, sys
import numpy as np, torch
import ktfast
from ktfast.ops import jigsaw_tiles, kmeans_assign

x = np.random.default_rng(0).normal(size=(3000, 40)).astype(np.float32)
images = np.random.default_rng(0).integers(0, 256, size=(8, 96, 96, 3), dtype=np.uint8)
permutations = np.array([[0, 1, 2, 3], [3, 2, 1, 0]], dtype=np.int32)


def work(_=None):
    model = ktfast.KMeans(70, random_state=0, max_iter=4, n_threads=2).fit(x)
    labels, distances = kmeans_assign(x, x[:200], n_threads=2)
    tiles, _ = jigsaw_tiles(
        images, permutations, sample_ids=range(8), seed=0, epoch=0, tile_size=32, n_threads=2
    )
    found = (model.labels_, model.cluster_centers_, labels, distances, tiles)
    return hashlib.sha256(b"".join(np.asarray(a).tobytes() for a in found)).hexdigest()


torch.randn(500, 500) @ torch.randn(500, 500)
"""
FORKS = {
    "fork": """
reading, writing = os.pipe()
if os.fork() == 0:
    os.write(writing, work().encode())
    os._exit(0)
child = os.read(reading, 64).decode()
""",
    "fork of C": """
reading, writing = os.pipe()
if ctypes.PyDLL(None).fork() == 0:
    os.write(writing, work().encode())
    os._exit(0)
child = os.read(reading, 64).decode()
""",
    "DataLoader": """
from torch.utils.data import DataLoader


class Work:
    __getitem__ = lambda self, i: work()
    __len__ = lambda self: 1


(child,) = DataLoader(Work(), batch_size=None, num_workers=1, multiprocessing_context="fork")
""",
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
@pytest.mark.parametrize(
    ("how", "before"), [("fork", ""), ("fork of C", "work()"), ("DataLoader", "")]
)
def test_a_forked_child_finishes_with_the_same_bits(how, before):
    script = f"{WORK}\n{before}\n{FORKS[how]}\nassert child == work(), child\n"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", script], check=True, timeout=100, env=environment)


def test_threadpoolctl_limits_the_threads():
    for api in (None, "openmp"):
        with threadpoolctl.threadpool_limits(1, user_api=api):
            assert threads.thread_limit() in (1, None)  # one processor: no limit is needed
            assert threads.n_threads(8) == (1 if os.cpu_count() > 1 else 8)
        assert threads.thread_limit() is None
        assert threads.n_threads(8) == 8
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        assert threads.n_threads(8) == 8
    assert "ktfast" in {row["internal_api"] for row in threadpoolctl.threadpool_info()}


def test_without_an_affinity_every_core_counts(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # as on macOS
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    monkeypatch.setattr(threads, "quota_cores", lambda: None)
    assert threads.usable_cores() == 6


def test_the_quota_of_a_container_bounds_the_threads(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "quota_cores", lambda: 1)
    assert threads.usable_cores() == threads.n_threads() == 1
    monkeypatch.setattr(threads, "quota_cores", lambda: 10_000)
    assert threads.usable_cores() < 10_000


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/", {}, None),
        ("0::/", {"cpu.max": "max 100000\n"}, None),
        ("0::/", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/", {"cpu.max": "1000 100000\n"}, 1),
        ("0::/", {"cpu.max": "broken"}, None),
        ("0::/pod/box", {"pod/box/cpu.max": "max 100000", "pod/cpu.max": "300000 100000"}, 3),
        ("0::/../..", {"cpu.max": "100000 100000"}, 1),
        ("4:memory:/\n3:cpu,cpuacct:/box", {}, None),
        (
            "4:memory:/\n3:cpu,cpuacct:/box",
            {
                "cpu,cpuacct/box/cpu.cfs_quota_us": "250000\n",
                "cpu,cpuacct/box/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        ("", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("", {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
    ],
)
def test_quotas_of_both_versions_of_control_groups(own, files, expected, tmp_path):
    for name, text in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "own").write_text(own)
    assert read_quota(tmp_path / "own", tmp_path / "groups") == expected
    assert read_quota(tmp_path / "missing", tmp_path / "nowhere") is None


def test_doctor_describes_the_threads(monkeypatch):
    monkeypatch.setattr(doctor, "quota_cores", lambda: 3)
    (found,) = (finding for finding in doctor.examine() if finding.name == "CPU threads")
    assert "of ktfast's own (no OpenMP)" in found.detail
    assert "CPU quota allows 3" in found.detail
    assert "sleeps" in found.detail


def test_without_memory_for_threads_the_caller_does_their_work(tmp_path):
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("the program needs g++")
    root, program = Path(__file__).parents[2], tmp_path / "short_of_memory"
    sources = root / "tests/support/short_of_memory.cpp", root / "csrc/common/parallel.cpp"
    flags = ["-std=c++17", "-pthread", "-I", root / "csrc"]
    subprocess.run([compiler, *flags, *sources, "-o", program], check=True)
    done = subprocess.run([program], capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, b"75\n")


def test_overlapping_blocks_restore_the_threads_of_blas():
    """Two Python threads begin and end their blocks in turn: a begins, b begins, a ends, b ends."""

    def count():
        return [found["num_threads"] for found in blas.info()]

    blas = threadpoolctl.ThreadpoolController().select(user_api="blas")
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        before = count()
        first, second = threads.one_blas_thread(), threads.one_blas_thread()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        inside = count()
        second.__exit__(None, None, None)
        assert inside == [1] * len(before)
        assert count() == before == [2] * len(before)
