"""K-means on the emulated GPU, end to end: arrays of NumPy that count as a GPU's.

The kernels are the real ones, run by the emulation; `FakeDevice` stands for the memory.
"""

import sys

import numpy as np
from emulated_cuda import ELEMENTS
from emulated_kmeans_sums import EmulatedSums
from emulated_kmeans_tensor import EmulatedKernels
from fake_device import FakeDevice

from ktfast import _backend, kmeans_input

OPS = ("kmeans_assign", "kmeans_sums", "kmeans_tensor", "kmeans_update")


class EmulatedModule(EmulatedSums, EmulatedKernels):
    """What K-means needs of `_cuda`; `called` holds the names of the functions that ran."""

    def __init__(self, cuda):
        super().__init__(cuda)
        self.called = set()

    def __getattribute__(self, name):
        if name.startswith("kmeans"):
            self.called.add(name)
        return super().__getattribute__(name)

    def kmeans_prepared_size(self, *, n_clusters, n_features):
        return self.cuda.size("emulated_kmeans_prepared_size", n_clusters, n_features)

    def kmeans_update_workspace_size(self, *, n_rows, n_clusters):
        return self.cuda.size("emulated_kmeans_update_workspace_size", n_rows, n_clusters)

    def kmeans_prepare(self, *, centers, prepared, stream):
        self.cuda.call("emulated_kmeans_prepare", *centers.shape, centers, prepared)

    def kmeans_assign(self, *, x, centers, prepared, labels, distances, stream):
        kind = ELEMENTS.index(x.dtype.name)
        self.cuda.call(
            "emulated_kmeans_assign",
            *(len(x), *centers.shape, x, kind, centers, prepared, labels, distances),
        )

    def kmeans_update(self, *, x, labels, sample_weight, workspace, sums, counts, stream):
        kind = ELEMENTS.index(x.dtype.name)
        self.cuda.call(
            "emulated_kmeans_update",
            *(len(x), *sums.shape, x, kind, labels, sample_weight, workspace, sums, counts),
        )


class OnGpu(np.ndarray):
    """An array that the kernels of the emulated GPU work on."""


def on_gpu(array):
    """The same memory as an array on the emulated GPU."""
    return array.view(OnGpu)


class EmulatedDevice(FakeDevice):
    """Memory whose arrays are told from those of the host by their type."""

    def __init__(self):
        super().__init__()
        self.like = on_gpu(self.like)

    def _counted(self, array):
        return on_gpu(super()._counted(array))


def use_emulated_gpu(monkeypatch, emulated):
    """Let `device="cuda"` be the emulated GPU; returns its functions and its memory."""
    module, device = EmulatedModule(emulated), EmulatedDevice()

    def native_of(array):
        return module if isinstance(array, OnGpu) else _backend.cpu

    def empty(shape, dtype, like):
        array = np.empty(shape, dtype)
        return on_gpu(array) if isinstance(like, OnGpu) else array

    monkeypatch.setattr(kmeans_input, "open_device", lambda index: device)
    for name in OPS:
        op = sys.modules[f"ktfast.ops.{name}"]
        monkeypatch.setattr(op, "native_of", native_of)
        monkeypatch.setattr(op, "empty", empty)
        monkeypatch.setattr(op, "stream_of", lambda array: 0)
    return module, device
