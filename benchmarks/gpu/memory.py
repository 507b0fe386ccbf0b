"""The memory that a block of code takes on a GPU, through any library."""

import threading

import torch

_SAMPLE_SECONDS = 0.002


class DeviceMemory:
    """The largest amount of device memory that is taken while a block runs.

    Parameters
    ----------
    device : {"cuda", "cpu"}
        Where the block runs.

    Attributes
    ----------
    most : int or None
        Bytes beyond those in use before the block; None on the CPU.
    """

    def __init__(self, device: str) -> None:
        self._before = self._reserved = 0
        self.most: int | None = None if device == "cpu" else 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "DeviceMemory":
        if self.most is not None:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            self._before = _taken()
            self._reserved = torch.cuda.memory_reserved()
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.most is not None:
            self._done.set()
            self._thread.join()
            # The samples may miss a short peak, but torch counts its own memory exactly.
            self.most = max(self.most, torch.cuda.max_memory_reserved() - self._reserved)

    def _watch(self) -> None:
        while not self._done.wait(_SAMPLE_SECONDS):
            self.most = max(self.most or 0, _taken() - self._before)


def _taken() -> int:
    free, total = torch.cuda.mem_get_info()
    return total - free
