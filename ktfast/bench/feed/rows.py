"""The contestants of `ktfast bench feed`: training scripts, ktfast's feeds, parts of the work."""

import importlib
import io
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2 import functional

from ktfast.images.feeds.base import Feed
from ktfast.images.feeds.make import make_feed
from ktfast.images.index import ImageIndex
from ktfast.images.resize import resized_shape
from ktfast.images.source import ImageSource
from ktfast.optional import problem_of

Pixels = npt.NDArray[np.uint8]
Tensors = Callable[[Path], torch.Tensor]

FILES, SHARDS, RAW, MEMORY = "files", "shards", "raw shards", "memory"


@dataclass(frozen=True)
class Contestant:
    """One row of the table.

    Attributes
    ----------
    name : str
        What delivers the images.
    source : str
        Where the images lie: files, shards, raw shards or memory.
    role : {"peer", "ktfast", "ceiling"}
        A training script, a feed of ktfast, or a part of the work alone.
    run : callable
        Delivers every image once.
    pixels : callable or None
        Returns the squares in the order of the index, uint8 [n, S, S, 3]. None for ceilings.
    problem : str
        Why the contestant cannot be measured here, or "".
    """

    name: str
    source: str
    role: Literal["peer", "ktfast", "ceiling"]
    run: Callable[[], None]
    pixels: Callable[[], Pixels] | None = None
    problem: str = ""


@dataclass(frozen=True)
class Task:
    """What every contestant delivers.

    Attributes
    ----------
    index : ImageIndex
        The photographs.
    size, short_side : int
        Side of the squares, and shorter side of the resized images, both in pixels.
    batch : int
        Images in a batch.
    threads : int
        Decoding threads of the feeds.
    """

    index: ImageIndex
    size: int
    short_side: int
    batch: int
    threads: int


def contestants(
    task: Task, sources: Mapping[str, ImageSource], feeds: ExitStack
) -> Iterator[Contestant]:
    """Every row: the training scripts, ktfast's feeds, and the ceilings.

    Parameters
    ----------
    task : Task
        What every contestant delivers.
    sources : mapping of ImageSource
        The images as `FILES`, `SHARDS` and `RAW`.
    feeds : ExitStack
        Closes the feeds that are opened here.

    Yields
    ------
    contestant : Contestant
        One row, in the table's order.
    """
    yield _script(task, "DataLoader, PIL", _with_pillow(task))
    yield _script(task, "DataLoader, torchvision v2", _with_torchvision(task))
    for place in (FILES, SHARDS):
        yield _dali(task, sources[place], place, feeds)
        yield _feed(task, sources[place], "torch", place, feeds)
    yield _feed(task, sources[RAW], "torch", RAW, feeds)
    yield _feed(task, sources[SHARDS], "resident", MEMORY, feeds)
    for place in (FILES, SHARDS):
        yield from _decoders(sources[place], place)
    yield _copies(task)


class _Photographs(Dataset[torch.Tensor]):
    """The data set of a training script: an image file becomes a tensor."""

    def __init__(self, index: ImageIndex, tensor: Tensors) -> None:
        self.paths = [index.root / path for path in index.paths]
        self.tensor = tensor

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> torch.Tensor:
        return self.tensor(self.paths[row])


def _with_pillow(task: Task) -> Tensors:
    def tensor(path: Path) -> torch.Tensor:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
        square: torch.Tensor = functional.pil_to_tensor(
            _square(task, upright, upright.height, upright.width)
        )
        return square

    return tensor


def _with_torchvision(task: Task) -> Tensors:
    def tensor(path: Path) -> torch.Tensor:
        image = _decoded(torch.from_numpy(np.fromfile(path, np.uint8)))
        square: torch.Tensor = _square(task, image, *image.shape[1:])
        return square

    return tensor


def _decoded(data: torch.Tensor) -> torch.Tensor:
    """An image decoded by torchvision, uint8 [3, H, W]."""
    # torchvision announces that TorchCodec will replace its decoder.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        image: torch.Tensor = decode_image(data, ImageReadMode.RGB, apply_exif_orientation=True)
    return image


def _square(task: Task, image: Any, height: int, width: int) -> Any:
    """An image resized and cropped by torchvision to the square that ktfast's feeds keep.

    `Resize` and `CenterCrop` do not serve here, because both round sizes and corners differently.
    """
    height, width = resized_shape(height, width, task.short_side)
    top, left = (height - task.size) // 2, (width - task.size) // 2
    resized = functional.resize(image, [height, width], antialias=True)
    return functional.crop(resized, top, left, task.size, task.size)


def _script(task: Task, name: str, tensor: Tensors) -> Contestant:
    photographs = _Photographs(task.index, tensor)
    loader = DataLoader(photographs, task.batch, shuffle=True)

    def run() -> None:
        for _ in loader:
            pass

    def pixels() -> Pixels:
        images = torch.stack([photographs[row] for row in range(len(photographs))])
        return images.permute(0, 2, 3, 1).numpy()

    return Contestant(name, FILES, "peer", run, pixels)


def _feed(task: Task, source: ImageSource, kind: Any, place: str, feeds: ExitStack) -> Contestant:
    feed: Feed = make_feed(
        source,
        kind=kind,
        size=task.size,
        short_side=task.short_side,
        batch_size=task.batch,
        n_threads=task.threads,
    )
    feeds.enter_context(feed)

    def run() -> None:
        for batch in feed.epoch(1):
            batch.images  # noqa: B018 a resident feed gathers the images on access

    def pixels() -> Pixels:
        images = np.empty((feed.n, task.size, task.size, 3), np.uint8)
        for batch in feed.epoch(0):
            images[batch.rows.numpy()] = batch.images.numpy()
        return images

    name = {"dali": "ktfast, DALI", "torch": "ktfast, torch", "resident": "ktfast, resident"}[kind]
    return Contestant(name, place, "ktfast", run, pixels)


def _dali(task: Task, source: ImageSource, place: str, feeds: ExitStack) -> Contestant:
    if has_dali():
        return _feed(task, source, "dali", place, feeds)
    return Contestant("ktfast, DALI", place, "ktfast", _nothing, problem=NO_DALI)


NO_DALI = "missing: pip install nvidia-dali-cuda130"


def has_dali() -> bool:
    """Whether NVIDIA DALI is installed and works."""
    return problem_of("nvidia.dali.fn") is None


def _nothing() -> None:
    pass


def _decoders(source: ImageSource, place: str) -> Iterator[Contestant]:
    """Decoders alone, on files that lie in memory."""
    files = [bytes(source.read(row)) for row in range(source.n)]
    tensors = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in files]

    def with_pillow() -> None:
        for data in files:
            with Image.open(io.BytesIO(data)) as image:
                image.convert("RGB").load()

    def with_torchvision() -> None:
        for data in tensors:
            _decoded(data)

    yield Contestant("decoder alone, Pillow", place, "ceiling", with_pillow)
    yield Contestant("decoder alone, torchvision", place, "ceiling", with_torchvision)
    problem = "" if has_dali() else NO_DALI
    run = _nothing if problem else _dali_decoder(files)
    yield Contestant("decoder alone, DALI", place, "ceiling", run, problem=problem)


def _dali_decoder(files: list[bytes], batch: int = 32) -> Callable[[], None]:
    dali: Any = importlib.import_module("nvidia.dali")
    fn: Any = importlib.import_module("nvidia.dali.fn")
    arrays = [np.frombuffer(data, np.uint8) for data in files]
    batches = math.ceil(len(arrays) / batch)
    # No prefetching: a batch would be decoded while another contestant is measured.
    pipeline = dali.Pipeline(
        batch_size=batch, num_threads=1, device_id=None,
        prefetch_queue_depth=1, exec_async=False, exec_pipelined=False,
    )  # fmt: skip
    with pipeline:
        encoded = fn.external_source(
            source=lambda i: arrays[i % batches * batch : (i % batches + 1) * batch],
            dtype=dali.types.UINT8, ndim=1,
        )  # fmt: skip
        pipeline.set_outputs(fn.decoders.image(encoded, jpeg_fancy_upsampling=True))
    pipeline.build()

    def run() -> None:
        for _ in range(batches):
            pipeline.run()

    return run


def _copies(task: Task) -> Contestant:
    """A memcpy of the squares of each batch, the least that a feed from memory must do."""
    n = task.index.n
    images = np.ones((n, task.size, task.size, 3), np.uint8)
    target = np.empty((task.batch, task.size, task.size, 3), np.uint8)

    def run() -> None:
        for start in range(0, n, task.batch):
            part = images[start : start + task.batch]
            np.copyto(target[: len(part)], part)

    return Contestant("copy alone", MEMORY, "ceiling", run)
