"""Batches of encoded images for DALI, read from disk a few batches ahead in threads."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from ktfast.images.decode_memory import DECODING
from ktfast.images.jpeg import is_safe_jpeg
from ktfast.images.source import ImageSource

READ_AHEAD = 4
"""Number of batches whose files are read ahead."""

Encoded = list[npt.NDArray[np.uint8]]


class EncodedBatches:
    """The encoded images of an epoch, batch by batch.

    DALI gets JPEG files that it decodes like Pillow. Pillow decodes all other files, and DALI gets
    their pixels in the lossless format PPM.

    Parameters
    ----------
    source : ImageSource
        Where the images come from.
    batches : iterator of array, int64 [B]
        Rows of each batch.
    pool : ThreadPoolExecutor
        Threads that read.

    Attributes
    ----------
    in_work : deque of array, int64 [B]
        Rows of the batches that DALI has received and has not returned yet.
    through_pillow : bool
        Whether Pillow decodes every image and DALI only resizes.
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
        self._ahead: deque[tuple[npt.NDArray[np.int64], Future[Encoded]]] = deque()
        self.in_work: deque[npt.NDArray[np.int64]] = deque()
        self.through_pillow = False

    def next(self) -> Encoded:
        """The encoded images of the next batch; raises StopIteration after the last batch."""
        while len(self._ahead) < READ_AHEAD and (rows := next(self._batches, None)) is not None:
            self._ahead.append((rows, self._pool.submit(self._read, rows)))
        if not self._ahead:
            raise StopIteration
        rows, future = self._ahead.popleft()
        encoded = future.result()
        self.in_work.append(rows)
        return encoded

    def begin_again_through_pillow(self) -> None:
        """Read the batches in work again; Pillow decodes these and all later images."""
        rows = [*self.in_work, *(rows for rows, _ in self._ahead), *self._batches]
        self.stop()
        self.in_work.clear()
        self.through_pillow = True
        self._batches = iter(rows)

    def stop(self) -> None:
        """Stop reading; `next` raises StopIteration from now on."""
        self._batches = iter(())
        for _, future in self._ahead:
            future.cancel()
        self._ahead.clear()

    def _read(self, rows: npt.NDArray[np.int64]) -> Encoded:
        return [np.frombuffer(self._encoded(row), np.uint8) for row in rows.tolist()]

    def _encoded(self, row: int) -> bytes | memoryview:
        data = self._source.read(row)
        if not self.through_pillow and is_safe_jpeg(data, self._source.pixel_limit):
            return data
        with DECODING.block():
            image = self._source.image(row)
            return b"P6 %d %d 255\n" % image.size + image.tobytes()


class Inlet:
    """The callable that DALI asks for the next batch.

    DALI keeps one callable for the life of a pipeline, but every epoch has its own
    `EncodedBatches`.

    Attributes
    ----------
    batches : EncodedBatches or None
        The batches of the epoch that runs now, if one runs.
    """

    def __init__(self) -> None:
        self.batches: EncodedBatches | None = None

    def __call__(self) -> Encoded:
        """The encoded images of the next batch; raises StopIteration if no epoch runs."""
        if self.batches is None:
            raise StopIteration
        return self.batches.next()
