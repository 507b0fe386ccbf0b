"""The feed on NVIDIA DALI: decodes on the GPU, or with fewer CPU cycles than Pillow.

DALI is handed the encoded images batch by batch in the plan's order, so order, exact resume and
the last batch are the same as in every other feed. What DALI reads otherwise than Pillow (CMYK,
PNG with alpha, TIFF, a JPEG without its end ...) is decoded by Pillow first and handed on as PPM,
which is lossless. On a CPU the batches from a prepared set of the right size are Pillow's to the
bit; elsewhere the resampling rounds otherwise, by at most one level, and DALI repeats the outermost
pixels where Pillow narrows its filter, which shows in the border of strongly reduced images.
"""

import importlib
import itertools
import logging
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ktfast.errors import ConfigError, DataError
from ktfast.images.decode import is_safe_jpeg
from ktfast.images.feeds import hardware_decoder
from ktfast.images.feeds.base import Batch, Feed, FeedPlan
from ktfast.images.feeds.hardware_decoder import TIMED, WARM_UP
from ktfast.images.source import ImageSource

logger = logging.getLogger(__name__)

# Any: DALI declares itself typed, and is so in parts only.
dali: Any = importlib.import_module("nvidia.dali")
fn: Any = importlib.import_module("nvidia.dali.fn")
math: Any = importlib.import_module("nvidia.dali.math")
types: Any = importlib.import_module("nvidia.dali.types")

READ_AHEAD = 4
"""Batches whose files are read ahead."""
DECODED_AHEAD = 2
"""Batches that DALI decodes ahead."""


class DaliFeed(Feed):
    """Decodes with DALI: in `plan.n_threads` threads, and on the GPU if that is the device.

    Parameters
    ----------
    source, plan : as of every feed.
    hw_decoder_load : share of the JPEG data for the GPU's hardware decoder, 0 .. 1; None: the
        fastest of a few in a long epoch, DALI's default in a short one.

    Attributes
    ----------
    hw_decoder_load : the share; None: not measured (yet), DALI's default.
    """

    kind = "dali"

    def __init__(
        self, source: ImageSource, plan: FeedPlan, *, hw_decoder_load: float | None = None
    ) -> None:
        super().__init__(source, plan)
        if hw_decoder_load is not None and not 0 <= hw_decoder_load <= 1:
            raise ConfigError(f"hw_decoder_load must lie in 0 .. 1, got {hw_decoder_load}")
        self.hw_decoder_load = hw_decoder_load
        self._measures = (
            hw_decoder_load is None
            and plan.batches_per_epoch >= hardware_decoder.WORTH_BATCHES
            and hardware_decoder.is_in(plan.device)
        )
        self._pool = ThreadPoolExecutor(plan.n_threads, thread_name_prefix="ktfast-read")
        self._inlet = _Inlet()
        self._pipeline: Any = None
        self._closed = False

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches of an epoch from batch `start` on, one epoch at a time; see `Feed.epoch`."""
        if self._closed:
            raise ConfigError("the feed is closed; make a new one")
        if self._inlet.reader is not None:
            raise ConfigError("a DALI feed runs one epoch at a time; close the other one first")
        if self._measures:
            self._measures = False
            self.hw_decoder_load = hardware_decoder.fastest_load(self._seconds_of)
        yield from self._batches(self.plan.rows(epoch, start))

    def describe(self) -> str:
        """One line for the log."""
        load = self.hw_decoder_load
        share = "" if load is None else f", {load:.0%} of the JPEG data to the hardware decoder"
        return super().describe() + share

    def close(self) -> None:
        """Stop the threads and free the pipeline."""
        self._closed = True
        self._pipeline = None
        self._pool.shutdown(cancel_futures=True)

    def _batches(self, rows: Iterator[npt.NDArray[np.int64]]) -> Iterator[Batch]:
        reader = _Reader(self.source, rows, self._pool)
        self._inlet.reader = reader
        try:
            if self._pipeline is None:
                self._pipeline = self._build()
            while (images := self._run(reader)) is not None:
                yield self._batch(images, reader.in_work.popleft())
        finally:
            reader.stop()
            self._rewind()
            self._inlet.reader = None

    def _seconds_of(self, load: float) -> float:
        """Seconds of a batch of the first epoch, decoded with a share for the hardware."""
        rows = itertools.chain.from_iterable(self.plan.rows(0) for _ in range(WARM_UP + TIMED))
        self.hw_decoder_load, self._pipeline = load, None
        batches = self._batches(itertools.islice(rows, WARM_UP + TIMED))
        for _ in itertools.islice(batches, WARM_UP):
            pass
        began = time.perf_counter()
        for batch in batches:
            if batch.pool.device.type == "cuda":
                torch.cuda.synchronize(batch.pool.device)
        self._pipeline = None  # the next one has another share
        return (time.perf_counter() - began) / TIMED

    def _build(self) -> Any:
        plan = self.plan
        on_gpu = plan.device.type == "cuda"
        pipeline = dali.Pipeline(
            batch_size=plan.batch_size,
            num_threads=plan.n_threads,
            device_id=_device_id(plan.device),
            prefetch_queue_depth=DECODED_AHEAD,
        )
        decoding = {
            "device": "mixed" if on_gpu else "cpu",
            "output_type": types.RGB,
            "jpeg_fancy_upsampling": True,  # as libjpeg, and so Pillow, does
        }
        if self.hw_decoder_load is not None:
            decoding["hw_decoder_load"] = self.hw_decoder_load
        with pipeline:
            encoded = fn.external_source(source=self._inlet, dtype=types.UINT8, ndim=1)
            shape = fn.cast(fn.peek_image_shape(encoded)[:2], dtype=types.FLOAT)
            if self.source.short_side == plan.short_side:
                corner = math.floor((shape - float(plan.size)) * 0.5)
                images = fn.decoders.image_slice(
                    encoded,
                    start=fn.cast(corner, dtype=types.INT32),
                    shape=[plan.size, plan.size],
                    axis_names="HW",
                    **decoding,
                )
            else:
                images = _resized(fn.decoders.image(encoded, **decoding), shape, plan)
            pipeline.set_outputs(images)
        pipeline.build()
        return pipeline

    def _run(self, reader: "_Reader") -> torch.Tensor | None:
        """Images of the next batch on the plan's device, or None at the end of the epoch."""
        try:
            (images,) = self._pipeline.run()
        except StopIteration:
            return None
        except RuntimeError as error:
            self._pipeline = None
            if reader.through_pillow:
                raise
            self._name_culprit(reader, error)
            logger.warning(
                "DALI cannot decode one of the images from %s on, which Pillow can; Pillow"
                " decodes the rest of this epoch. DALI said: %s",
                self.source.name(int(reader.in_work[0][0])) if reader.in_work else "the first",
                str(error).partition("encountered:")[2].strip().partition("\n")[0] or error,
            )
            reader.begin_again_through_pillow()
            self._pipeline = self._build()
            return self._run(reader)
        if self.plan.device.type != "cuda":
            return torch.from_numpy(np.array(images.as_tensor()))
        plugin: Any = importlib.import_module("nvidia.dali.plugin.pytorch")
        device, shape = self.plan.device, images.as_tensor().shape()
        target = torch.empty(shape, dtype=torch.uint8, device=device)
        plugin.feed_ndarray(images, target, cuda_stream=torch.cuda.current_stream(device))
        return target

    def _name_culprit(self, reader: "_Reader", error: RuntimeError) -> None:
        """DALI does not say which image it failed on: ask Pillow about each one in work."""
        for rows in reader.in_work:
            for row in rows.tolist():
                try:
                    self.source.image(row)
                except DataError as problem:
                    raise problem from error

    def _rewind(self) -> None:
        """Drop the batches in work, so that another epoch may begin."""
        if self._pipeline is None:
            return
        try:
            while True:
                self._pipeline.run()
        except StopIteration:
            self._pipeline.reset()
        except RuntimeError:  # in a batch that nobody waits for; the next epoch builds anew
            self._pipeline = None


def _device_id(device: torch.device) -> int | None:
    """DALI's number of a GPU; None keeps the pipeline off CUDA altogether."""
    if device.type != "cuda":
        return None
    return torch.cuda.current_device() if device.index is None else device.index


def _resized(images: Any, shape: Any, plan: FeedPlan) -> Any:
    """Shorter side to `short_side`, centre cut: as `decode.square`, only the cut is resampled."""
    resized = math.floor(shape * float(plan.short_side) / fn.reductions.min(shape) + 0.5)
    corner = math.floor((resized - float(plan.size)) * 0.5)
    return fn.resize(
        images,
        size=[plan.size, plan.size],
        roi_start=corner * shape / resized,
        roi_end=(corner + float(plan.size)) * shape / resized,
        interp_type=types.INTERP_LINEAR,
        antialias=True,
    )


class _Inlet:
    """What DALI calls for the next batch of encoded images; the pipeline outlives the epochs."""

    def __init__(self) -> None:
        self.reader: _Reader | None = None

    def __call__(self) -> list[npt.NDArray[np.uint8]]:
        if self.reader is None:
            raise StopIteration
        return self.reader.next()


class _Reader:
    """Reads encoded images a few batches ahead, in threads.

    Attributes
    ----------
    in_work : rows of the batches that DALI has been given and has not returned.
    through_pillow : whether Pillow decodes every image, and DALI only resizes.
    """

    def __init__(
        self,
        source: ImageSource,
        batches: Iterator[npt.NDArray[np.int64]],
        pool: ThreadPoolExecutor,
    ) -> None:
        self._source = source
        self._batches = batches
        self._pool = pool
        self._ahead: deque[tuple[npt.NDArray[np.int64], Future[list[npt.NDArray[np.uint8]]]]]
        self._ahead = deque()
        self.in_work: deque[npt.NDArray[np.int64]] = deque()
        self.through_pillow = False

    def next(self) -> list[npt.NDArray[np.uint8]]:
        """Encoded images of the next batch; StopIteration at the end."""
        while len(self._ahead) < READ_AHEAD and (rows := next(self._batches, None)) is not None:
            self._ahead.append((rows, self._pool.submit(self._read, rows)))
        if not self._ahead:
            raise StopIteration
        rows, future = self._ahead.popleft()
        encoded = future.result()
        self.in_work.append(rows)
        return encoded

    def begin_again_through_pillow(self) -> None:
        """Read what is in work once more, and decode it and all that follows with Pillow."""
        rows = [*self.in_work, *(rows for rows, _ in self._ahead), *self._batches]
        self.stop()
        self.in_work.clear()
        self.through_pillow = True
        self._batches = iter(rows)

    def stop(self) -> None:
        """Read nothing more."""
        self._batches = iter(())
        for _, future in self._ahead:
            future.cancel()
        self._ahead.clear()

    def _read(self, rows: npt.NDArray[np.int64]) -> list[npt.NDArray[np.uint8]]:
        return [np.frombuffer(self._encoded(row), np.uint8) for row in rows.tolist()]

    def _encoded(self, row: int) -> bytes | memoryview:
        data = self._source.read(row)
        if is_safe_jpeg(data) and not self.through_pillow:
            return data
        image = self._source.image(row)
        return b"P6 %d %d 255\n" % image.size + image.tobytes()
