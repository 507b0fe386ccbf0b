"""Write features to disk in a thread, so that computing features does not wait for the disk."""

import queue
import threading
from typing import Any

import torch

from ktfast.features.writer import FeatureWriter

WAITING = 8
"""Largest number of waiting blocks. The limit bounds the memory, and still leaves room for the
blocks that arrive while a shard is written."""

Block = tuple[list[torch.Tensor], Any]
"""Features, sample ids and rows in main memory, and the GPU event after their copies."""


class FeatureStream:
    """Pass blocks of features, in order, to a writer that runs in its own thread.

    The stream is a context manager. Its end waits until all blocks are on disk, and closes the
    writer. If the `with` block raises an error, the stream drops the waiting blocks; a
    `FeatureWriter` with `resume` continues after the last whole shard.

    Parameters
    ----------
    writer : FeatureWriter
        Destination. Only the stream may use the writer until the stream ends.
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
        """Pass a block to the writer. The call waits only if `WAITING` blocks wait already.

        Parameters
        ----------
        features : Tensor, float [b, dim]
            Features on any device. The copy from a GPU does not wait for the GPU.
        sample_ids : Tensor, int64 [b]
            Identity of each image.
        rows : Tensor, int64 [b]
            Consecutive row numbers; see `FeatureWriter.append`.

        Raises
        ------
        OSError, InputError
            An earlier block could not be written.
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
        # After an error the thread still takes blocks, so that `put` does not wait for ever.
        while (block := self._blocks.get()) is not None:
            if self._problem is not None or self._abandoned:
                continue
            tensors, copied = block
            try:
                if copied is not None:
                    copied.synchronize()
                self.writer.append(*(tensor.numpy() for tensor in tensors))
            except BaseException as problem:  # `put` raises the error in the caller's thread
                self._problem = problem


def _on_host(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in main memory. The copy from a GPU ends later."""
    if tensor.device.type != "cuda":
        return tensor
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)
