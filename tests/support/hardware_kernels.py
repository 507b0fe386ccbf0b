"""The functions of a compiled `_cuda` for arrays of NumPy, with each way to multiply codes.

Tests of the tensor-core screen call the emulated kernels with arrays of NumPy. On a machine with a
GPU the same tests call the real kernels through this module.
"""

import functools
import importlib.util
import os
from pathlib import Path

import numpy as np

from support.optional import torch

MODULES = "KTFAST_TEST_CUDA_MODULES"  # a folder with the modules of other builds, such as jit80
PLACES = ("fastest", "mma", "jit80", "jit75")


class HardwareKernels:
    """Every function copies its arrays to the GPU, and all writable arrays back.

    Parameters
    ----------
    module : module
        A compiled `_cuda`.
    path : str
        The path of the products; see `TensorScreen.assign`.
    """

    def __init__(self, module, path):
        self.module, self.path = module, path

    def __getattr__(self, name):
        function = getattr(self.module, name)

        def call(**arguments):
            arrays = {k: a for k, a in arguments.items() if isinstance(a, np.ndarray)}
            there = {k: torch.tensor(a, device="cuda") for k, a in arrays.items()}
            if "path" in arguments:
                there["path"] = self.path
            if "stream" in arguments:
                there["stream"] = torch.cuda.current_stream().cuda_stream
            result = function(**arguments | there)
            for key, array in arrays.items():
                if array.flags.writeable:
                    array[...] = there[key].cpu().numpy()
            return result

        return call


def kernels_at(place, built):
    """The kernels of one way to multiply codes, or None if the build that they need is missing.

    "fastest" and "mma" run the machine code of the module `built`. "jit80" and "jit75" run the
    intermediate code that the module of another build holds for Ampere and for Turing, which the
    driver compiles. The environment variable KTFAST_TEST_CUDA_MODULES names the folder of those
    modules.
    """
    if not place.startswith("jit"):
        return HardwareKernels(built, place)
    folder = os.environ.get(MODULES)
    found = sorted(Path(folder, place).glob("_cuda.*")) if folder else []
    return HardwareKernels(_module_in(found[0]), "mma") if found else None


@functools.cache
def _module_in(path):
    spec = importlib.util.spec_from_file_location("ktfast.native._cuda", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
