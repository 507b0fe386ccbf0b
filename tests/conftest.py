"""Fixtures that several tests share."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before NumPy and torch start their threads: the processes of `pytest -n` share the cores.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    share = len(os.sched_getaffinity(0)) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, share)))

# Python puts the working directory before the installed packages, also in child processes of the
# tests. In a checkout, a child would then import the sources, which lack the compiled modules.
os.environ.setdefault("PYTHONSAFEPATH", "1")

import numpy as np
import pytest

from emulation.cuda.device import EmulatedCuda, build
from ktfast.kmeans.assignment.screen import Outlook
from ktfast.native import modules
from support.shared_build import built_once

# A process that a shell starts in the background ignores Ctrl-C, nohup ignores SIGHUP, and so do
# their children. Tests that send these signals need Python's own handlers.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--emulated-gpu",
        action="store_true",
        help="without a GPU, run the cuda variants of K-means' tests on the emulated GPU",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files of the longest time limits, so that no process ends with one of them."""
    limits: dict[Path, float] = {}
    for item in items:
        marker = item.get_closest_marker("timeout")
        limits[item.path] = max(limits.get(item.path, 0), marker.args[0] if marker else 0)
    items.sort(key=lambda item: -limits[item.path])


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data sets: KTFAST_TEST_DATA, or `shared/data` beside the checkout."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("KTFAST_TEST_DATA") or beside)
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; set KTFAST_TEST_DATA")
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with the same seed in every test."""
    return np.random.default_rng(20180618)


@pytest.fixture
def early_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """K-means keeps distance bounds from the second pass on, even if they do not save time."""
    monkeypatch.setattr(Outlook, "bounds_pay", lambda *_: True)


class Backend:
    """The arrays that an op is tested with: NumPy arrays, or torch tensors on a GPU."""

    def __init__(self, name: str) -> None:
        self.name = name

    def array(self, values: Any) -> Any:
        """Copy a NumPy array to the backend."""
        if self.name == "cpu":
            return values
        import torch

        return torch.tensor(values, device="cuda")

    def numpy(self, array: Any) -> np.ndarray:
        """Copy an op's output to a NumPy array."""
        return array if self.name == "cpu" else array.cpu().numpy()


@pytest.fixture
def gpu(request: pytest.FixtureRequest) -> None:
    """A CUDA device: a real one if there is one, else the emulated GPU.

    The emulated GPU serves tests with the marker `emulated_gpu`, and all tests if the option
    `--emulated-gpu` is given. Other tests are skipped.
    """
    if modules.has_cuda():
        return
    marked = request.node.get_closest_marker("emulated_gpu") is not None
    if not (marked or request.config.getoption("emulated_gpu")):
        pytest.skip("no CUDA device, or a build without CUDA")
    request.getfixturevalue("emulated_gpu")


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> str:
    """Each device for an estimator with rows on the host; cuda skips without a device."""
    if request.param == "cuda":
        request.getfixturevalue("gpu")
    return request.param


@pytest.fixture(params=["cpu", "cuda"])
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each backend; cuda skips without a device."""
    if request.param == "cuda":
        request.getfixturevalue("gpu")
    return Backend(request.param)


@pytest.fixture(scope="session")
def emulated_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The CUDA kernels, compiled for the emulation on the CPU.

    A session on a GPU sets KTFAST_TEST_NO_EMULATION, because its time is for the GPU.
    """
    if os.environ.get("KTFAST_TEST_NO_EMULATION"):
        pytest.skip("KTFAST_TEST_NO_EMULATION is set")
    return built_once(tmp_path_factory, "emulated_cuda", build)


@pytest.fixture(params=range(3), ids="seed{}".format)
def emulated(emulated_library: Path, request: pytest.FixtureRequest) -> EmulatedCuda:
    """The emulated device with several orders of its threads."""
    device = EmulatedCuda(emulated_library)
    device.set(request.param)
    return device


@pytest.fixture
def emulated_gpu(emulated_library: Path) -> Iterator[Any]:
    """For K-means, torch's device "cuda" is the emulated GPU; yields the GPU's functions."""
    from emulation.cuda.gpu import use_emulated_gpu  # needs torch

    device = EmulatedCuda(emulated_library)
    device.set(seed=6)  # a block at a time: the fastest order
    with use_emulated_gpu(device) as module:
        yield module
