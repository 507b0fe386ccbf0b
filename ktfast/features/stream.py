"""Features on their way to disk: whoever computes them never waits for the disk."""

import queue
import threading
from typing import Any

import torch

from ktfast.features.store import FeatureWriter

WAITING = 8
"""Blocks on their way, at most: memory is bounded, and a flush of a shard is bridged."""

Block = tuple[list[torch.Tensor], Any]
"""Features, sample ids and rows in main memory, and the event after which they are there."""


class FeatureStream:
    """Hands blocks of features to a writer in a thread of its own, in order.

    Used as a context manager; leaving it waits until everything is on disk and closes the writer.
    After an error in its block, what was not written yet is dropped: `FeatureWriter.resume` goes
    on after the last whole shard.

    Parameters
    ----------
    writer : what is written to; nobody else may use it meanwhile.
    """

    def __init__(self, writer: FeatureWriter) -> None:
        self.writer = writer
        self._blocks: queue.Queue[Block | None] = queue.Queue(WAITING)
        self._problem: BaseException | None = None
        self._abandoned = False
        self._thread = threading.Thread(target=self._write, name="ktfast-features", daemon=True)

    def __enter__(self) -> "FeatureStream":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._abandoned = kind is not None
        self._blocks.put(None)
        self._thread.join()
        if kind is None:
            self._raise()
            self.writer.close()

    def put(self, features: torch.Tensor, sample_ids: torch.Tensor, rows: torch.Tensor) -> None:
        """Have a block written; waits only while `WAITING` blocks are on their way.

        Parameters
        ----------
        features : float [b, dim], on any device. From a GPU they are copied without waiting for it.
        sample_ids : int64 [b].
        rows : int64 [b]; see `FeatureWriter.append`.

        Raises
        ------
        OSError, InputError : an earlier block could not be written.
        """
        self._raise()
        block = [_on_host(tensor) for tensor in (features, sample_ids, rows)]
        copied: Any = None
        if features.device.type == "cuda":
            copied = torch.cuda.current_stream(features.device).record_event()
        self._blocks.put((block, copied))

    def _raise(self) -> None:
        if self._problem is not None:
            raise self._problem

    def _write(self) -> None:
        # After a problem blocks are taken and dropped, so that `put` does not wait for ever.
        while (block := self._blocks.get()) is not None:
            if self._problem is not None or self._abandoned:
                continue
            tensors, copied = block
            try:
                if copied is not None:
                    copied.synchronize()
                self.writer.append(*(tensor.numpy() for tensor in tensors))
            except BaseException as problem:  # it is raised where the blocks come from
                self._problem = problem


def _on_host(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in main memory; from a GPU it arrives there later."""
    if tensor.device.type != "cuda":
        return tensor
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)
