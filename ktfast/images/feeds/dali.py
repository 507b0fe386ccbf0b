"""The feed that decodes with NVIDIA DALI: on the GPU, or with fewer CPU cycles than Pillow.

The feed hands DALI the encoded images batch by batch in the order of the plan. The order, the
resume within an epoch and the last batch are therefore the same as in every other feed.

DALI and Pillow read some files differently: CMYK, PNG with alpha, TIFF, a JPEG file without its
end. Pillow decodes such files, and DALI gets their pixels in the lossless format PPM.

DALI decodes JPEG files at their full size. The other feeds decode large original files at reduced
size, unless the source says `decoding="full"`.

On a CPU, batches from a prepared set of the right size have the same bits as Pillow's. Otherwise
the rounding of the resampling differs by at most one level. At the border of strongly reduced
images the difference is larger: DALI repeats the outermost pixels, and Pillow narrows its filter.
"""

import importlib
import itertools
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ktfast.errors import ConfigError, DataError
from ktfast.images.feeds import hardware_decoder
from ktfast.images.feeds.base import Batch, Feed, FeedPlan
from ktfast.images.feeds.encoded_batches import EncodedBatches, Inlet
from ktfast.images.feeds.hardware_decoder import TIMED, WARM_UP
from ktfast.images.source import ImageSource

logger = logging.getLogger(__name__)

# Any: DALI claims to be typed, but only a part of it is.
dali: Any = importlib.import_module("nvidia.dali")
fn: Any = importlib.import_module("nvidia.dali.fn")
math: Any = importlib.import_module("nvidia.dali.math")
types: Any = importlib.import_module("nvidia.dali.types")

DECODED_AHEAD = 2
"""Number of batches that DALI decodes ahead."""


class DaliFeed(Feed):
    """A feed that decodes with DALI in `plan.n_threads` threads, and on the GPU of `plan.device`.

    Parameters
    ----------
    source : ImageSource
        Where the images come from.
    plan : FeedPlan
        Which rows make up which batch.
    hw_decoder_load : float, optional
        Share of the JPEG data that the GPU's hardware decoder takes, 0 to 1. None: if the epoch is
        long, the feed measures a few shares and takes the fastest one; else DALI's default.

    Attributes
    ----------
    hw_decoder_load : float or None
        The share. None: DALI's default, because the feed has not measured.

    Raises
    ------
    ConfigError
        The share is not in 0 to 1.
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
        self._inlet = Inlet()
        self._pipeline: Any = None
        self._closed = False

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from batch `start` on; see `Feed.epoch`.

        A DALI feed runs one epoch at a time.
        """
        if self._closed:
            raise ConfigError("the feed is closed; make a new one")
        if self._inlet.batches is not None:
            raise ConfigError("a DALI feed runs one epoch at a time; finish the other epoch first")
        if self._measures:
            self._measures = False
            self.hw_decoder_load = hardware_decoder.fastest_load(self._seconds_of)
        yield from self._batches(self.plan.rows(epoch, start))

    def describe(self) -> str:
        """One line for the log that says what the feed delivers."""
        load = self.hw_decoder_load
        share = "" if load is None else f", {load:.0%} of the JPEG data to the hardware decoder"
        return super().describe() + share

    def close(self) -> None:
        """Stop the threads and free the pipeline; the feed cannot be used afterwards."""
        self._closed = True
        self._pipeline = None
        self._pool.shutdown(cancel_futures=True)

    def _batches(self, rows: Iterator[npt.NDArray[np.int64]]) -> Iterator[Batch]:
        encoded = EncodedBatches(self.source, rows, self._pool)
        self._inlet.batches = encoded
        try:
            if self._pipeline is None:
                self._pipeline = self._build()
            while (images := self._run(encoded)) is not None:
                yield self._batch(images, encoded.in_work.popleft())
        finally:
            encoded.stop()
            self._rewind()
            self._inlet.batches = None

    def _seconds_of(self, load: float) -> float:
        """Seconds per batch of the first epoch with this share for the hardware decoder."""
        rows = itertools.chain.from_iterable(self.plan.rows(0) for _ in range(WARM_UP + TIMED))
        self.hw_decoder_load, self._pipeline = load, None
        batches = self._batches(itertools.islice(rows, WARM_UP + TIMED))
        for _ in itertools.islice(batches, WARM_UP):
            pass
        began = time.perf_counter()
        for batch in batches:
            if batch.pool.device.type == "cuda":
                torch.cuda.synchronize(batch.pool.device)
        self._pipeline = None  # the next pipeline has another share
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
            "jpeg_fancy_upsampling": True,  # like libjpeg, which Pillow uses
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

    def _run(self, encoded: EncodedBatches) -> torch.Tensor | None:
        """The images of the next batch on the plan's device, or None at the end of the epoch."""
        try:
            (images,) = self._pipeline.run()
        except StopIteration:
            return None
        except RuntimeError as error:
            self._pipeline = None
            if encoded.through_pillow:
                raise
            self._raise_for_damaged_image(encoded, error)
            first = self.source.name(int(encoded.in_work[0][0])) if encoded.in_work else "the first"
            logger.warning(
                "DALI cannot decode one of the images from %s on, but Pillow can; Pillow decodes"
                " the rest of this epoch. DALI said: %s",
                first,
                str(error).partition("encountered:")[2].strip().partition("\n")[0] or error,
            )
            encoded.begin_again_through_pillow()
            self._pipeline = self._build()
            return self._run(encoded)
        if self.plan.device.type != "cuda":
            return torch.from_numpy(np.array(images.as_tensor()))
        plugin: Any = importlib.import_module("nvidia.dali.plugin.pytorch")
        device, shape = self.plan.device, images.as_tensor().shape()
        target = torch.empty(shape, dtype=torch.uint8, device=device)
        plugin.feed_ndarray(images, target, cuda_stream=torch.cuda.current_stream(device))
        return target

    def _raise_for_damaged_image(self, encoded: EncodedBatches, error: RuntimeError) -> None:
        """Raise Pillow's error if Pillow cannot decode one of the images either.

        DALI does not say on which image it failed. Pillow therefore decodes all images that DALI
        has received and has not returned yet.
        """
        for rows in encoded.in_work:
            for row in rows.tolist():
                try:
                    self.source.image(row)
                except DataError as problem:
                    raise problem from error

    def _rewind(self) -> None:
        """Drop the batches in work, so that another epoch can begin."""
        if self._pipeline is None:
            return
        try:
            while True:
                self._pipeline.run()
        except StopIteration:
            self._pipeline.reset()
        except RuntimeError:  # nobody waits for this batch; the next epoch builds a pipeline
            self._pipeline = None


def _device_id(device: torch.device) -> int | None:
    """DALI's number of a GPU; None makes a pipeline that does not use CUDA."""
    if device.type != "cuda":
        return None
    return torch.cuda.current_device() if device.index is None else device.index


def _resized(images: Any, shape: Any, plan: FeedPlan) -> Any:
    """Resize the shorter side and cut the centre, like `decode.square`."""
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
