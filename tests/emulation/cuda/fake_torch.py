"""A torch with an emulated GPU, whose tensors lie in the memory of the host.

The tensors refuse what torch refuses for tensors on a GPU: NumPy cannot read them, and an operation
on tensors of both devices fails. Kernels and copies run at once, so a stream is only a name.
"""

import itertools
import weakref
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

CUDA = torch.device("cuda", 0)
MEMORY = 1 << 34
# What may be given tensors of both devices: copies, and numbers of rows on the host.
MIXED = {"copy_", "to", "__getitem__", "__setitem__"}
ON_HOST = {"numpy", "__array__", "__dlpack__"}


class CudaTensor(torch.Tensor):
    """A tensor of the emulated GPU."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        return run(function, args, kwargs or {})


class EmulatedTorch(TorchFunctionMode):
    """Makes `device="cuda"` the emulated GPU inside a `with` block."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        return run(function, args, kwargs or {})


def memory_of(tensor):
    """Return the tensor of the host that shares the memory."""
    with torch._C.DisableTorchFunction():
        return tensor.as_subclass(torch.Tensor)


class Memory:
    """The memory that the tensors of the emulated GPU use.

    Attributes
    ----------
    allocated, peak : bytes that they hold, now and at most.
    to_host : bytes that were copied to the host.
    """

    def __init__(self):
        self.allocated = self.peak = self.to_host = 0
        self._owners = {}  # tensors by where their memory begins

    def hold(self, tensor):
        """Count a new tensor's memory until the last tensor that shares the memory is deleted."""
        with torch._C.DisableTorchFunction():
            storage = tensor.untyped_storage()
            address, size = storage.data_ptr(), storage.nbytes()
        self._owners[address] = self._owners.get(address, 0) + 1
        if self._owners[address] == 1:
            self.allocated += size
            self.peak = max(self.peak, self.allocated)
        weakref.finalize(tensor, self._release, address, size)
        return tensor

    def _release(self, address, size):
        self._owners[address] -= 1
        if self._owners[address] == 0:
            del self._owners[address]
            self.allocated -= size

    def reset_peak(self, device=None):
        self.peak = self.allocated


memory = Memory()


def _there(tensor):
    with torch._C.DisableTorchFunction():
        return memory.hold(tensor.as_subclass(CudaTensor))


def run(function, args, kwargs):
    """Call a function of torch."""
    name = getattr(function, "__name__", "")
    given = _leaves((args, kwargs))
    on_gpu = [t for t in given if isinstance(t, CudaTensor)]
    if function == torch.Tensor.device.__get__ and on_gpu:
        return CUDA
    if function == torch.Tensor.is_cuda.__get__:
        return bool(on_gpu)
    if name in ON_HOST and on_gpu:
        raise TypeError("can't convert cuda:0 device type tensor to numpy; use Tensor.cpu() first")
    if on_gpu and name not in MIXED:
        strangers = [a for a in given if not isinstance(a, CudaTensor) and a.ndim > 0]
        if strangers:
            raise RuntimeError(f"{name}: expected all tensors to be on cuda:0, got {strangers}")
    if name in ("to", "cuda", "cpu"):
        return _moved(name, args, kwargs)
    to_gpu = bool(on_gpu) if name not in ("copy_", "__setitem__") else False
    if "device" in kwargs:
        to_gpu = kwargs["device"] is not None and torch.device(kwargs["device"]).type == "cuda"
        kwargs = {**kwargs, "device": "cpu"}
    kwargs.pop("pin_memory", None)
    if name == "pin_memory":
        return args[0]
    args, kwargs = tree_map_only(CudaTensor, memory_of, (args, kwargs))
    with torch._C.DisableTorchFunction():
        result = function(*args, **kwargs)
    return tree_map_only(torch.Tensor, _there, result) if to_gpu else result


def _leaves(arguments):
    found = []
    tree_map_only((torch.Tensor, np.ndarray), found.append, arguments)
    return found


def _moved(name, args, kwargs):
    """Do the work of `to`, `cuda` and `cpu`."""
    tensor, *rest = args
    target = {"to": None, "cuda": CUDA, "cpu": torch.device("cpu")}[name]
    options = {}
    for value in [*rest, *kwargs.values()]:
        if isinstance(value, str | torch.device):
            target = torch.device(value)
        elif isinstance(value, torch.dtype):
            options["dtype"] = value
    was_there = isinstance(tensor, CudaTensor)
    is_there = was_there if target is None else target.type == "cuda"
    with torch._C.DisableTorchFunction():
        source = tensor.as_subclass(torch.Tensor)
        result = source.to(**options, copy=was_there != is_there)
        if result is source:
            return tensor
        if was_there and not is_there:
            memory.to_host += source.nbytes
    return _there(result) if is_there else result


class Stream:
    """A stream of the emulated GPU; see `torch.cuda.Stream`."""

    _numbers = itertools.count(1)

    def __init__(self, device=None):
        self.cuda_stream = next(self._numbers)

    def record_event(self):
        return SimpleNamespace(synchronize=lambda: None)

    def wait_event(self, event):
        """Return at once, because every operation is already complete."""


def use_emulated_torch(monkeypatch):
    """Give torch the emulated GPU until the test ends; enter the returned context."""
    current = [Stream()]

    @contextmanager
    def stream(entered):
        current.append(entered)
        yield
        current.pop()

    for name, value in {
        "is_available": lambda: True,
        "device": lambda index: nullcontext(),
        "Stream": Stream,
        "stream": stream,
        "current_stream": lambda device=None: current[-1],
        "mem_get_info": lambda device=None: (MEMORY, MEMORY),
        "memory_reserved": lambda device=None: memory.allocated,
        "memory_allocated": lambda device=None: memory.allocated,
        "max_memory_allocated": lambda device=None: memory.peak,
        "reset_peak_memory_stats": memory.reset_peak,
        "_sleep": lambda cycles: None,
        "synchronize": lambda device=None: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return EmulatedTorch()
