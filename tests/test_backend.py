"""Which GPU is current while an op works, and how many threads it uses."""

import contextlib
import os
import sys
import types

import numpy as np
import pytest
import torch

from ktfast import _backend
from ktfast.ops import kmeans_assign, kmeans_update

needs_two_gpus = pytest.mark.skipif(
    not _backend.has_cuda() or torch.cuda.device_count() < 2, reason="fewer than two CUDA devices"
)


def test_on_device_leaves_the_cpu_alone():
    for array in (np.zeros(2), torch.zeros(2)):
        assert isinstance(_backend.on_device(array), contextlib.nullcontext)


def fake_gpu_array(library, index):
    """An array that its type and attributes make one of `library` on a GPU."""
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
    with _backend.on_device(fake_gpu_array(library, 1)):
        events.append("inside")
    assert events == [1, "inside", "restored"]


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
    assert _backend.n_threads(None if variable else 100_000) == most
    assert _backend.n_threads(3) == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "2,1")
    assert _backend.n_threads() == 2
