"""The current GPU during an op, the number of threads, and GPUs that the build cannot use."""

import contextlib
import os
import sys
import types

import numpy as np
import pytest
import torch

from ktfast import KMeans
from ktfast.native import arrays, modules, threads
from ktfast.ops import kmeans_assign, kmeans_update

needs_two_gpus = pytest.mark.skipif(
    not modules.has_cuda() or torch.cuda.device_count() < 2, reason="fewer than two CUDA devices"
)


def test_on_device_leaves_the_cpu_alone():
    for array in (np.zeros(2), torch.zeros(2)):
        assert isinstance(arrays.on_device(array), contextlib.nullcontext)


def fake_gpu_array(library, index):
    """An object that looks like an array of `library` on a GPU."""
    kind = type("Tensor" if library == "torch" else "ndarray", (), {"__module__": library})
    array = kind()
    array.device = types.SimpleNamespace(type="cuda", index=index, id=index)
    return array


@pytest.mark.parametrize(("library", "context"), [("torch", "device"), ("cupy", "Device")])
def test_on_device_makes_the_gpu_of_the_array_current(library, context, monkeypatch):
    events = []

    @contextlib.contextmanager
    def current(index):
        events.append(index)
        yield
        events.append("restored")

    cuda = types.SimpleNamespace(**{context: current})
    monkeypatch.setitem(sys.modules, library, types.SimpleNamespace(cuda=cuda))
    with arrays.on_device(fake_gpu_array(library, 1)):
        events.append("inside")
    assert events == [1, "inside", "restored"]


def test_cupy_copies_on_the_gpu_that_holds_the_array(monkeypatch):
    current, copied_on = [0], []

    @contextlib.contextmanager
    def entered(index):
        current.append(index)
        yield
        current.pop()

    cupy = types.SimpleNamespace(
        cuda=types.SimpleNamespace(Device=entered),
        ascontiguousarray=lambda array, dtype: copied_on.append(current[-1]),
    )
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    arrays.contiguous(fake_gpu_array("cupy", 1), "float32")
    assert copied_on == [1]


@needs_two_gpus
def test_ops_work_on_a_gpu_that_is_not_current():
    x = torch.randn(50, 5, device="cuda:1")
    with torch.cuda.device(0):
        labels, distances = kmeans_assign(x, x[:3])
        sums, _ = kmeans_update(x, labels, 3)
        assert torch.cuda.current_device() == 0
    assert {t.device.index for t in (labels, distances, sums)} == {1}
    assert labels.tolist() == kmeans_assign(x.cpu(), x[:3].cpu())[0].tolist()


@pytest.mark.parametrize("variable", [None, "100000"])
def test_threads_are_bounded(variable, monkeypatch):
    most = max(64, len(os.sched_getaffinity(0)))
    if variable:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    assert threads.n_threads(None if variable else 100_000) == most
    assert threads.n_threads(3) == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "2,1")
    assert threads.n_threads() == 2


@pytest.mark.parametrize(
    ("architectures", "capability", "expected"),
    [
        ("75-real 80-real 90-real 100-real 120", 75, True),
        (
            "75-real 80-real 90-real 100-real 120",
            70,
            False,
        ),  # older than all
        (
            "75-real 80-real 90-real 100-real 120",
            89,
            True,
        ),  # machine code of the same major version
        ("80-real", 75, False),
        ("80-real", 90, False),
        ("86-real", 80, False),
        ("80", 90, True),  # compiled from the intermediate code
        ("80-virtual", 120, True),
        ("90a-real", 90, True),
        ("90a-real", 100, False),
        ("90a", 100, False),
        ("80-real 90a-real", 86, True),
        ("100f-real", 103, True),
        ("100f", 120, False),
        ("", 90, False),
        ("native", 90, True),  # names that CMake has not resolved
        ("all", 75, True),
        ("all-major", 120, True),
    ],
)
def test_which_devices_a_build_has_code_for(architectures, capability, expected):
    assert modules.covers(architectures, capability) is expected


@pytest.fixture
def foreign_gpu(monkeypatch):
    """A build with CUDA that has no code for the machine's GPU."""
    module = types.SimpleNamespace(
        device_count=lambda: 1, compute_capability=lambda index: 90, architectures="80-real"
    )
    monkeypatch.setattr(modules, "cuda_module", lambda: module)
    return module


def test_a_gpu_without_code_is_no_usable_gpu(foreign_gpu):
    message = (
        r"no code for CUDA device 0 \(compute capability 9.0\), only for 80-real; .*CUDAARCHS=90"
    )
    assert not modules.has_cuda()
    with pytest.raises(RuntimeError, match=message):
        modules.cuda()
    with pytest.raises(RuntimeError, match=message):
        modules.native_of(fake_gpu_array("torch", 0))
    with pytest.raises(RuntimeError, match=message):
        KMeans(2, device="cuda").fit(np.zeros((4, 2)))
    foreign_gpu.architectures = "80"
    assert modules.has_cuda()
    assert modules.cuda() is foreign_gpu
    with pytest.raises(ValueError, match="cuda:1 was asked for, but there are 1 CUDA devices"):
        KMeans(2, device="cuda:1").fit(np.zeros((4, 2)))


def test_a_gpu_whose_memory_no_library_holds(foreign_gpu, monkeypatch):
    foreign_gpu.architectures = "80"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(RuntimeError, match="neither torch with CUDA nor CuPy is installed"):
        KMeans(2, device="cuda").fit(np.zeros((4, 2)))


@pytest.mark.skipif(modules.has_cuda(), reason="there is a CUDA device")
def test_without_a_gpu_it_is_said():
    with pytest.raises(RuntimeError, match=r"no CUDA module|no usable CUDA device"):
        KMeans(2, device="cuda").fit(np.zeros((4, 2)))
