"""How much of a GPU's memory a block of code takes, whichever library asks for it."""

import threading

import torch

_SAMPLE_SECONDS = 0.002


class DeviceMemory:
    """The most memory that the device gives out while a block runs, whoever asks for it.

    Attributes
    ----------
    most : bytes beyond those in use before; None on the CPU.
    """

    def __init__(self, device: str) -> None:
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
            # Samples may miss what torch held for a moment, but torch counts it itself.
            self.most = max(self.most, torch.cuda.max_memory_reserved() - self._reserved)

    def _watch(self) -> None:
        while not self._done.wait(_SAMPLE_SECONDS):
            self.most = max(self.most or 0, _taken() - self._before)


def _taken() -> int:
    free, total = torch.cuda.mem_get_info()
    return total - free
