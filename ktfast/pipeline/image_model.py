"""Use a trained network of a run: photographs in, one vector for each photograph out.

`ktfast.load` is the function `load` of this file.
"""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from ktfast.errors import DataError, InputError, reading, shown
from ktfast.images.augment import Normalization, center_crop, normalize_images
from ktfast.images.decode import decode_rgb
from ktfast.images.in_order import in_order
from ktfast.images.resize import square
from ktfast.manifest import read_result, verified
from ktfast.models import TargetNetwork, Trunk, build_target, load_weights
from ktfast.models.weight_files import read_header
from ktfast.pipeline.environment import resolve_device
from ktfast.pipeline.run_folder import remedy_of
from ktfast.pipeline.steps.networks import HEADER, WEIGHTS

Picture = str | os.PathLike[str] | Image.Image | npt.NDArray[np.uint8]
_SOURCES = "give a run folder, or a weights.safetensors that ktfast wrote"


class ImageModel(nn.Module):
    """A trunk that turns photographs into vectors.

    The trunk sees the pixels of a photograph itself. A run sees its prepared copy, a JPEG image of
    quality `data.quality`, so the vectors of a run's stage features differ a little.

    Parameters
    ----------
    trunk : TargetNetwork
        The network. It is put into evaluation mode.
    layer : str, optional
        Layer whose map gives the vectors. None: the last layer.
    image_size : int
        Side of the central square of the resized photograph, pixels.
    crop : int
        Side of the centre of that square, which the network sees, pixels.
    short_side : int
        Shorter side of the resized photograph, pixels.
    normalization : {"imagenet", "image", "range"}
        Normalisation of the pixels, as in `ktfast.images.augment.normalize_images`.

    Attributes
    ----------
    dim : int
        Length of a vector.

    Raises
    ------
    ConfigError
        The trunk has no layer of this name.
    """

    def __init__(
        self,
        trunk: TargetNetwork,
        layer: str | None = None,
        *,
        image_size: int,
        crop: int,
        short_side: int,
        normalization: Normalization,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.layer = layer or trunk.last_layer
        trunk.require(self.layer)
        self.image_size = image_size
        self.crop = crop
        self.short_side = short_side
        self.normalization: Normalization = normalization
        self.dim = trunk.channels[self.layer]
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """Vectors of normalised pixels: the mean over the map of each channel of the layer.

        Parameters
        ----------
        pixels : Tensor, float [B, 3, crop, crop]
            Photographs from `preprocess`.

        Returns
        -------
        vectors : Tensor, float [B, dim]
            One vector for each photograph.
        """
        maps = self.trunk.features_all(pixels, (self.layer,))[self.layer]
        return functional.adaptive_avg_pool2d(maps, 1).flatten(1)

    def preprocess(self, picture: Picture) -> Tensor:
        """Decode, resize, crop and normalise one photograph.

        Parameters
        ----------
        picture : path, PIL image, or array, uint8 [H, W, 3]
            The photograph. Pictures of PIL in another mode are converted to RGB.

        Returns
        -------
        pixels : Tensor, float32 [3, crop, crop]
            Input of `forward`.

        Raises
        ------
        DataError
            The file cannot be read or decoded. The message names the file.
        InputError
            The array is not uint8 [H, W, 3], or the network was trained on arrays.
        """
        if self.normalization == "range":
            raise InputError(
                "the network was trained on arrays (transfer.channels), not on photographs; give "
                "`forward` float32 [B, C, crop, crop] with transfer.array_range mapped to -1..1"
            )
        pixels = square(_opened(picture), short_side=self.short_side, size=self.image_size)
        batch = center_crop(torch.from_numpy(pixels.copy())[None], self.crop)
        return normalize_images(batch, self.normalization)[0]

    @torch.inference_mode()
    def embed(
        self, pictures: Iterable[Picture], *, batch_size: int = 64, n_threads: int | None = None
    ) -> npt.NDArray[np.float32]:
        """Vectors of photographs, on the device of the network and in evaluation mode.

        Parameters
        ----------
        pictures : iterable of path, PIL image, or array, uint8 [H, W, 3]
            The photographs, such as a list or a column of a data frame.
        batch_size : int
            Number of photographs that the network sees at a time.
        n_threads : int, optional
            Number of threads that decode. None: one per core of this process.

        Returns
        -------
        vectors : array, float32 [n, dim]
            One row for each photograph, in the order of `pictures`.

        Raises
        ------
        DataError
            A file cannot be read or decoded. The message names the file.
        InputError
            `pictures` is a single photograph, or `batch_size` is less than 1.
        """
        if isinstance(pictures, str | os.PathLike | Image.Image):
            raise InputError("embed takes a list of photographs; put a single one into a list")
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        listed = list(pictures)  # a column of a data frame would look up index labels
        like = next(self.parameters())
        rows = np.empty((len(listed), self.dim), np.float32)
        batch: list[Tensor] = []
        with (
            _evaluating(self),
            in_order(lambda row: self.preprocess(listed[row]), len(listed), n_threads) as read,
        ):
            for row, pixels in read(0):
                batch.append(pixels)
                if len(batch) == batch_size or row == len(listed) - 1:
                    vectors = self(torch.stack(batch).to(like)).float().cpu().numpy()
                    rows[row + 1 - len(batch) : row + 1] = vectors
                    batch = []
        return rows


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode for the length of a block."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def load(
    source: str | os.PathLike[str],
    which: str = "transfer",
    *,
    layer: str | None = None,
    device: str | torch.device = "cpu",
) -> ImageModel:
    """Load a trained network of a run, with the preprocessing that the network was trained with.

    Parameters
    ----------
    source : path
        A run folder, or a weight file `weights.safetensors` that a run wrote.
    which : str
        Stage of the run folder that trained the network: "transfer", the student that learnt the
        pseudo-labels, or "pretext", the deep network that learnt the pretext task.
    layer : str, optional
        Layer whose map gives the vectors. None: the last convolutional layer or its
        pooling; for a network of torchvision or timm, its last stage.
    device : str or torch.device
        Device of the network: "cpu", "cuda", "cuda:N", or "auto" for the GPU if there is one.

    Returns
    -------
    model : ImageModel
        A `torch.nn.Module` in evaluation mode. `model.embed` turns photographs into vectors.

    Raises
    ------
    DataError
        There is no finished network, or its file is damaged.
    ConfigError
        The network has no layer of this name, or torch does not find the device.

    Examples
    --------
    >>> import ktfast
    >>> model = ktfast.load("runs/mine")  # doctest: +SKIP
    >>> vectors = model.embed(["new.jpg", "other.jpg"])  # doctest: +SKIP
    """
    path = Path(source)
    if not path.exists():
        raise DataError(f"{shown(path)} does not exist; {_SOURCES}")
    if isinstance(device, str):
        device = resolve_device(device)
    if path.is_dir():
        path = _weights_of_run(path, which)
    elif which not in ("transfer", path.parent.name):
        raise DataError(
            f"{shown(path)} is a weight file, which holds one network, but the stage {which!r} is "
            "asked for; give the run folder"
        )
    facts = _facts_in(path)
    with reading(path, "the weights of a ktfast network", "give the run folder"):
        trunk = build_target(facts["trunk"], **facts["options"])
        if isinstance(trunk, Trunk) and not trunk.n_classes:
            trunk.truncate(facts["last_layer"])
        missing = load_weights(trunk, path).missing
        if missing:
            raise DataError(f"{shown(path)} lacks {missing[0]}; give the weights of one network")
        model = ImageModel(trunk, layer, **facts["preprocessing"])
    return model.to(device)


def _weights_of_run(folder: Path, which: str) -> Path:
    path = folder / which / WEIGHTS
    if not path.is_file():
        stages = sorted(file.parent.name for file in folder.glob(f"*/{WEIGHTS}"))
        have = f"it has networks of {', '.join(stages)}" if stages else "it has no trained network"
        raise DataError(
            f"{shown(folder)} has no trained network of the stage {which!r}; {have}; run "
            "`ktfast run` on the folder, or give another stage"
        )
    record = path.with_name("result.json")
    if not record.is_file():
        return path
    files = read_result(record, remedy_of(which)).get("files")
    return verified(path.parent, WEIGHTS, files, remedy_of(which))


def _facts_in(path: Path) -> dict[str, Any]:
    """Read the description of a network from the header of its weight file."""
    with reading(path, "a weight file", _SOURCES):
        entry = read_header(path, HEADER)
        facts: dict[str, Any] = json.loads(entry) if entry is not None else {}
    if not facts:
        raise DataError(
            f"{shown(path)} does not say of which network it holds the weights; give weights that "
            "this version of ktfast wrote"
        )
    return facts


def _opened(picture: Picture) -> Image.Image:
    """Decode a photograph to mode RGB."""
    if isinstance(picture, str | os.PathLike):
        with reading(picture, "a photograph", "give a photograph"):
            return decode_rgb(Path(picture).read_bytes(), shown(picture))
    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    pixels = np.asarray(picture)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise InputError(
            f"a photograph must be uint8 [H, W, 3], got {pixels.dtype} {list(pixels.shape)}"
        )
    return Image.fromarray(pixels)
