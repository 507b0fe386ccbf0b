"""The options of the target network and of its training."""

import math
from collections.abc import Collection
from typing import Literal

from pydantic import Field, field_validator, model_validator

from ktfast.config.section import Section, TrainingConfig

# Options of the section `transfer` that only some objectives use.
_UNUSED_BY_OBJECTIVE = {
    "clusters": ("pca", "temperature"),
    "regression": ("balanced", "temperature"),
    "similarity": ("balanced",),
}


def unused_by_objective(objective: str) -> tuple[str, ...]:
    """Name the options of the section `transfer` that an objective does not use.

    Parameters
    ----------
    objective : str
        Value of `transfer.objective`. An unknown value counts as using every option; another
        check refuses the value.

    Returns
    -------
    names : tuple of str
        Names without the section.
    """
    return _UNUSED_BY_OBJECTIVE.get(objective, ())


class TransferConfig(Section):
    """The target network, and its training on the pseudo-labels or on the teacher's features."""

    objective: Literal["clusters", "regression", "similarity"] = Field(
        "clusters",
        description="what the target learns; clusters: the pseudo-label of each image; regression: "
        "the teacher's features of each image; similarity: which images of a batch the teacher's "
        "features find alike; an option that the objective does not use is refused",
    )
    pca: int = Field(
        256,
        ge=1,
        description="objectives regression and similarity: largest number of principal axes of the "
        "teacher's features that are kept, and number of the target's outputs",
    )
    temperature: float = Field(
        0.1,
        gt=0,
        description="objective similarity: similarities are divided by this number; a small number "
        "makes only the most similar images count",
    )
    target: str = Field(
        "alexnet",
        description="architecture of the target network: alexnet, vgg16, torchvision:NAME or "
        "timm:NAME, such as torchvision:resnet18; a network of torchvision or timm has random "
        "weights and its own width and dropout",
    )
    variant: Literal["caffe", "torchvision"] = Field(
        "caffe", description="which AlexNet: Caffe's with groups and LRN, or torchvision's"
    )
    width: float = Field(
        1.0,
        gt=0,
        le=4,
        description="multiplies the number of channels of every target layer",
    )
    batch_norm: bool = Field(
        False, description="normalise over the batch after each convolution, instead of LRN"
    )
    image_size: int = Field(
        256, ge=16, description="px; side of the image's central square, from which crops are cut"
    )
    crop: int = Field(
        227,
        ge=16,
        description="px; side of the square that the target sees; in training it is cut at a "
        "random place and mirrored at random",
    )
    area: tuple[float, float] | None = Field(
        None,
        description="smallest and largest share of the image that a crop covers in training, such "
        "as 0.2,1; the crop has an aspect ratio of 3/4 to 4/3 and is resized to transfer.crop; not "
        "set: the crop is a square of transfer.crop px that is not resized",
    )
    color_jitter: float = Field(
        0.0,
        ge=0,
        le=1,
        description="largest relative change of brightness, contrast and saturation in training, "
        "such as 0.4; 0: colours do not change",
    )
    dropout: float = Field(
        0.5, ge=0, lt=1, description="probability of dropping a unit of the fully connected layers"
    )
    balanced: bool = Field(
        False,
        description="show every cluster equally often; the images of small clusters are then shown "
        "several times per epoch; objective clusters only",
    )
    channels: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="number of channels of arrays, such as spectrograms: the image folders hold "
        ".npy files [height, width] or [height, width, channels], which are never mirrored; not "
        "set: the image folders hold photographs",
    )
    array_range: tuple[float, float] = Field(
        (0.0, 255.0),
        description="smallest and largest value of the arrays; "
        "arrays are stored with 8 bits, values outside of the range are cut, and networks see the "
        "range as -1..1",
    )
    training: TrainingConfig = TrainingConfig(epochs=90.0)

    @property
    def normalization(self) -> Literal["imagenet", "range"]:
        """Normalisation of what the target sees; see `ktfast.images.augment.normalize_images`."""
        return "imagenet" if self.channels is None else "range"

    @property
    def mirror(self) -> bool:
        """Whether views are mirrored in training. A mirrored spectrogram is another sound."""
        return self.channels is None

    def unused(self) -> Collection[str]:
        """Name the options that neither the target network nor the objective uses."""
        return (*self._unused_by_target(), *unused_by_objective(self.objective))

    def _unused_by_target(self) -> tuple[str, ...]:
        if ":" in self.target:
            return ("variant", "width", "batch_norm", "dropout")
        return () if self.target == "alexnet" else ("variant",)

    @model_validator(mode="after")
    def _batches_stay_whole(self) -> "TransferConfig":
        if self.objective != "similarity":
            return self
        for name in ("accumulate", "lanes"):
            if (parts := getattr(self.training, name)) > 1:
                raise ValueError(
                    f"training.{name} is {parts}, but the objective similarity does not use parts "
                    "of a batch: it compares all images of a batch with each other; leave "
                    f"transfer.training.{name} out, or lower transfer.training.batch_size"
                )
        if self.training.ddp:
            raise ValueError(
                "training.ddp is set, but the objective similarity does not use parts of a batch: "
                "it compares all images of a batch with each other; leave transfer.training.ddp out"
            )
        return self

    @field_validator("array_range")
    @classmethod
    def _range_rises(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not (math.isfinite(value[0]) and math.isfinite(value[1]) and value[0] < value[1]):
            raise ValueError(f"expected two numbers, the smaller first, got {value}")
        return value

    @field_validator("area")
    @classmethod
    def _area_is_a_share(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not 0 < value[0] <= value[1] <= 1:
            raise ValueError(f"expected two shares in (0, 1], the smaller first, got {value}")
        return value

    @field_validator("target")
    @classmethod
    def _known_target(cls, value: str) -> str:
        library, _, name = value.partition(":")
        if value not in ("alexnet", "vgg16") and not (library in ("torchvision", "timm") and name):
            raise ValueError(
                f"expected alexnet, vgg16, torchvision:NAME or timm:NAME, got {value!r}"
            )
        return value

    @model_validator(mode="after")
    def _options_have_an_effect(self) -> "TransferConfig":
        of_target = self._unused_by_target() if ":" in self.target else ()
        unused = [(name, f"the target {self.target}", "its default") for name in of_target]
        unused += [
            (name, f"the objective {self.objective}", "another transfer.objective")
            for name in unused_by_objective(self.objective)
        ]
        for name, who, instead in unused:
            value = getattr(self, name)
            if value != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name} is {value}, but {who} does not use {name}; leave transfer.{name} out, "
                    f"or give {instead}"
                )
        return self

    @model_validator(mode="after")
    def _crop_fits(self) -> "TransferConfig":
        if self.target == "vgg16" and self.variant != "caffe":
            raise ValueError(
                f"variant {self.variant} is an AlexNet, but the target is {self.target}; leave "
                "transfer.variant out"
            )
        if self.crop > self.image_size:
            raise ValueError(
                f"crop {self.crop} px is larger than image_size {self.image_size} px; lower crop "
                "or raise image_size"
            )
        return self
