"""K-means on the emulated GPU, end to end: tensors of `fake_torch` and the real kernels."""

import contextlib

import numpy as np
import pytest
import torch

from emulation.cuda.device import element_of
from emulation.cuda.fake_torch import CudaTensor, memory_of, use_emulated_torch
from emulation.cuda.kmeans_sums import EmulatedSums
from emulation.cuda.kmeans_tensor import EmulatedKernels
from ktfast.native import modules


class EmulatedFunctions(EmulatedSums, EmulatedKernels):
    """The functions of `_cuda` that K-means needs, for arrays of NumPy."""

    def kmeans_prepared_size(self, *, n_clusters, n_features):
        return self.cuda.size("emulated_kmeans_prepared_size", n_clusters, n_features)

    def kmeans_update_workspace_size(self, *, n_rows, n_clusters):
        return self.cuda.size("emulated_kmeans_update_workspace_size", n_rows, n_clusters)

    def kmeans_prepare(self, *, centers, prepared, stream):
        self.cuda.call("emulated_kmeans_prepare", *centers.shape, centers, prepared)

    def kmeans_assign(self, *, x, centers, prepared, labels, distances, stream):
        self.cuda.call(
            "emulated_kmeans_assign",
            *(len(x), *centers.shape, x, element_of(x), centers, prepared, labels, distances),
        )

    def kmeans_update(self, *, x, labels, sample_weight, workspace, sums, counts, stream):
        self.cuda.call(
            "emulated_kmeans_update",
            *(len(x), *sums.shape, x, element_of(x)),
            *(labels, sample_weight, workspace, sums, counts),
        )


class EmulatedModule:
    """`_cuda` for tensors of the emulated GPU. `called` holds the names of the called functions."""

    is_emulated = True
    architectures = "90-real"

    def __init__(self, cuda):
        self.called = set()
        self._functions = EmulatedFunctions(cuda)

    def launches(self):
        """Return the names of the kernels launched since the last call."""
        return [name for name, _ in self._functions.cuda.launches()]

    def device_count(self):
        return 1

    def compute_capability(self, device):
        return 90

    def __getattr__(self, name):
        function = getattr(self._functions, name)

        def call(**arguments):
            self.called.add(name)
            if "stream" in arguments:
                assert arguments["stream"] == torch.cuda.current_stream().cuda_stream
            return function(**{key: _numpy(value) for key, value in arguments.items()})

        return call


def _numpy(value):
    """Return the memory of a GPU tensor as an array; bfloat16, which NumPy lacks, as uint16."""
    if not isinstance(value, torch.Tensor | np.ndarray):
        return value
    assert isinstance(value, CudaTensor), "a kernel was given memory of the host"
    memory = memory_of(value)
    return (memory.view(torch.uint16) if memory.dtype == torch.bfloat16 else memory).numpy()


@contextlib.contextmanager
def use_emulated_gpu(emulated):
    """Make `device="cuda"` the emulated GPU and yield the functions of the GPU."""
    module = EmulatedModule(emulated)
    with pytest.MonkeyPatch.context() as patch, use_emulated_torch(patch):
        patch.setattr(modules, "cuda_module", lambda: module)
        patch.setattr(modules, "has_code_for", lambda index: True)
        yield module
