"""Fixtures that several tests share."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulated_cuda import EmulatedCuda, build

from ktfast import _backend

# A shell that starts the tests in the background has them ignore Ctrl-C, and so their children:
# tests that send it need Python's own handler.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
    """A generator that starts the same in every test."""
    return np.random.default_rng(20180618)


class Backend:
    """Where an op is tested: NumPy arrays on the CPU, or torch tensors on a GPU."""

    def __init__(self, name: str) -> None:
        self.name = name

    def array(self, values: Any) -> Any:
        """Bring a NumPy array to the backend."""
        if self.name == "cpu":
            return values
        import torch

        return torch.tensor(values, device="cuda")

    def numpy(self, array: Any) -> np.ndarray:
        """Bring an op's output back."""
        return array if self.name == "cpu" else array.cpu().numpy()


@pytest.fixture(params=["cpu", "cuda"])
def backend(request: pytest.FixtureRequest) -> Backend:
    """Every backend in turn; cuda skips where there is no device."""
    if request.param == "cuda" and not _backend.has_cuda():
        pytest.skip("no CUDA device, or a build without CUDA")
    return Backend(request.param)


@pytest.fixture(scope="session")
def emulated_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The CUDA kernels compiled for the emulation on a CPU."""
    return build(tmp_path_factory.mktemp("emulated_cuda"))


@pytest.fixture(params=range(3), ids="seed{}".format)
def emulated(emulated_library: Path, request: pytest.FixtureRequest) -> EmulatedCuda:
    """The emulated device, under several orders of its threads."""
    device = EmulatedCuda(emulated_library)
    device.set(request.param)
    return device
